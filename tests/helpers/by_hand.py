"""Runs whose number of ranks is changed by hand:  python -m tests.helpers.by_hand SYSTEM FOLDER PLANS

PLANS is a JSON list with a run's [[ranks, until iteration], ...] each; the run folders are FOLDER/0, 1, ...
"""

import json
import sys
from pathlib import Path

from mpi_utils import loop
from mpi_utils.comm import Comm, guard, set_threads
from tests.helpers.runs import flags
from train import make_learner, parse_arguments

ITERATIONS = 12


def few(system, folder, name):
    """What follows `python -m train` for so many iterations."""
    return flags(system, folder, name, "--max_iters", ITERATIONS)


def main(comm, system, folder, plans):
    from mpi4py import MPI

    for number, plan in enumerate(json.loads(plans)):
        for num_ranks, until in plan:
            some = MPI.COMM_WORLD.Split(0 if comm.rank < num_ranks else 1)
            if comm.rank < num_ranks:
                fewer = Comm(some)
                set_threads(fewer)
                _, config = parse_arguments(few(system, folder, str(number)), Comm())
                learner = make_learner(system, config, fewer)
                loop.run(learner, fewer, Path(folder) / str(number), iterations=until, checkpoint_interval=1)
            comm.barrier()


if __name__ == "__main__":
    guard(lambda comm: main(comm, *sys.argv[1:]))
