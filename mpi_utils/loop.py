"""The one training loop: resume, then iterate, log, compare, agree on stopping, save."""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from common.errors import RankLost, UserError
from common.protocols import Trainable
from common.runs import checkpoint, run_folder
from common.runs.encoding import first_not_finite
from common.runs.logger import Logger
from mpi_utils.comm import Comm
from mpi_utils.elastic import Kept
from mpi_utils.stragglers import Pace
from mpi_utils.sync import check_in_sync
from mpi_utils.watchdog import Watchdog


def run(
    learner: Trainable,
    comm: Comm,
    run_dir: Path | str,
    *,
    iterations: int,
    checkpoint_interval: int,
    sync_interval: int = 10,
    keep: int = 5,
    log: bool = True,
    settings: dict[str, Any] | None = None,
    remake: Callable[[], Trainable] | None = None,
) -> bool:
    """Train `learner` up to `iterations` in all, from the newest valid save in `run_dir`; a collective.

    `settings` are written to config.json once the save is loaded: a run that is refused stays as it was.
    Metrics are to be equal on all ranks. `state_dict()` is asked on all of them, and rank 0's is saved.
    Saves every `checkpoint_interval` iterations, at the end and where an evaluation is the best so far; keeps
    the last `keep` and that of the best. Compares the ranks every `sync_interval` and before each save; a
    state that is not finite is not saved but raises
    FloatingPointError. Returns True when all iterations are done. SIGUSR1 to mpirun or to any rank saves
    after the running iteration and returns False; SIGTERM likewise, but it raises SystemExit(143). A rank
    that gets stuck is named and ends the job (`Watchdog`); of a slow one there is a warning.

    `remake` gives another learner with the same settings, for the ranks that are left; a collective. With it,
    and where MPI leaves the other ranks alive when one is lost, they go on from the beginning of the running
    iteration.
    """
    for name, value in (("checkpoint_interval", checkpoint_interval), ("sync_interval", sync_interval)):
        if value < 1:
            raise UserError(f"{name}: {value} is too small; choose 1 or more")
    with _signals() as received:
        kept = Kept(comm) if remake and comm.survives and comm.size > 1 else None
        plan = Plan(Path(run_dir), iterations, checkpoint_interval, sync_interval, keep, log, settings)
        while True:
            try:
                done, stop = _train(learner, comm, plan, received, kept)
                break
            except RankLost:
                if kept is None or remake is None:
                    raise
            learner = _recovered(kept, remake)
    if stop and comm.is_root:
        print(
            f"stopped by {('SIGUSR1', 'SIGTERM')[stop - 1]} and saved after iteration {done}; "
            "the same command continues",
            file=sys.stderr,
            flush=True,
        )
    if stop == 2:
        raise SystemExit(143)
    return done >= iterations


class Plan(NamedTuple):
    """What is to be done, as `run` was told."""

    run_dir: Path
    iterations: int
    checkpoint_interval: int
    sync_interval: int
    keep: int
    log: bool
    settings: dict[str, Any] | None


def _recovered(kept: Kept, remake: Callable[[], Trainable]) -> Trainable:
    """A new learner for the ranks that are left after a loss."""
    while True:
        try:
            kept.recover()
            return remake()
        except RankLost:  # one more
            continue


