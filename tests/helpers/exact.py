"""The program of test_faults.py, `exact SYSTEM FOLDER`: stopped after every k of 10 iterations.

Between a stop and its continuation the learner is another one, whose numbers are spoilt, and foreign code
draws from all global generators. Rank 0 prints `same` or `differs` for each k; k = 0 is an undisturbed rerun.
"""

import csv
import hashlib
import random
import sys
from pathlib import Path

import numpy as np
import torch

from common.runs.checkpoint import pack
from mpi_utils import loop
from mpi_utils.comm import Comm, guard, set_threads
from tests.helpers.runs import flags
from train import make_learner, parse_arguments

ITERATIONS = 10


def main(comm, system, folder):
    set_threads(comm)
    _, config = parse_arguments(flags(system, folder, system), Comm())

    def trained(name, *ends):
        for number, end in enumerate(ends):
            random.seed(number), np.random.seed(number), torch.manual_seed(number)
            learner, run_dir = make_learner(system, config, comm), Path(folder) / name
            if number:
                spoil(learner)
            loop.run(learner, comm, run_dir, iterations=end, checkpoint_interval=4)
            random.random(), np.random.random(3), torch.rand(3)
        comm.barrier()
        return digest(learner, run_dir)

    whole = trained("whole", ITERATIONS)
    for k in range(ITERATIONS):
        again = trained(f"{k}", *([k] if k else []), ITERATIONS)
        alike = len(set(comm.allgather_object((whole, again)))) == 1 and whole == again
        if comm.is_root:
            print(f"{k} {'same' if alike else 'differs'}", flush=True)


def spoil(learner):
    for tensor in learner.tensors_in_sync().values():
        if tensor.is_floating_point():
            tensor.detach().fill_(9.0)


def digest(learner, run_dir) -> str:
    """SHA-256 of all state and of every logged row but its times."""
    with open(run_dir / "metrics.csv", newline="") as file:
        rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]
    assert len(rows) == ITERATIONS
    contents = pack(0, learner.state_dict()).values()
    return hashlib.sha256(b"".join(contents) + repr(rows).encode()).hexdigest()


if __name__ == "__main__":
    guard(lambda comm: main(comm, *sys.argv[1:]))
