"""Ranks: one communicator, errors that all ranks share, and a guard that ends all of them together."""

from __future__ import annotations

import ctypes
import faulthandler
import functools
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

import cloudpickle
import numpy as np

from common.errors import RankLost, SaveError, UserError, is_user_mistake
from mpi_utils.collective_check import same_call
from mpi_utils.console import keep_going
from mpi_utils.exit import exit_code, leave

if TYPE_CHECKING:
    import torch

Buffer = TypeVar("Buffer", bound="np.ndarray | torch.Tensor")
FAULT_TOLERANT = "OMPI_MCA_mpi_ft_enable"  # set by Open MPI's `mpirun --with-ft ulfm`
PR_SET_PDEATHSIG = 1  # of Linux: which signal to get when the parent ends
REDUCIBLE = {np.dtype(c) for c in ("f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")}


class Piece(NamedTuple):
    """The `rows`, along `axis`, that a rank holds of an array or tensor with `total` of them."""

    own: Any
    rows: slice
    total: int
    axis: int


class Comm:
    """The ranks of this run; `Comm()` is the single rank of a program started without mpirun.

    Every method but `share`, `is_lost` and `abort` is collective: all ranks call it, or none does. If a rank
    is lost and the launcher leaves the others alive (`survives`), their collectives raise RankLost, and
    `shrink` goes on without it.
    """

    def __init__(self, mpi: Any = None, survives: bool = False):
        self.survives = survives
        self.mpi: Any = None
        self.leaving: Any = None  # for the end alone, so that it cannot match a running call
        self.rank, self.size, self.is_root = 0, 1, True
        if mpi is not None:
            self._use(mpi.Dup())
        self.calls = 0  # collectives begun
        self.inside: tuple[Any, ...] = ()  # what the running collective is; () at work
        self.checks = os.environ.get("CHECK_COLLECTIVES") == "1"  # a debug mode, to be set on all ranks
        self.waited = 0.0  # seconds in collectives; the rest of the time is this rank's own work
        # A state is asked for that only training goes on from: of what a rank has a part, that `Piece`.
        self.in_pieces = False

    def _use(self, mpi: Any) -> None:
        self.mpi = mpi
        self.rank, self.size = mpi.Get_rank(), mpi.Get_size()
        self.is_root = self.rank == 0
        self.leaving = mpi.Shrink() if self.survives else mpi.Dup()  # one more loss would disturb Dup

    def share(self, n: int) -> slice:
        """Return this rank's contiguous part of `n` items; the remainder goes to the first ranks."""
        base, extra = divmod(n, self.size)
        start = self.rank * base + min(self.rank, extra)
        return slice(start, start + base + (self.rank < extra))

    def allreduce_(self, array: Buffer, op: str = "sum") -> Buffer:
        """Reduce a contiguous NumPy array or CPU tensor over all ranks in place ("sum", "max", "min").

        float16, bfloat16, bool and objects raise TypeError: MPI adds the first two wrongly or not at all.
        """
        if op not in ("sum", "max", "min"):
            raise ValueError(f"op: {op!r} is none of sum, max, min")
        buffer = _memory(array)
        if buffer.dtype not in REDUCIBLE:
            raise TypeError(f"cannot reduce {buffer.dtype}; convert to float32, float64 or an integer first")
        if self.size > 1:
            from mpi4py import MPI

            what = (f"allreduce {op}", buffer.size, buffer.dtype)
            self._call(what, self.mpi.Allreduce, MPI.IN_PLACE, buffer, getattr(MPI, op.upper()))
        return array

    def bcast_(self, array: Buffer, root: int = 0) -> Buffer:
        """Overwrite a contiguous NumPy array or CPU tensor of any number type with rank `root`'s."""
        buffer = _memory(array, as_bytes=True)
        if self.size > 1:
            self._call((f"broadcast from rank {root}", buffer.size, "bytes"), self.mpi.Bcast, buffer, root)
        return array

    def bcast_bytes(self, data: bytes | None = None, root: int = 0) -> bytes:
        """Return the bytes of rank `root` on every rank; the others' argument is ignored."""
        mine = bytearray(data or b"") if self.rank == root else bytearray()
        size = int(self.bcast_(np.array([len(mine)]), root)[0])
        buffer = np.frombuffer(mine, np.uint8) if self.rank == root else np.empty(size, np.uint8)
        return self.bcast_(buffer, root).tobytes()

    def bcast_object(self, obj: Any = None) -> Any:
        """Return rank 0's object on every rank; for set-up only, e.g. to send an environment factory."""
        with self.agree():
            data = _serialise(obj) if self.is_root else None
        return cloudpickle.loads(self.bcast_bytes(data))  # from our own ranks, never from disk

    def allgather_object(self, obj: Any) -> list[Any]:
        """Return the objects of all ranks, in rank order, on every rank; for set-up only."""
        with self.agree():
            data = _serialise(obj)
        return [cloudpickle.loads(self.bcast_bytes(data, root)) for root in range(self.size)]

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        if self.size > 1:
            self._call(("barrier",), self.mpi.Barrier)

    def pass_on(self, data: np.ndarray) -> np.ndarray:
        """Give bytes to the next rank, the last to the first, and return those of the rank before."""
        if self.size == 1:
            return data
        to, source = (self.rank + 1) % self.size, (self.rank - 1) % self.size
        length = np.empty(1, np.int64)
        self._call(("pass on a length",), self.mpi.Sendrecv, np.array([data.size]), to, 0, length, source)
        received = np.empty(length[0], np.uint8)
        self._call(("pass on bytes",), self.mpi.Sendrecv, data, to, 0, received, source)
        return received

    def who(self) -> list[str]:
        """Rank, process and host of all ranks, in words."""
        return self.allgather_object(f"rank {self.rank} (process {os.getpid()} on {socket.gethostname()})")

    def shrink(self) -> list[int]:
        """Go on with the ranks that live, in the same order; returns the numbers that the lost ones had."""
        from mpi4py import MPI

        before = self.mpi.Get_group()
        while True:
            try:
                self._use(self.mpi.Shrink())
                break
            except MPI.Exception as error:  # one more was lost meanwhile
                if not self.is_lost(error):
                    raise
        numbers = MPI.Group.Translate_ranks(before, None, self.mpi.Get_group())
        return [rank for rank, number in enumerate(numbers) if number == MPI.UNDEFINED]

    def is_lost(self, error: Exception) -> bool:
        """Whether an error means that a rank is lost; if so, collectives of the others end too."""
        if not self.survives:
            return False
        from mpi4py import MPI

        if not isinstance(error, MPI.Exception):
            return False
        failures = (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED)
        # Sometimes the error class is another.
        if error.Get_error_class() not in failures and not self.mpi.Get_failed().Get_size():
            return False
        if self.leaving.Is_revoked() and not self.mpi.Is_revoked():  # by one that fails and ends us all
            time.sleep(10)
            os._exit(1)
        self.mpi.Revoke()
        return True

    def _call(self, what: tuple[Any, ...], collective: Callable[..., Any], *arguments: Any) -> None:
        began = time.perf_counter()
        self.calls += 1
        self.inside = what
        try:
            if self.checks:
                same_call(self.mpi, what)
            collective(*arguments)
        except Exception as error:
            if self.is_lost(error):
                raise RankLost("a rank of the job is lost, and with it the job; start it again") from error
            raise
        self.inside = ()
        self.waited += time.perf_counter() - began

    @contextmanager
    def agree(self) -> Iterator[None]:
        """Let all ranks pass the block, or raise the first failing rank's error on all of them.

        A user's mistake or a SaveError is shared as it is, an OSError as a UserError; any other exception is
        a bug and passes. The block itself holds no collective: a rank that fails in it would miss it.
        """
        error: Exception | None = None
        code = 0
        try:
            yield
        except OSError as caught:
            error, code = UserError(f"{caught.filename or 'input/output'}: {caught.strerror or caught}"), 2
        except Exception as caught:
            if not (is_user_mistake(caught) or isinstance(caught, SaveError)):
                raise
            error, code = caught, exit_code(caught)
        codes = np.zeros(self.size, np.int64)
        codes[self.rank] = code
        self.allreduce_(codes)
        if codes.any():
            first = int(np.flatnonzero(codes)[0])
            text = self.bcast_bytes(str(error).encode(), first).decode()
            raise (SaveError if codes[first] == 75 else UserError)(text) from error

    def abort(self, code: int) -> NoReturn:
        """End all ranks now."""
        sys.stdout.flush()
        sys.stderr.flush()
        if self.size > 1:
            if self.survives:
                self.leaving.Revoke()  # so that the others do not take this for a loss
            time.sleep(0.1)  # the launcher may drop what it has not read yet
            self.mpi.Abort(code)
        os._exit(code)


