"""A stuck job names the rank that the others wait for, and ends.

A thread on every rank, since Python's signal handlers do not run while a rank waits inside MPI. It writes a
line about its rank into <run folder>/.ranks/ every few seconds, which works on several hosts too, and is
read only when something is wrong. The training loop does no more than set attributes.
"""

import faulthandler
import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn, Self

import numpy as np

from common.errors import UserError
from common.runs import files
from mpi_utils.comm import Comm
from mpi_utils.watchdog_reports import Report, blame, read

VARIABLE = "STALL_LIMIT_S"
MIN_LIMIT_S = 600.0  # seconds
FIRST_LIMIT_S = 3600.0  # seconds, before any iteration is done
LIMIT_ITERATIONS = 20.0  # times the longest iteration so far
DISK_FACTOR = 10.0  # a load or a save may take this many limits
HEARTBEATS_PER_LIMIT = 20
MIN_INTERVAL_S, MAX_INTERVAL_S = 0.05, 5.0  # seconds between heartbeats
REPORT_BYTES = 200  # of one length, so that a report is never half old


class Watchdog:
    """Ends the job, with exit code 1, once this rank has got nowhere for longer than a limit; a collective.

    (A launcher that has to kill a stopped rank may report that, 9 or 137, instead.)
    To get somewhere is to finish an iteration or to enter another collective. The limit is 10 minutes or 20
    times the longest iteration so far, whichever is more, and an hour before the first iteration is done;
    the environment variable STALL_LIMIT_S, of rank 0, sets it in seconds, 0 meaning never. Time in which the
    whole job is suspended does not count. Every rank that still lives prints where it stands, and one names
    those that the others wait for.
    """

    def __init__(self, comm: Comm, run_dir: Path | str):
        self.comm, self.folder = comm, Path(run_dir) / ".ranks"
        self.asked = _asked_limit(comm)
        limit = MIN_LIMIT_S if self.asked is None else self.asked
        self.interval = min(max(limit / HEARTBEATS_PER_LIMIT, MIN_INTERVAL_S), MAX_INTERVAL_S)
        # Rank 0 speaks first if it can: what ranks beyond a cut link write is never seen.
        self.turn = 0.0 if comm.is_root else 2 * self.interval
        self.iteration, self.longest = 0, 0.0  # iterations done, seconds of the longest
        self.at_disk, self.logged, self.heartbeats = False, False, 0
        self.names: list[str] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        if self.asked != 0.0:
            with self.comm.agree():
                if self.comm.is_root and self.comm.size > 1:
                    self.folder.parent.mkdir(parents=True, exist_ok=True)
                    files.remove_tree(self.folder)  # a killed run's
                    files.make_folder(self.folder)
            with self.comm.agree():
                self._write_report()
            self.names = self.comm.who()
            self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.ended.set()
        if self.thread.ident:
            self.thread.join()
        if self.comm.size > 1:
            with suppress(OSError):
                self._path(self.comm.rank).unlink(missing_ok=True)
                self.folder.rmdir()  # done by the last rank

    def finished(self, iteration: int, seconds: float) -> None:
        """Note that so many iterations are done, the last of which took so long."""
        self.iteration, self.longest = iteration, max(self.longest, seconds)

    @contextmanager
    def at_the_disk(self) -> Iterator[None]:
        """Be more patient while saves are read or written."""
        self.at_disk = True
        try:
            yield
        finally:
            self.at_disk = False

    def limit(self) -> float:
        """Seconds that are too long at present."""
        limit = self.asked
        if limit is None:
            limit = max(MIN_LIMIT_S, LIMIT_ITERATIONS * self.longest) if self.longest else FIRST_LIMIT_S
        return limit * (DISK_FACTOR if self.at_disk else 1.0)

    def _watch(self) -> None:
        stalled, before = 0.0, time.monotonic()
        seen: tuple[int, int, bool] | None = None
        last_reports: list[Report | None] | None = None  # of half a limit ago
        while not self.ended.wait(self.interval):
            elapsed, before = time.monotonic() - before, time.monotonic()
            with suppress(OSError):  # a full disk is not what we watch
                self._write_report()
            state = (self.iteration, self.comm.calls, self.at_disk)
            if state != seen:
                stalled, seen, last_reports = 0.0, state, None
                continue
            stalled += min(elapsed, 2 * self.interval)  # more: the job was suspended, which is no fault
            if last_reports is None:
                last_reports = self._reports() if stalled > self.limit() / 2 else None
            elif stalled > self.limit() + self.turn:
                self._end(stalled, last_reports)
            if os.path.lexists(self._alarm()):
                self._end()

    def _end(self, stalled: float = 0.0, last_reports: list[Report | None] | None = None) -> NoReturn:
        """Print where this rank stands, wait until all living ranks did, and end them; does not return.

        The first rank to be stuck speaks for all; `last_reports` are of half a limit ago.
        """
        speaks = last_reports is not None and self._is_first()
        text = f"{self.names[self.comm.rank]} stands at\n{_stacks()}"
        if speaks and last_reports is not None:
            named = "\n".join(blame(last_reports, self._reports(), self.names))
            text = f"stuck for {stalled:.1f} s (limit by {VARIABLE}), so all ranks are ended\n{named}\n{text}"
        sys.stdout.flush()
        with suppress(OSError):  # a console that is lost
            os.write(2, text.encode(errors="replace"))  # in one piece: lines of several ranks cannot mix
        self.logged = True
        patience = (1 if speaks else 2) * (3 * self.interval + 1)  # twice: the speaker may be stopped too
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and not (speaks and self._all_logged(last_reports or [])):
            with suppress(OSError):
                self._write_report()
            time.sleep(0.05)
        faulthandler.dump_traceback_later(2, exit=True, file=open(os.devnull, "w"))  # should Abort block
        self.comm.abort(1)

    def _is_first(self) -> bool:
        """Whether no other rank has raised the alarm; that file is how the others learn of it."""
        if self.comm.size == 1:
            return True
        try:
            os.close(files.create(self._alarm()))
        except FileExistsError:
            return False
        except OSError:
            return True  # rather twice than not at all
        return True

    def _all_logged(self, last_reports: list[Report | None]) -> bool:
        pairs = zip(last_reports, self._reports(), strict=True)
        return all(now is None or now.logged or now == before for before, now in pairs)

    def _path(self, rank: int) -> Path:
        return self.folder / f"rank_{rank}"

    def _alarm(self) -> Path:
        return self.folder / "alarm"

    def _write_report(self) -> None:
        """Write this rank's report over its last; opened each time, for NFS shows what is closed."""
        self.heartbeats += 1
        if self.comm.size == 1:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path(self.comm.rank), flags, 0o644)
        try:
            os.write(descriptor, json.dumps(self._report()).encode().ljust(REPORT_BYTES))
        finally:
            os.close(descriptor)

    def _reports(self) -> list[Report | None]:
        """What each rank wrote last; None for one that has left."""
        if self.comm.size == 1:
            return [self._report()]
        return [read(self._path(rank)) for rank in range(self.comm.size)]

    def _report(self) -> Report:
        inside = " ".join(map(str, self.comm.inside))
        return Report(self.heartbeats, self.iteration, self.comm.calls, inside, self.logged)


def _stacks() -> str:
    """Where every thread but this one is, the innermost call first; reads no file, which might block too."""
    lines = []
    for thread in threading.enumerate():
        frame = sys._current_frames().get(thread.ident or 0)
        if thread is threading.current_thread() or frame is None:
            continue
        lines.append(f"  thread {thread.name}:")
        while frame:
            code = frame.f_code
            lines.append(f"    {code.co_filename}:{frame.f_lineno} in {code.co_qualname}")
            frame = frame.f_back
    return "\n".join(lines) + "\n"


def _asked_limit(comm: Comm) -> float | None:
    """STALL_LIMIT_S of rank 0, None if it is not set; a collective."""
    text, limit = os.environ.get(VARIABLE, ""), math.nan
    with comm.agree():
        if text and comm.is_root:
            try:
                limit = float(text)
            except ValueError:
                limit = -1.0
            if not 0 <= limit < math.inf:
                raise UserError(f"{VARIABLE}={text[:50]}: give seconds, or 0 to wait for ever")
    limit = float(comm.bcast_(np.array([limit]))[0])
    return None if math.isnan(limit) else limit
