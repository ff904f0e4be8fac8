"""What the state kept in memory costs:  mpirun -np 2 python -m benchmarks.kept_state SYSTEM [flags]

Prints one JSON line: median seconds of an iteration, of this rank's work to keep a copy of the state after
it, with the median of their ratios, and of its waiting for the others meanwhile; the memory of the state and
of the copy. All flags of `python -m train SYSTEM` are accepted. Training keeps the copy only where the
launcher leaves the other ranks alive when one is lost; here it is kept anyhow.
"""

import json
import statistics
import sys
import time

from common.allocator import keep_freed_memory
from mpi_utils.comm import Comm, guard, set_threads
from mpi_utils.elastic import Kept
from train import make_learner, parse_arguments

ITERATIONS = 7


def main(comm: Comm) -> None:
    """Measure and print."""
    with comm.agree():
        system, config = parse_arguments(sys.argv[1:], comm)
    set_threads(comm)
    keep_freed_memory()
    learner, kept = make_learner(system, config, comm), Kept(comm)
    training, keeping, waiting = [], [], []
    for i in range(ITERATIONS):
        comm.barrier()
        began = time.perf_counter()
        learner.train_iteration(i)
        comm.barrier()
        trained, waited = time.perf_counter(), comm.waited
        kept.keep(learner, i + 1)
        training.append(trained - began)
        waiting.append(comm.waited - waited)
        keeping.append(time.perf_counter() - trained - waiting[-1])
    assert kept.version
    alike = sum(tensor.nbytes for tensor in kept.version.alike["tensors"].values())
    own = kept.version.pieces[comm.rank].nbytes
    ratio = statistics.median(k / t for k, t in zip(keeping[1:], training[1:], strict=True))
    if comm.is_root:
        result = {
            "system": system,
            "ranks": comm.size,
            "iteration_s": round(statistics.median(training[1:]), 4),
            "keep_s": round(statistics.median(keeping[1:]), 5),
            "keep_over_iteration": round(ratio, 5),
            "wait_s": round(statistics.median(waiting[1:]), 5),
            "state_mb": round((alike + own) / 1e6, 3),
            "kept_mb": round((alike + sum(data.nbytes for data in kept.version.pieces.values())) / 1e6, 3),
        }
        print(json.dumps(result))


if __name__ == "__main__":
    guard(main)
