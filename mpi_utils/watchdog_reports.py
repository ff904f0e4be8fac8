"""What ranks report to each other's watchdogs, and who is to blame when they are stuck."""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from common.runs import files

MOST_NAMED = 20  # ranks


class Report(NamedTuple):
    """What a rank reports of itself."""

    heartbeats: int  # reports so far
    iteration: int  # iterations done
    calls: int  # collectives begun
    inside: str  # the collective it is in; empty at work
    logged: bool  # it has printed where it stands


def read(path: Path) -> Report | None:
    """Return the report in a file, None if there is none."""
    try:
        return Report(*json.loads(files.read_regular(path, 1000)))
    except (OSError, ValueError, TypeError):
        return None


def blame(before: list[Report | None], after: list[Report | None], names: list[str]) -> list[str]:
    """Return lines that name the ranks which the others wait for, from their reports at two times.

    The first of these that there are: ranks that wrote nothing in between, ranks that left, ranks at
    work outside any collective, ranks in another collective than most.
    """
    ranks = list(zip(names, before, after, strict=True))
    silent = [name for name, then, now in ranks if now is not None and now == then]
    if silent:
        return _each(silent, "gives no sign of life: it is stopped, or its host or the disk is lost")
    left = [name for name, _, now in ranks if now is None]
    if left:
        return _each(left, "has left the training loop, and others have not")
    present = [(name, now) for name, _, now in ranks if now is not None]
    working = [(name, now) for name, now in present if not now.inside]
    if working:
        waiting = ", and others wait" if len(working) < len(ranks) else ""
        what = f"is still at work in iteration {working[0][1].iteration + 1}{waiting}"
        return _each([name for name, _ in working], what)
    where = {name: f"collective {now.calls} ({now.inside})" for name, now in present}
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
