"""The program that test_watchdog.py starts on several ranks: `stuck.py SCENARIO FOLDER [RANK]`."""

import os
import random
import signal
import sys
import time
from pathlib import Path

from common.runs import checkpoint
from mpi_utils import loop
from mpi_utils.comm import guard
from tests.helpers import tiny_learner as tiny

ITERATIONS, AT = 30, 5


def stopped():
    tiny.send_myself(signal.SIGSTOP)


def endless_loop():
    while True:
        pass


def main(comm, scenario, folder, rank=0):
    if scenario == "healthy":
        return healthy(comm, folder)
    concerned, save = comm.rank == int(rank), checkpoint.save
    at = dict.fromkeys(range(ITERATIONS), lambda: None)
    if concerned and scenario in ("stopped", "endless_loop"):
        at[AT] = lambda: ((folder / "fault").touch(), globals()[scenario]())
    if scenario == "skips_a_collective" and not concerned:
        at[AT] = lambda: ((folder / "fault").touch(), comm.barrier())
    if scenario == "slow":  # and the save takes longer than the limit
        at = dict.fromkeys(at, lambda: time.sleep(0.2 if concerned else 0.01))
        checkpoint.save = lambda *state: (time.sleep(3.0), save(*state))
    if scenario == "slower":
        at = dict.fromkeys(at, lambda: time.sleep(0.06 if concerned else 0.04))
    learner = tiny.Learner(comm, at=at)
    loop.run(learner, comm, folder, iterations=ITERATIONS, checkpoint_interval=ITERATIONS)
    comm.barrier()
    os.write(1, f"digest {tiny.digest(learner, folder)}\n".encode())


def healthy(comm, folder):
    """A hundred runs in which each rank pauses once for up to half the limit of 1 s."""
    for number in range(100):
        rng = random.Random(f"{number} {comm.rank}")
        at = {rng.randrange(ITERATIONS): lambda rng=rng: time.sleep(rng.uniform(0, 0.5))}
        learner = tiny.Learner(comm, at=at)
        loop.run(learner, comm, folder / str(number), iterations=ITERATIONS, checkpoint_interval=9)
    comm.barrier()
    if comm.is_root:
        print("all healthy", flush=True)


if __name__ == "__main__":
    scenario, folder, *rest = sys.argv[1:]
    guard(lambda comm: main(comm, scenario, Path(folder), *rest))
