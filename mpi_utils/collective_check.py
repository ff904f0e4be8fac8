"""A debug mode that tells which ranks call another collective than the others, instead of a hang."""

import sys
from pathlib import Path
from typing import Any

import numpy as np

LENGTH = 256  # bytes of a description
FILES = {Path(__file__).name, "comm.py"}  # are no call sites


def same_call(mpi: Any, what: tuple[Any, ...]) -> None:
    """Raise RuntimeError on all ranks, with each rank's call site, unless all are about to call `what`.

    Costs one more collective for each. A rank that calls none at all is the watchdog's to find.
    """
    text = " ".join(map(str, what))
    mine = np.frombuffer(f"{text} at {_site()}".encode()[:LENGTH].ljust(LENGTH), np.uint8).copy()
    everyone = np.empty((mpi.Get_size(), LENGTH), np.uint8)
    mpi.Allgather(mine, everyone)
    calls = [row.tobytes().decode(errors="replace").strip() for row in everyone]
    if len({call.rpartition(" at ")[0] for call in calls}) > 1:
        each = "; ".join(f"rank {rank}: {call}" for rank, call in enumerate(calls))
        raise RuntimeError(f"ranks call different collectives: {each}")


def _site() -> str:
    """File and line from where the collective was asked for, outside of `Comm`."""
    frame = sys._getframe(1)
    while frame.f_back and Path(frame.f_code.co_filename).name in FILES:
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
