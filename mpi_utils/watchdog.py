"""A stuck job tells which rank the others wait for, and ends.

A thread on every rank, since Python's signal handlers do not run while a rank waits inside MPI. It writes a
line about its rank into <run folder>/.ranks/ every few seconds, which works on several hosts too, and is
read only when something is wrong. The training loop does no more than set attributes.
"""

import faulthandler
import json
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.runs import files
from mpi_utils.watchdog_reports import Report, blame, read

VARIABLE = "STALL_LIMIT_S"
LEAST, FIRST, TIMES = 600.0, 3600.0, 20.0  # seconds, seconds before any iteration is done, iterations
DISK_PATIENCE = 10.0  # a load or a save may take this many limits
LOOKS = 20  # within a limit


class Watchdog:
    """Ends the job, with exit code 1, once this rank has got nowhere for longer than a limit; a collective.

    (A launcher that has to kill a stopped rank may report that, 9 or 137, instead.)
    To get somewhere is to finish an iteration or to enter another collective. The limit is 10 minutes or 20
    times the longest iteration so far, whichever is more, and an hour before the first iteration is done;
    the environment variable STALL_LIMIT_S, of rank 0, sets it in seconds, 0 meaning never. Time in which the
    whole job is suspended does not count. Every rank that still lives prints where it stands, and one names
    those that the others wait for.
    """

    def __init__(self, comm, run_dir):
        self.comm, self.folder = comm, Path(run_dir) / ".ranks"
        self.asked = _asked_limit(comm)
        self.interval = min(max((LEAST if self.asked is None else self.asked) / LOOKS, 0.05), 5.0)
        # Rank 0 speaks first if it can: what ranks beyond a cut link write is never seen.
        self.turn = 0.0 if comm.is_root else 2 * self.interval
        self.iteration, self.longest, self.disk, self.told, self.beats = 0, 0.0, False, False, 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self):
        if self.asked != 0.0:
            with self.comm.agree():
                if self.comm.is_root and self.comm.size > 1:
                    self.folder.parent.mkdir(parents=True, exist_ok=True)
                    files.remove_tree(self.folder)  # a killed run's
                    files.make_folder(self.folder)
            with self.comm.agree():
                self._beat()
            me = f"rank {self.comm.rank} (process {os.getpid()} on {socket.gethostname()})"
            self.names = self.comm.allgather_object(me)
            self.thread.start()
        return self

    def __exit__(self, *exception):
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
        self.disk = True
        try:
            yield
        finally:
            self.disk = False

    def limit(self) -> float:
        """Seconds that are too long at present."""
        usual = max(LEAST, TIMES * self.longest) if self.longest else FIRST
        return (usual if self.asked is None else self.asked) * (DISK_PATIENCE if self.disk else 1.0)

    def _watch(self) -> None:
        stalled, seen, looked, before = 0.0, None, None, time.monotonic()
        while not self.ended.wait(self.interval):
            elapsed, before = time.monotonic() - before, time.monotonic()
            with suppress(OSError):  # a full disk is not what we watch
                self._beat()
            state = (self.iteration, self.comm.calls, self.disk)
            if state != seen:
                stalled, seen, looked = 0.0, state, None
                continue
            stalled += min(elapsed, 2 * self.interval)  # more: the job was suspended, which is no fault
            if looked is None:
                looked = self._reports() if stalled > self.limit() / 2 else None
            elif stalled > self.limit() + self.turn:
                self._end(stalled, looked)
            if os.path.lexists(self._alarm()):
                self._end()

    def _end(self, stalled: float = 0.0, looked: list | None = None) -> None:
        """Print where this rank stands, wait until all living ranks did, and end them; does not return.

        The first rank to be stuck speaks for all; `looked` is what the ranks wrote half a limit ago.
        """
        speaks = bool(stalled) and self._is_first()
        text = f"{self.names[self.comm.rank]} stands at\n{_stacks()}"
        if speaks:
            named = "\n".join(blame(looked, self._reports(), self.names))
            text = f"stuck for {stalled:.1f} s (limit by {VARIABLE}), so all ranks are ended\n{named}\n{text}"
        sys.stdout.flush()
        os.write(2, text.encode(errors="replace"))  # in one piece: lines of several ranks cannot mix
        self.told = True
        patience = (1 if speaks else 2) * (3 * self.interval + 1)  # twice: the speaker may be stopped too
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and not (speaks and self._all_told(looked)):
            with suppress(OSError):
                self._beat()
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

    def _all_told(self, looked: list) -> bool:
        pairs = zip(looked, self._reports(), strict=True)
        return all(now is None or now.told or now == before for before, now in pairs)

    def _path(self, rank: int) -> Path:
        return self.folder / f"rank_{rank}"

    def _alarm(self) -> Path:
        return self.folder / "alarm"

    def _beat(self) -> None:
        """Write this rank's report over its last; opened each time, for NFS shows what is closed."""
        self.beats += 1
        if self.comm.size == 1:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path(self.comm.rank), flags, 0o644)
        try:
            os.write(
                descriptor, json.dumps(self._report()).encode().ljust(200)
            )  # of one length: never half old
        finally:
            os.close(descriptor)

    def _reports(self) -> list:
        """What each rank wrote last; None for one that has left."""
        if self.comm.size == 1:
            return [self._report()]
        return [read(self._path(rank)) for rank in range(self.comm.size)]

    def _report(self):
        inside = " ".join(map(str, self.comm.inside))
        return Report(self.beats, self.iteration, self.comm.calls, inside, self.told)


def _stacks() -> str:
    """Where every thread but this one is, the innermost call first; reads no file, which might block too."""
    lines = []
    for thread in threading.enumerate():
        frame = sys._current_frames().get(thread.ident)
        if thread is threading.current_thread() or frame is None:
            continue
        lines.append(f"  thread {thread.name}:")
        while frame:
            code = frame.f_code
            lines.append(f"    {code.co_filename}:{frame.f_lineno} in {code.co_qualname}")
            frame = frame.f_back
    return "\n".join(lines) + "\n"


def _asked_limit(comm) -> float | None:
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