def _memory(array: Any, as_bytes: bool = False) -> np.ndarray:
    """Return the memory of an array or tensor as a NumPy array that shares it."""
    if hasattr(array, "detach"):
        if not array.is_contiguous():
            raise ValueError("the tensor is not contiguous; send tensor.contiguous()")
        import torch

        tensor = array.detach()
        return (tensor.reshape(-1).view(torch.uint8) if as_bytes else tensor).numpy()
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{type(array).__name__} is neither a NumPy array nor a tensor")
    if not (array.flags.c_contiguous and array.flags.writeable):
        raise ValueError("the array is not contiguous or read-only; send a copy")
    return array.reshape(-1).view(np.uint8) if as_bytes else array


def _serialise(obj: Any) -> bytes:
    try:
        return cloudpickle.dumps(obj)
    except Exception as error:  # pickling runs the object's own code, which may raise anything
        raise UserError(f"{type(obj).__name__} cannot be sent to the other ranks: {error}") from error


@functools.lru_cache(1)
def world() -> Comm:
    """Return the communicator of all ranks, the same object at every call.

    Without a usable MPI library, and not under mpirun, it has the one rank 0. Raises UserError if mpirun
    started several ranks that cannot talk to each other.
    """
    launched = int(os.environ.get("PMI_SIZE") or os.environ.get("OMPI_COMM_WORLD_SIZE") or 1)
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py is there, libmpi is not
        if launched > 1:
            reason = str(error).splitlines()[0]
            raise UserError(f"mpirun started {launched} ranks but MPI cannot be loaded: {reason}") from error
        return Comm()
    survives = launched > 1 and os.environ.get(FAULT_TOLERANT) == "1"
    if survives:  # for then Open MPI's Abort ends the launcher, but not the other ranks
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    comm = Comm(MPI.COMM_WORLD, survives)
    if launched > 1 and comm.size == 1:
        raise UserError(
            f"mpirun started {launched} ranks that do not see each other: it belongs to another "
            "MPI than mpi4py's; use the mpirun beside this python"
        )
    return comm


