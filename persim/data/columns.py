"""What the columns of a log mean, by their names or by a mapping."""

import dataclasses
import difflib
import re
import shlex
from collections.abc import Collection, Sequence
from typing import Any

from common.errors import UserError
from persim.data.checks import MAX_MESSAGE, Place, fault

SINGLE = ("agent", "time", "episode", "reward")
MANY = ("next_state", "state", "action", "covariate")
NEEDED = ("agent", "time", "state", "action", "reward")
MAX_COLUMNS = 4000
# Words by which logs of other people call these; the last word of a name counts, too.
WORDS = {
    "agent": "agent patient subject participant user person id device unit animal customer client name",
    "time": "time timestamp datetime date t step timestep clock when tick epoch",
    "episode": "episode trial session visit run",
    "reward": "reward rew r score cost payoff",
    "action": "action act a dose insulin bolus drug treatment control command input u button choice setpoint",
    "state": "state observation obs s x",
}
INDEX = ("", "__index_level_0__", "unnamed: 0", "index", "rownames", "row.names")


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of a log's columns; `next_state` and `covariate` may be empty, `reward` and `episode` too."""

    agent: str
    time: str
    reward: str
    episode: str
    state: list[str]
    action: list[str]
    next_state: list[str]
    covariate: list[str]
    left_out: list[str]

    @property
    def numbers(self) -> list[str]:
        """All columns of numbers but `time`."""
        reward = [self.reward] if self.reward else []
        return [*self.state, *self.action, *reward, *self.next_state, *self.covariate]

    @property
    def texts(self) -> list[str]:
        """The columns of names."""
        return [self.agent, *([self.episode] if self.episode else [])]

    @staticmethod
    def short(names: list[str]) -> list[str]:
        """`names` without the word that all begin with: state_x becomes x, state and state_0 stay."""
        short = [re.sub(r"^(next_state|state|action|covariate)_(?=.*\D)", "", name) for name in names]
        return short if len(set(short)) == len(short) else names


def role_of(name: str) -> str:
    """The role of a column by its name; empty if it has none."""
    return name if name in SINGLE else next((role for role in MANY if name.startswith(role)), "")


def understand(
    header: list[str], place: Place, family: Any = None, mapping: str = "", words: Collection[str] = ()
) -> Columns:
    """The columns named by `header`; `place(position)` tells where one stands, `words` are those of text.

    `mapping` is `role=column+column,role=column`: it says which columns have a role; roles that it does not
    name are found by the columns' names, and all other columns are left out. States and actions come in the
    order of the mapping, or of the family's `state_names` where the columns are called after them, or in the
    order of their numbers where that is all they add (state_0), else in the order of the file.
    Raises `UserError`, for: a column that is unknown, there twice, missing, or without its next state.
    """
    given = mapped(mapping, header, place)
    taken = {name for names in given.values() for name in names}
    found = {role: [n for n in header if n not in taken and role_of(n) == role] for role in (*SINGLE, *MANY)}
    found |= given
    used = {name for names in found.values() for name in names}
    unknown = [name for name in header if name not in used]
    missing = [role for role in NEEDED if not found[role] and role not in given]
    if missing or (unknown and not mapping):
        raise _strange(header, place, found, unknown, missing, words)
    for position, name in enumerate(header):
        if name in used and name in header[:position]:
            raise fault(place(position), f"column {name!r} is there twice; keep one")
    ordered = {
        "state": _ordered(found["state"], getattr(family, "state_names", ())),
        "action": _ordered(found["action"]),
    } | given
    next_state = found["next_state"]
    if next_state and "next_state" not in given:
        next_state = _following(header, place, ordered["state"], next_state)
    elif next_state and len(next_state) != len(ordered["state"]):
        text = f"{len(next_state)} next_state for {len(ordered['state'])} state columns; give one for each"
        raise UserError(f"--columns: {text}")
    single = {role: (found[role] or [""])[0] for role in SINGLE}
    return Columns(
        **single,
        state=ordered["state"],
        action=ordered["action"],
        next_state=next_state,
        covariate=found["covariate"],
        left_out=unknown,
    )


def mapped(mapping: str, header: list[str], place: Place) -> dict[str, list[str]]:
    """The columns of each role in `mapping`; names may hold commas and plus signs where the header does."""
    given: dict[str, list[str]] = {}
    if not mapping:
        return given
    roles = "|".join((*SINGLE, *MANY))
    for part in re.split(rf",(?=\s*(?:{roles})\s*=)", mapping):
        role, _, value = (text.strip() for text in part.partition("="))
        if not value or role not in (*SINGLE, *MANY) or role in given:
            what = "twice" if role in given else "without a column" if role in (*SINGLE, *MANY) else "no role"
            raise UserError(
                f"--columns {mapping}: {role[:40]!r} is {what}; give role=column for {', '.join(SINGLE)}, "
                f"and role=column+column for {', '.join(MANY)}"
            )
        given[role] = [] if (role, value) == ("reward", "none") else _named(role, value, header, place)
    counted = [name for names in given.values() for name in names]
    for name in counted:
        if counted.count(name) > 1:
            raise UserError(f"--columns {mapping}: column {name!r} has two roles; give it one")
    return given