def _train(
    learner: Trainable,
    comm: Comm,
    plan: Plan,
    received: Callable[[], int],
    kept: Kept | None,
) -> tuple[int, int]:
    """Train from the kept state, or else the newest save; returns the iterations done and the signal."""
    run_dir, iterations, checkpoint_interval, sync_interval, keep, log, settings = plan
    with Watchdog(comm, run_dir) as watchdog:
        with watchdog.at_the_disk():
            recovered = kept is not None and kept.version is not None
            done = kept.restore(learner) if kept and recovered else resume(learner, comm, run_dir)
            with comm.agree():
                if comm.is_root and done:
                    checkpoint.prune(run_dir, keep)  # a run killed after its last save did not
        with comm.agree():
            logger = Logger(run_dir, comm, iterations, done) if log else None
            if comm.is_root and settings is not None:
                run_folder.write_config(run_dir, settings)
            if comm.is_root and done and not recovered:
                print(_where(done, iterations), flush=True)
        check_in_sync(comm, learner.tensors_in_sync())
        stop, pace, saved = 0, Pace(comm), kept.saved if kept and recovered else done
        try:
            if kept and comm.size > 1:
                kept.saved, kept.patience = saved, watchdog.limit()
                kept.keep(learner, done)
            while done < iterations and not stop:
                began, waited = time.perf_counter(), comm.waited
                metrics = learner.train_iteration(done)
                seconds = time.perf_counter() - began
                done += 1
                watchdog.finished(done, seconds)
                if kept:
                    kept.patience = watchdog.limit()
                if logger:
                    with comm.agree():
                        logger.log(done, metrics)
                stop, worked = _exchange(comm, received(), seconds - (comm.waited - waited))
                pace.warn(worked)
                best = metrics.get("eval/return", -math.inf) >= metrics.get("eval/best_return", math.inf)
                save_now = done % checkpoint_interval == 0 or done == iterations or stop or best
                if save_now or done % sync_interval == 0:
                    check_in_sync(comm, learner.tensors_in_sync())
                if save_now:
                    with watchdog.at_the_disk():
                        _save(learner, comm, run_dir, done, keep, logger, best)
                    saved = done
                if kept and comm.size > 1:
                    kept.saved = saved
                    kept.keep(learner, done)
        except KeyboardInterrupt:
            goes_on = f"continues from the save of iteration {saved}" if saved else "begins anew"
            text = f"interrupted in iteration {done + 1}; the same command {goes_on}"
            raise KeyboardInterrupt(text) from None
        finally:
            if logger:
                logger.close()
    return done, stop


def _where(done: int, iterations: int) -> str:
    """What a resumed run says first."""
    if done < iterations:
        return f"continues after iteration {done} of {iterations}"
    return f"finished: all {done} iterations are done; a larger --max_iters continues"


def resume(learner: Trainable, comm: Comm, run_dir: Path | str) -> int:
    """Load the newest valid save on all ranks and return its step, 0 if there is none; a collective.

    Rank 0 chooses, prints one line for each damaged save that it skipped, and sends the bytes of the files.
    Raises UserError if there are saves and none of them is valid.
    """
    contents: dict[str, bytes] = {}
    with comm.agree():
        if comm.is_root:
            path, skipped = checkpoint.newest_valid(run_dir)
            for reason in skipped:
                print(f"skipped {reason}", file=sys.stderr, flush=True)
            if path is None and skipped:
                raise UserError(
                    f"{run_dir}: none of {len(skipped)} saves is valid; restore one, or start "
                    "anew in another folder"
                )
            contents = checkpoint.read(path) if path else {}
    names = comm.bcast_object(list(contents) if comm.is_root else None)
    contents = {name: comm.bcast_bytes(contents[name] if comm.is_root else None) for name in names}
    if not contents:
        return 0
    step, state = checkpoint.unpack(contents)
    learner.load_state_dict(state)
    return step


def _exchange(comm: Comm, signal_number: int, seconds: float) -> tuple[int, list[float]]:
    """Return the highest signal of all ranks, and the seconds that each of them worked."""
    message = np.zeros(1 + comm.size)
    message[0], message[1 + comm.rank] = signal_number, seconds
    highest, *worked = comm.allreduce_(message, "max").tolist()
    return int(highest), worked


def _save(
    learner: Trainable,
    comm: Comm,
    run_dir: Path | str,
    step: int,
    keep: int,
    logger: Logger | None,
    best: bool,
) -> None:
    state = learner.state_dict()  # on all ranks: it may gather what they hold
    with comm.agree():
        if comm.is_root:
            if name := first_not_finite(state):
                raise FloatingPointError(f"{name} is not finite after iteration {step}, which is not saved")
            if logger:
                logger.sync()
            if best:  # first: the state says that there is a best one
                checkpoint.save_best(run_dir, step, state)
            checkpoint.save(Path(run_dir), step, state)
            checkpoint.prune(run_dir, keep)


@contextmanager
def _signals() -> Iterator[Callable[[], int]]:
    """Give a function that returns what was received so far: 0 nothing, 1 SIGUSR1, 2 SIGTERM.

    A handler only notes its signal: a save in the midst of an iteration, or on one rank, would be none. A
    second SIGTERM ends the process at once, unless within a second: launcher and scheduler may both send it.
    """
    first: dict[int, float] = {}

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM and time.monotonic() - first.get(number, time.monotonic()) > 1.0:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        first.setdefault(number, time.monotonic())

    in_main = threading.current_thread() is threading.main_thread()  # others may not set handlers
    watched = (signal.SIGUSR1, signal.SIGTERM) if in_main else ()
    before = {number: signal.signal(number, note) for number in watched}
    try:
        yield lambda: 2 if signal.SIGTERM in first else len(first)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
