"""What ranks say of themselves to each other's watchdogs, and who is to blame when they are stuck."""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from common.runs import files

MOST_NAMED = 20  # ranks


class Report(NamedTuple):
    """What a rank says of itself: its beats, finished iterations, collectives begun, the one it is in."""

    beats: int
    iteration: int
    calls: int
    inside: str
    told: bool


def read(path: Path) -> Report | None:
    """Return the report in a file, None if there is none."""
    try:
        return Report(*json.loads(files.read_regular(path, 1000)))
    except (OSError, ValueError, TypeError):
        return None


def blame(before: list, after: list, names: list[str]) -> list[str]:
    """Return lines that name the ranks which the others wait for, from two looks at their reports.

    The first of these that there are: ranks that wrote nothing between the looks, ranks that left, ranks at
    work outside any collective, ranks in another collective than most.
    """
    ranks = list(zip(names, before, after, strict=True))
    silent = [name for name, then, now in ranks if now is not None and now == then]
    if silent:
        return _each(silent, "gives no sign of life: it is stopped, or its host or the disk is lost")
    left = [name for name, _, now in ranks if now is None]
    if left:
        return _each(left, "has left the training loop, and others have not")
    working = [(name, now) for name, _, now in ranks if not now.inside]
    if working:
        waiting = ", and others wait" if len(working) < len(ranks) else ""
        what = f"is still at work in iteration {working[0][1].iteration + 1}{waiting}"
        return _each([name for name, _ in working], what)
    where = {name: f"collective {now.calls} ({now.inside})" for name, _, now in ranks}
    (usual, most), *others = Counter(where.values()).most_common()
    if not others:
        return [f"all ranks wait in {usual}: MPI or the network between them does not work"]
    if others[0][1] == most:
        return [f"{name} waits in {where[name]}, unlike others" for name in names[:MOST_NAMED]]
    strays = [name for name in names if where[name] != usual]
    return [f"{name} waits in {where[name]}, the others in {usual}" for name in strays[:MOST_NAMED]]


def _each(names: list[str], what: str) -> list[str]:
    more = [f"and {len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return [f"{name} {what}" for name in names[:MOST_NAMED]] + more
