"""What the columns of a log mean, by their names."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from persim.data.checks import Place, fault

SINGLE = ("agent", "time", "reward")
MANY = ("next_state", "state", "action", "covariate")
RULE = "known are agent, time, reward and names that start with state, action, next_state, covariate"
MAX_COLUMNS = 4000


@dataclasses.dataclass(frozen=True)
class Columns:
    """Names of a log's columns; `next_state` and `covariate` may be empty, the others are not."""

    state: list[str]
    action: list[str]
    next_state: list[str]
    covariate: list[str]

    @property
    def numbers(self) -> list[str]:
        """All columns but `agent`."""
        return ["time", *self.state, *self.action, "reward", *self.next_state, *self.covariate]

    @staticmethod
    def short(names: list[str]) -> list[str]:
        """`names` without the word that all begin with: state_x becomes x, state and state_0 stay."""
        short = [re.sub(r"^(next_state|state|action|covariate)_(?=.*\D)", "", name) for name in names]
        return short if len(set(short)) == len(short) else names


def understand(header: list[str], place: Place, family: Any = None) -> Columns:
    """The columns named by `header`; `place(position)` tells where one stands.

    States and actions come in the order of the family's `state_names` where the columns are called after
    them, in the order of their numbers where that is all they add (state_0), else in the order of the file.
    Raises `UserError`, for: a column that is unknown, there twice, missing, or without its next state.
    """
    for position, name in enumerate(header):
        if name in header[:position]:
            raise fault(place(position), f"column {name!r} is there twice; keep one")
        if name not in SINGLE and not name.startswith(MANY):
            hint = "; separate columns by commas" if re.search("[;\t|]", name) else "; remove it"
            raise fault(place(position), f"unknown column {name[:60]!r}{hint} ({RULE})")
    for name in SINGLE:
        if name not in header:
            raise fault(place(0), f"there is no column {name!r}; add it ({RULE})")
    found = {kind: [name for name in header if name.startswith(kind)] for kind in MANY}
    for kind in ("state", "action"):
        if not found[kind]:
            raise fault(place(0), f"there is no column whose name starts with {kind!r}; add it ({RULE})")
    state = _ordered(found["state"], getattr(family, "state_names", ()))
    following = [f"next_{name}" for name in state]
    for name in found["next_state"]:
        if name not in following:
            raise fault(place(header.index(name)), f"column {name!r} goes with no state; rename or remove it")
    for name in following if found["next_state"] else []:
        if name not in header:
            raise fault(place(0), f"there is no column {name!r}; add it, or give no next_state columns")
    return Columns(
        state, _ordered(found["action"]), following if found["next_state"] else [], found["covariate"]
    )


def _ordered(names: list[str], wanted: Sequence[str] = ()) -> list[str]:
    short = Columns.short(names)
    if set(short) == set(wanted):
        return [names[short.index(name)] for name in wanted]
    found = [re.fullmatch(r"[a-z]+_?(\d{1,9})", name) for name in names]
    numbers = {match[0]: int(match[1]) for match in found if match}
    return sorted(names, key=numbers.__getitem__) if len(numbers) == len(names) else names
