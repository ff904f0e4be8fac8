"""A line on standard error from time to time while something long is worked on."""

import sys
import threading
import time
from types import TracebackType
from typing import Self

SECONDS = 10.0
_stage = [""]


def at(stage: str) -> None:
    """Say what is worked on from now on; the next line has it."""
    _stage[0] = stage


class Progress:
    """While the block runs, a line every ten seconds: what is worked on, and for how long already."""

    def __init__(self, name: str, active: bool = True, seconds: float = SECONDS):
        self.name, self.seconds, self.over = name, seconds, threading.Event()
        self.thread = threading.Thread(target=self.tell, daemon=True) if active else None

    def tell(self) -> None:
        """Print until the block is over."""
        began = time.monotonic()
        while not self.over.wait(self.seconds):
            stage = f", {_stage[0]}" if _stage[0] else ""
            print(
                f"{self.name}: at work for {time.monotonic() - began:.0f} s{stage}",
                file=sys.stderr,
                flush=True,
            )

    def __enter__(self) -> Self:
        at("")
        if self.thread:
            self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        if self.thread:
            self.thread.join()