def set_threads(comm: Comm) -> int:
    """Give torch one thread, or as many as OMP_NUM_THREADS, and NumPy one; call it before the first tensor.

    Cores are for ranks. The products of these networks take less than a millisecond, and threads wait for one
    another after each: for one that another process keeps from its core, a hundred times as long
    (`benchmarks.threads`; docs/clusters.md has numbers). Nor may both libraries have threads: idle ones of
    NumPy's OpenBLAS go on yielding their cores, for which those of torch wait.

    Returns the number of threads, at most this rank's share of the host's cores.
    """
    from threadpoolctl import threadpool_limits

    hosts = comm.allgather_object((socket.gethostname(), sorted(os.sched_getaffinity(0))))
    neighbours = [own for host, own in hosts if host == socket.gethostname()]
    cores = len(set().union(*neighbours))  # a union: ranks may be bound to cores
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    threads = max(1, min(cores // len(neighbours), int(asked) if asked.isdigit() else 1))
    # The environment is for libraries that are imported later.
    os.environ.update(OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS="1")
    threadpool_limits({"openmp": threads, "blas": 1})
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return threads


def script(main: Callable[[Comm], Any]) -> None:
    """`guard` for an installed command, which finds modules in the working directory as `python -m` does."""
    if not sys.flags.safe_path:
        sys.path.insert(1, os.getcwd())
    guard(main)


def guard(main: Callable[[Comm], Any]) -> None:
    """Run `main(comm)` on this rank, then end the process with all other ranks; works under plain mpirun.

    Exit codes: 0 done, 2 UserError, 75 SaveError, 130 Ctrl-C, that of a SystemExit, 1 any other exception.
    UserError and SaveError print their line once; any other exception prints its rank's traceback once, and
    ends the ranks that would wait for it. A lost console ends nothing.
    """
    keep_going()
    faulthandler.enable()
    error: BaseException | None = None
    try:
        comm = world()
    except UserError as caught:
        first = os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK", "0")) == "0"
        sys.exit(leave(Comm(), caught) if first else 2)
    try:
        main(comm)
    except BaseException as caught:  # KeyboardInterrupt and SystemExit too: nothing may leave a rank behind
        error = caught
    leave(comm, error)
