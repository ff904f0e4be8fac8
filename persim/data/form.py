"""How a log is to be read, where its names and types do not say it themselves."""

import dataclasses
from collections.abc import Callable


def keep_quiet(line: str) -> None:
    """Tell nobody."""


@dataclasses.dataclass(frozen=True)
class Form:
    """What the flags, or the run that a log is held against, say of a log.

    `columns` gives roles, `agent=patient,state=glucose+pulse`; `action_kind` is auto, continuous or discrete;
    `gaps` says whether a missing value is refused or splits windows, and `shortest` how many steps in a row
    an agent must have, lest it is refused or, if gaps split, left out.
    `decimal` is "." or "," or "", which finds it out. `step` (size, unit "s" or "") is the time of a step,
    None to find it out. `labels` are the run's categories of actions, by number; None: its actions are
    numbers. Of a log that is `held_out` nothing is learnt: nothing in it is refused for being
    constant or short. `tell` is given a line about everything that was found out.
    """

    columns: str = ""
    action_kind: str = "auto"
    decimal: str = ""
    gaps: str = "refuse"
    shortest: int = 1
    step: tuple[float, str] | None = None
    labels: list[str] | None = None
    held_out: bool = False
    tell: Callable[[str], None] = keep_quiet
