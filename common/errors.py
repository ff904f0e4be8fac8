"""The errors with an exit code of their own: a user's mistake, a save that failed, a rank that is lost."""


class UserError(Exception):
    """A user's mistake, told in one line (what, where, what to do); the program ends with exit code 2.

    `envs` imports nothing of ours: its `EnvError` belongs to the family by the same attribute.
    """

    user_mistake = True


class SaveError(Exception):
    """A save failed and a retry makes sense, told in one line; the program ends with exit code 75."""


class RankLost(Exception):
    """A rank of the job is no more and a retry makes sense, told in one line; exit code 75."""


def is_user_mistake(error: BaseException | None) -> bool:
    """Whether an error is to be told in one line, wherever it was raised."""
    return getattr(error, "user_mistake", False)
