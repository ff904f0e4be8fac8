"""The program that test_long.py starts, `long.py FOLDER ITERATIONS`: prints what ranks hold now and then."""

import json
import os
import sys
import threading
from pathlib import Path

from mpi_utils import loop
from mpi_utils.comm import guard
from tests.helpers import tiny_learner as tiny


def held() -> dict[str, int]:
    """Memory in bytes, open files, threads."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    files = len(os.listdir("/proc/self/fd"))
    return {"memory": pages * os.sysconf("SC_PAGE_SIZE"), "files": files, "threads": threading.active_count()}


def main(comm, folder, iterations):
    seen, every = [], iterations // 10
    at = {i: lambda: seen.append(held()) for i in range(every, iterations, every)}
    learner = tiny.Learner(comm, at=at | {iterations - 1: lambda: seen.append(held())})
    loop.run(learner, comm, folder, iterations=iterations, checkpoint_interval=100)
    print(json.dumps({"rank": comm.rank, "held": seen}), flush=True)


if __name__ == "__main__":
    folder, iterations = sys.argv[1:]
    guard(lambda comm: main(comm, Path(folder), int(iterations)))
