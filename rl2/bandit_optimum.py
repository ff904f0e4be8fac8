"""What a bandit can be expected to give at most: the Bayes-optimal return of a few pulls."""

from functools import cache

State = tuple[tuple[int, int], ...]  # (wins, losses) of every arm that was pulled, sorted


def optimal_return(num_arms: int, num_pulls: int) -> float:
    """The highest expected return of `num_pulls` pulls under the prior Beta(1, 1) on every arm.

    Exact dynamic programming over posteriors; arms of equal posteriors are one. States grow quickly: ten
    pulls take a second.
    """

    @cache
    def worth(state: State, left: int) -> float:
        if left == 0:
            return 0.0
        choices = set(state) | ({(0, 0)} if len(state) < num_arms else set())
        return max(of_pulling(state, arm, left) for arm in choices)

    def of_pulling(state: State, arm: tuple[int, int], left: int) -> float:
        (wins, losses), others = arm, list(state)
        if arm in others:
            others.remove(arm)
        win = (wins + 1) / (wins + losses + 2)
        after = [(*others, new) for new in ((wins + 1, losses), (wins, losses + 1))]
        won, lost = (worth(tuple(sorted(arms)), left - 1) for arms in after)
        return win * (1 + won) + (1 - win) * lost

    return worth((), num_pulls)
