"""What the default checks cost, one JSON line:  python -m benchmarks.safety

The same learner in the same process, in blocks of iterations with the checks on and off by turns, so that a
busy machine disturbs both alike. Off means: no look for values that are not finite, no comparison of ranks,
no watchdog, no agreement on errors. And the time of a save of 10 MB.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from common.runs import checkpoint
from mpi_utils import loop, sync
from mpi_utils.comm import Comm, guard, set_threads
from rl2.config import Config, check_config
from rl2.learner import Learner
from rl2.problem import make_problem

BLOCKS, ITERATIONS = 20, 10  # of each kind
CONFIG = Config(
    environment="bandit",
    meta_episode_len=50,
    num_features=64,
    precision="float32",
    meta_episodes_per_policy_update=60,
    meta_episodes_per_learner_batch=30,
    num_epochs=4,
)


def main(comm: Comm) -> None:
    """Measure and print."""
    set_threads(comm)
    result = overhead(comm) | saving(comm)
    if comm.is_root:
        print(json.dumps(result))


class Unwatched:
    """In the place of the watchdog."""

    def __init__(self, comm: Comm, run_dir: Path | str):
        pass

    def __enter__(self) -> "Unwatched":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def finished(self, iteration: int, seconds: float) -> None:
        pass

    at_the_disk = staticmethod(nullcontext)


@contextmanager
def unchecked(comm: Comm) -> Iterator[None]:
    """All checks off."""
    with (
        mock.patch.object(loop, "Watchdog", Unwatched),
        mock.patch.object(loop, "check_in_sync", lambda *_: None),
        mock.patch.object(sync, "_finite", lambda _: True),
        mock.patch.object(comm, "agree", nullcontext),
    ):
        yield


class Block:
    """A learner's next iterations, as those of a run that never saves."""

    def __init__(self, learner: Learner, first: int):
        self.learner, self.first = learner, first
        self.began: list[float] = []  # of each iteration, in seconds
        self.tensors_in_sync = learner.tensors_in_sync

    def train_iteration(self, i: int) -> dict[str, float]:
        self.began.append(time.perf_counter())
        return self.learner.train_iteration(self.first + i)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def overhead(comm: Comm) -> dict[str, Any]:
    """Seconds of an iteration with checks and without, medians over blocks, and of their ratios."""
    config = check_config(CONFIG)
    learner = Learner(config, comm, make_problem(config, comm))
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number in range(2 * (BLOCKS + 1)):
        checked = (number + number // 2) % 2 == 0  # on off off on: a drift of the machine cancels
        block = Block(learner, number * ITERATIONS)
        with nullcontext() if checked else unchecked(comm), tempfile.TemporaryDirectory() as folder:
            folder = comm.bcast_object(folder)
            seconds[checked].append(timed(block, comm, folder))
    on, off = seconds[True][1:], seconds[False][1:]
    ratio = statistics.median(a / b for a, b in zip(on, off, strict=True))
    return {
        "checked_iteration_s": round(statistics.median(on), 5),
        "unchecked_iteration_s": round(statistics.median(off), 5),
        "checked_over_unchecked": round(ratio, 4),
        "ranks": comm.size,
    }


def timed(block: Block, comm: Comm, folder: str) -> float:
    """Seconds of one of a block's iterations, within the loop; its start and its end do not count."""
    with mock.patch.object(loop, "_save", lambda *_: None):
        loop.run(
            block,
            comm,
            folder,
            iterations=ITERATIONS + 1,
            checkpoint_interval=10**9,
            sync_interval=5,
            log=False,
        )
    return (block.began[-1] - block.began[0]) / (len(block.began) - 1)


def saving(comm: Comm) -> dict[str, float]:
    """Median seconds of five saves of 10 MB on rank 0."""
    state = {"weights": torch.randn(2_500_000)}
    seconds: list[float] = []
    if comm.is_root:
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            for step in range(5):
                began = time.perf_counter()
                checkpoint.save(folder, step, state)
                seconds.append(time.perf_counter() - began)
    return {"save_of_10_MB_s": round(statistics.median(seconds), 3)} if seconds else {}


if __name__ == "__main__":
    if sys.argv[1:]:
        print(__doc__)
        sys.exit(0 if sys.argv[1] in ("-h", "--help") else 2)
    guard(main)
