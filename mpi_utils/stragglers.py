"""A warning of a rank that is slower than the others: all wait for it in every collective."""

import socket
import sys
from collections.abc import Sequence

from mpi_utils.comm import Comm

SLOW_FACTOR = 2.0  # times the median of the others
SLOW_ITERATIONS = 20  # in a row
MIN_WORK_S = 0.005  # seconds of work an iteration; less is noise


class Pace:
    """Watches the seconds that ranks worked in an iteration, which is their time outside collectives."""

    def __init__(self, comm: Comm):
        self.comm, self.warned = comm, False
        self.mine: list[float] = []
        self.others: list[float] = []

    def note(self, seconds: Sequence[float]) -> str:
        """Take the seconds of all ranks, in rank order; returns this rank's warning, once, else ""."""
        own = seconds[self.comm.rank]
        if self.warned or self.comm.size == 1:
            return ""
        usual = _median([s for rank, s in enumerate(seconds) if rank != self.comm.rank])
        if own < SLOW_FACTOR * max(usual, MIN_WORK_S):
            self.mine, self.others = [], []
            return ""
        self.mine.append(own)
        self.others.append(usual)
        if len(self.mine) < SLOW_ITERATIONS:
            return ""
        self.warned = True
        ratio = sum(self.mine) / max(sum(self.others), 1e-9)
        return (
            f"rank {self.comm.rank} on {socket.gethostname()} works {ratio:.1f} times as long as the others "
            f"(median) for {SLOW_ITERATIONS} iterations: all wait for it; "
            "its host is busy or its share larger"
        )

    def warn(self, seconds: Sequence[float]) -> None:
        """Print what `note` returns."""
        if line := self.note(seconds):
            print(line, file=sys.stderr, flush=True)


def _median(values: list[float]) -> float:
    values, middle = sorted(values), len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2
