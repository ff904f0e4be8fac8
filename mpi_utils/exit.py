"""How a run ends: exit codes, and how all ranks leave together."""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from common.errors import RankLost, SaveError, is_user_mistake

if TYPE_CHECKING:
    from mpi_utils.comm import Comm

GRACE = 1.0  # seconds that a failing rank waits for the others to leave too, before it ends them


def exit_code(error: BaseException | None) -> int:
    """Return the exit code of a rank that ended with `error`, None being a normal end."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if is_user_mistake(error):
        return 2
    if isinstance(error, SaveError | RankLost):
        return 75
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 0 if error is None else 1


def _message(comm: Comm, error: BaseException, alone: bool) -> str:
    """Return one line for an error that is one line, else the traceback with rank and host."""
    if is_user_mistake(error) or isinstance(error, SaveError | RankLost):
        return f"{error}\n"
    if isinstance(error, KeyboardInterrupt):
        return f"{error}\n" if str(error) else "interrupted\n"
    if isinstance(error, SystemExit) and not alone:
        return f"{error.code}\n" if isinstance(error.code, str) else ""
    trace = "".join(traceback.format_exception(error))
    what = "left while others were still at work" if isinstance(error, SystemExit) else "failed"
    return f"rank {comm.rank} of {comm.size} on {socket.gethostname()} {what}:\n{trace}"


def leave(comm: Comm, error: BaseException | None) -> NoReturn:
    """End this process together with all other ranks; does not return.

    A rank that ends normally waits for the others. One that fails waits GRACE: if all leave by then, the
    first of the failing ones speaks for all; if not, the others wait in a collective that will never end, so
    this rank speaks and aborts them. (MPI by itself ends such a job neither on an exception nor on sys.exit.)
    """
    code = exit_code(error)
    if isinstance(error, RankLost):  # no collective is possible any more: the first that lives speaks for all
        time.sleep(0.3 * min(comm.rank, 10))
        _say(_message(comm, error, alone=True))
        comm.abort(code)
    codes = np.array([code] * comm.size, np.int32)
    if comm.size > 1:
        mine = np.array([code], np.int32)
        try:
            # Higher ranks wait longer, so that of several failing ranks only the first speaks.
            deadline = time.monotonic() + GRACE + 0.3 * min(comm.rank, 10)
            request = comm.leaving.Iallgather(mine, codes)
            while not request.Test():
                if error is not None and time.monotonic() > deadline:
                    _say(_message(comm, error, alone=True))
                    comm.abort(code or 1)
                time.sleep(0.01)
        except KeyboardInterrupt:
            comm.abort(130)
        except Exception as caught:
            if error is not None:
                _say(_message(comm, error, alone=True))
            _leave_without(comm, caught, code)
    failing = np.flatnonzero(codes)
    agreed = int(codes[failing[0]]) if len(failing) else 0
    if error is not None and comm.rank == (failing[0] if len(failing) else 0):
        _say(_message(comm, error, alone=False))
    if comm.size > 1:
        try:
            # Open MPI kills all when the first exits with an error: not before it spoke.
            comm.leaving.Barrier()
        except Exception as caught:
            _leave_without(comm, caught, agreed)
    if comm.survives:
        _end(agreed)
    sys.exit(agreed)


def _leave_without(comm: Comm, caught: Exception, code: int) -> NoReturn:
    """End this process although a rank was lost when all had done their work."""
    if not comm.is_lost(caught):
        raise caught
    comm.leaving.Revoke()
    _end(code)


def _end(code: int) -> NoReturn:
    """End this process without MPI's Finalize, which may wait for a lost rank."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _say(text: str) -> None:
    sys.stdout.flush()
    with suppress(OSError):  # a console that is lost
        os.write(2, text.encode(errors="replace"))  # in one piece: lines of several ranks cannot mix
    sys.stderr.flush()
