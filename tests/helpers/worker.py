"""A program for several ranks, with one function for each scenario: `worker.py SCENARIO [ARGUMENTS]`."""

import sys
import threading
import time
from pathlib import Path

import numpy as np

from common.errors import SaveError, UserError
from mpi_utils.comm import guard, set_threads


def fail(comm):
    """Rank `size - 1` raises while the others wait for it."""
    if comm.rank == comm.size - 1:
        raise KeyError("the last rank's own mistake")
    comm.barrier()


def fail_everywhere(comm):
    raise ZeroDivisionError(f"the same on all {comm.size} ranks")


def leave_early(comm):
    if comm.rank == 0:
        sys.exit(0)
    comm.barrier()


def leave_together(comm):
    sys.exit(7)


def input_error(comm):
    if comm.rank == comm.size - 1:
        raise UserError("settings.json: no such file; name another")
    comm.barrier()


def agreed(comm):
    """One rank fails inside `agree`, all ranks get its error; first a save, then an input."""
    for kind, failing in ((SaveError, 1), (UserError, comm.size - 1)):
        try:
            with comm.agree():
                if comm.rank == failing:
                    raise kind(f"of rank {failing}")
        except (SaveError, UserError) as error:
            assert type(error) is kind and str(error) == f"of rank {failing}"
        else:
            raise AssertionError(f"rank {comm.rank} passed")
    with comm.agree():
        if comm.is_root:
            open("/no/such/file").close()


def disk_full(comm):
    with comm.agree():
        if comm.is_root:
            raise SaveError("step_00000001: cannot be saved: No space left on device")


def late_rank(comm):
    """Ranks that are done wait for the last one, quietly."""
    if comm.rank == 1:
        time.sleep(1.5)
        print("the late rank is done")


def collectives(comm):
    """Buffers, objects and shares; the expected numbers are worked out by hand."""
    size, rank = comm.size, comm.rank
    total = np.full(3, rank + 1.0)
    assert comm.allreduce_(total) is total and (total == size * (size + 1) / 2).all()
    assert comm.allreduce_(np.array([rank]), "max")[0] == size - 1
    assert comm.allreduce_(np.array([rank]), "min")[0] == 0
    assert comm.bcast_(np.full((2, 2), rank == 0)).all()
    assert comm.bcast_object({"rank": rank}) == {"rank": 0}
    offset = 10
    functions = comm.allgather_object(lambda x: x + offset + rank)
    assert [f(0) for f in functions] == [10 + r for r in range(size)]
    assert set_threads(comm) == 1  # OMP_NUM_THREADS=1 in the environment
    for send in (comm.bcast_object, comm.allgather_object):
        try:
            send(threading.Lock() if comm.is_root else None)
        except UserError as error:
            assert "lock cannot be sent" in str(error)
        else:
            raise AssertionError("a lock was sent")
    pieces = comm.allgather_object([list(range(n))[comm.share(n)] for n in range(2 * size + 2)])
    for n in range(2 * size + 2):
        parts = [piece[n] for piece in pieces]
        assert sum(parts, []) == list(range(n))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    print(f"rank {rank} passed")


def learning(comm, folder):
    from tests.helpers import scenarios

    scenarios.run(comm, Path(folder))


def train(comm, folder, kill="", pause="0", iterations="30"):
    """Train tiny iterations; `kill` ("rank:iteration") ends a rank by SIGKILL, `pause` slows down."""
    from mpi_utils.loop import run
    from tests.helpers import tiny_learner as tiny

    rank, iteration = map(int, kill.split(":")) if kill else (-1, -1)
    at = {i: lambda: time.sleep(float(pause)) for i in range(int(iterations))}
    if rank == comm.rank:
        at[iteration] = lambda: tiny.send_myself(9)
    learner = tiny.Learner(comm, at=at)
    finished = run(learner, comm, folder, iterations=int(iterations), checkpoint_interval=3)
    comm.barrier()
    print(f"finished {finished} {tiny.digest(learner, Path(folder))}", flush=True)


def mismatch(comm, kind):
    """Rank 1 calls another collective than the others, or the same with another size or type."""
    other = {
        "operation": lambda: comm.allreduce_(np.zeros(3), "max"),
        "size": lambda: comm.allreduce_(np.zeros(4)),
        "type": lambda: comm.allreduce_(np.zeros(3, np.float32)),
        "barrier": lambda: comm.barrier(),
    }[kind]
    comm.barrier()
    other() if comm.rank == 1 else comm.allreduce_(np.zeros(3))


ERRORS = {
    "key": KeyError("the key"),
    "memory": MemoryError("no memory"),
    "interrupt": KeyboardInterrupt(),
    "exit 0": SystemExit(0),
    "exit 7": SystemExit(7),
}


def raises(comm, folder, kind, rank):
    """One rank leaves the training loop by an error while the others wait for it."""
    from mpi_utils.loop import run
    from tests.helpers import tiny_learner as tiny

    def fault():
        (Path(folder) / "fault").touch()
        raise ERRORS[kind]

    learner = tiny.Learner(comm, at={2: fault} if comm.rank == int(rank) else {})
    run(learner, comm, Path(folder), iterations=5, checkpoint_interval=1)


if __name__ == "__main__":
    scenario, *arguments = sys.argv[1:]
    guard(lambda comm: globals()[scenario](comm, *arguments))
