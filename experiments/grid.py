"""A grid of experiments: each is worked on once, by whichever process is free, and found when it is done."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.runs.files import write_atomic
from common.runs.run_folder import InUse, Lock, lock
from mpi_utils.comm import Comm

Result = dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """Work whose result is a file of JSON.

    `made_for(result)` tells whether a stored result is that of the experiment as it is asked for now. `make`
    does the work; it returns None where that must wait for another process. `claim` keeps other processes
    away, or raises `InUse`; by default it locks a folder beside the file.
    """

    name: str
    file: Path
    made_for: Callable[[Result], bool]
    make: Callable[[], Result | None]
    claim: Callable[[], Lock] | None = None

    def result(self) -> Result | None:
        """What is stored; None if that is nothing, damaged, or made for something else."""
        try:
            result = json.loads(self.file.read_bytes())
        except (OSError, ValueError):
            return None
        return result if isinstance(result, dict) and self.made_for(result) else None

    def lock(self) -> Lock:
        """Hold the experiment; raises `InUse` if another process does."""
        return self.claim() if self.claim else lock(self.file.parent / f".{self.file.stem}")


def work_together(experiments: Sequence[Experiment], comm: Comm) -> None:
    """Go through the experiments, all ranks at one of them; a collective."""
    work(experiments, comm)


def work_apart(experiments: Sequence[Experiment], comm: Comm) -> None:
    """Go through the experiments, each rank at one of its own; a collective."""
    work(experiments, Comm())
    comm.barrier()


def work(experiments: Sequence[Experiment], comm: Comm) -> None:
    """Work on what is free until all is done, or all that is left is in the hands of others."""
    left = list(experiments)
    try:
        while left:
            waiting = [experiment for experiment in left if not attempt(experiment, comm)]
            if len(waiting) == len(left):
                break
            left = waiting
    except KeyboardInterrupt as stop:
        done = sum(experiment.result() is not None for experiment in experiments)
        place = os.path.commonpath([experiment.file.parent for experiment in experiments])
        raise KeyboardInterrupt(
            f"{str(stop) or 'interrupted: the experiment at work begins anew'}; {done} of {len(experiments)} "
            f"experiments are done and kept in {place}; the same command goes on with the rest"
        ) from None


def attempt(experiment: Experiment, comm: Comm) -> bool:
    """Make the result of an experiment unless it is there; False if that must wait. A collective."""
    held, done = None, False
    with comm.agree():
        if comm.is_root and not (done := experiment.result() is not None):
            with contextlib.suppress(InUse):
                held = experiment.lock()
                done = experiment.result() is not None  # finished between the look and the lock
    done, free = comm.bcast_object((done, held is not None))
    with held or contextlib.nullcontext():
        if done or not free:
            return done
        if (result := experiment.make()) is None:
            return False
        with comm.agree():
            if comm.is_root:
                experiment.file.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(experiment.file, json.dumps(result, indent=1).encode() + b"\n")
    return True


def results(experiments: Sequence[Experiment]) -> dict[Experiment, Result]:
    """What is done; prints how much that is, and the names of the rest."""
    found = {experiment: experiment.result() for experiment in experiments}
    done = {experiment: result for experiment, result in found.items() if result is not None}
    print(f"{len(done)} of {len(found)} experiments are done", flush=True)
    if left := [experiment.name for experiment in found if experiment not in done]:
        print(f"still worked on elsewhere: {', '.join(left)}; the same command later adds them", flush=True)
    return done


def same(stored: Any, wanted: Any) -> bool:
    """Whether a stored value is what `wanted` would be stored as."""
    return stored == json.loads(json.dumps(wanted))
