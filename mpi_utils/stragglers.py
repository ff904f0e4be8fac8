"""A rank that is slower than the others is told of: all wait for it in every collective."""

import socket
import sys
from collections.abc import Sequence

SLOW = 2.0  # times the median of the others
FOR = 20  # iterations in a row
LEAST_WORK = 0.005  # seconds of work an iteration; less is noise


class Pace:
    """Watches the seconds that ranks worked in an iteration, which is their time outside collectives."""

    def __init__(self, comm):
        self.comm, self.told = comm, False
        self.mine: list[float] = []
        self.others: list[float] = []

    def note(self, seconds: Sequence[float]) -> str:
        """Take the seconds of all ranks, in rank order; returns this rank's warning, once, else ""."""
        own = seconds[self.comm.rank]
        if self.told or self.comm.size == 1:
            return ""
        usual = _median([s for rank, s in enumerate(seconds) if rank != self.comm.rank])
        if own < SLOW * max(usual, LEAST_WORK):
            self.mine, self.others = [], []
            return ""
        self.mine.append(own)
        self.others.append(usual)
        if len(self.mine) < FOR:
            return ""
        self.told = True
        ratio = sum(self.mine) / max(sum(self.others), 1e-9)
        return (
            f"rank {self.comm.rank} on {socket.gethostname()} works {ratio:.1f} times as long as the others "
            f"(median) for {FOR} iterations: all wait for it; its host is busy or its share larger"
        )

    def tell(self, seconds: Sequence[float]) -> None:
        """`note`, printed."""
        if line := self.note(seconds):
            print(line, file=sys.stderr, flush=True)


def _median(values: list[float]) -> float:
    values, middle = sorted(values), len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2