def _named(role: str, value: str, header: list[str], place: Place) -> list[str]:
    names, pieces = [], value.split("+")
    while pieces:
        fits = (k for k in range(len(pieces), 0, -1) if "+".join(pieces[:k]).strip() in header)
        if not (count := next(fits, 0)):
            near = difflib.get_close_matches(pieces[0].strip(), header, 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(header)}"
            raise fault(place(0), f"--columns {role}={value}: there is no column {pieces[0]!r}{hint}")
        names.append("+".join(pieces[:count]).strip())
        pieces = pieces[count:]
    if role in SINGLE and len(names) > 1:
        raise UserError(f"--columns {role}={value}: give a single column")
    return names


def _following(header: list[str], place: Place, state: list[str], found: list[str]) -> list[str]:
    """The next_state columns, one for each state."""
    following = [f"next_{name}" for name in state]
    following = following if set(found) & set(following) else [f"next_state_{name}" for name in state]
    for name in found:
        if name not in following:
            raise fault(place(header.index(name)), f"column {name!r} goes with no state; rename or remove it")
    for name in following:
        if name not in header:
            raise fault(place(0), f"there is no column {name!r}; add it, or give no next_state columns")
    return following


def _strange(
    header: list[str],
    place: Place,
    found: dict[str, list[str]],
    unknown: list[str],
    missing: list[str],
    words: Collection[str],
) -> UserError:
    """One fault for a whole header: what was recognised and what was not, and the mapping to give."""
    likely: dict[str, list[str]] = {}
    rest = []
    for name in unknown:
        if is_index(name, header):
            continue
        if (
            (role := near(name))
            and role in (*missing, "episode")
            and (role == "action" or role not in likely)
        ):
            likely.setdefault(role, []).append(name)
        elif name not in words:
            rest.append(name)
    asks_episode = likely.pop("episode", None) if found["episode"] else None
    rest += asks_episode or []
    guessed = bool(rest) and bool({"state", "action"} & set(missing))
    if "state" in missing and rest:
        likely["state"] = [*likely.get("state", []), *rest]
    if "action" in missing and "action" not in likely:
        states = likely.get("state", [])
        likely["action"] = [states.pop()] if len(states) > 1 else rest if "state" not in missing else []
    if "reward" in missing:
        likely.setdefault("reward", ["none"])
    whole = {role: likely.get(role) or found[role] or ["COLUMN"] for role in NEEDED}
    whole |= {role: names for role in ("episode",) if (names := likely.get(role) or found[role])}
    whole |= {role: found[role] for role in ("next_state", "covariate") if found[role]}

    def marked(name: str) -> str:
        if is_index(name, header):
            return f"{name!r} (row numbers, as pandas or R write them)"
        return repr(name[:40]) + (f" (near {role})" if (role := near(name)) else "")

    known = ", ".join(
        f"{name[:40]} as {role}" if name != role else name for role, names in found.items() for name in names
    )
    first = header.index(unknown[0]) if unknown else 0
    parts = [
        f"recognised {_cut(known or 'no column', 110)}",
        f"; not {_cut(', '.join(map(marked, unknown)), 150)}" if unknown else "",
        f"; none is for {', '.join(missing)}" if missing else "",
    ]
    check = " (a guess: say which are states and which actions)" if guessed else ""
    options = (
        whole,
        {role: names for role, names in whole.items() if role in likely} or {"agent": ["agent"]},
    )
    where = place(first)
    for roles in options:
        mapping = ",".join(f"{role}={'+'.join(names)}" for role, names in roles.items())
        advice = f"; give --columns {shlex.quote(mapping)}{check}; other columns are then left out"
        text = "".join(parts) + advice
        if len(where) + 2 + len(text) <= MAX_MESSAGE:
            break
    return fault(where, text)


def is_index(name: str, header: list[str]) -> bool:
    """Whether a column looks like the row numbers that pandas and R write."""
    return name.lower() in INDEX and (name == header[0] or name == "__index_level_0__")


def near(name: str) -> str:
    """The role that a name is nearest to, by whole words, then by spelling; empty if there is none."""
    words = [word for word in re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", name) if word]
    words = [word.lower() for word in words]
    for word in (name.lower(), *reversed(words)):
        for role, known in WORDS.items():
            if word in known.split():
                return role
    long = {word: role for role, known in WORDS.items() for word in known.split() if len(word) > 3}
    close = difflib.get_close_matches(name.lower(), long, 1, 0.75)
    return long[close[0]] if close else ""


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length].rpartition(",")[0] + ", ..."


def _ordered(names: list[str], wanted: Sequence[str] = ()) -> list[str]:
    short = Columns.short(names)
    if set(short) == set(wanted):
        return [names[short.index(name)] for name in wanted]
    found = [re.fullmatch(r"[a-z]+_?(\d{1,9})", name) for name in names]
    numbers = {match[0]: int(match[1]) for match in found if match}
    return sorted(names, key=numbers.__getitem__) if len(numbers) == len(names) else names
