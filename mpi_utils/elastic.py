"""A run that goes on without a lost rank, from the beginning of the iteration in which it was lost.

After each iteration every rank keeps a copy of the state. What is alike on all ranks any of them can give
back; of what a rank has alone, such as its agents in r-MDP, the next rank keeps a copy. After a loss these
parts are joined and loaded into a learner made anew, as a save is by a run that fewer ranks continue.
"""

import json
import math
import os
import sys
import threading
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch

from common.errors import SaveError
from common.protocols import Trainable
from common.runs.encoding import decode, encode
from mpi_utils.comm import Comm, Piece


class Version(NamedTuple):
    """The state after `done` iterations, as far as this rank keeps it."""

    number: int  # of those that were kept before, and 1
    done: int
    size: int  # ranks that kept it together
    alike: dict[str, Any]  # on all ranks
    pieces: dict[int, np.ndarray]  # packed, by rank: this one's and those of the one before


class Kept:
    """The state at the beginning of the running iteration; kept by all ranks of `comm`."""

    def __init__(self, comm: Comm):
        self.comm, self.names = comm, comm.who()
        self.lost: list[str] = []  # of whom has not been told yet
        self.saved = 0  # iterations in the last save on the disk
        self.patience = 0.0  # seconds for the others to come when a rank is lost; 0 for ever
        self.version: Version | None = None  # `alike` is encoded, which is a copy
        self.next: Version | None = None  # `alike` is the learner's own

    @property
    def number(self) -> int:
        """The version that is kept; 0 for none."""
        return self.version.number if self.version else 0

    def keep(self, learner: Trainable, done: int) -> None:
        """Keep the state after `done` iterations instead of the one before; a collective."""
        comm = self.comm
        comm.in_pieces = True
        try:
            alike, own = apart(learner.state_dict())
        finally:
            comm.in_pieces = False
        pieces = {comm.rank: (packed := pack(own)), (comm.rank - 1) % comm.size: comm.pass_on(packed)}
        self.next = Version(self.number + 1, done, comm.size, alike, pieces)
        comm.barrier()  # who is past it knows that all have passed on theirs, so that none goes back further
        self._take()

    def _take(self) -> None:
        """Copy the next version, which the learner has not changed yet."""
        assert self.next
        self.version = self.version and self.version._replace(alike={})  # at no time are there two copies
        tensors: dict[str, torch.Tensor] = {}
        tree = encode(self.next.alike, tensors)
        self.version, self.next = self.next._replace(alike={"tree": tree, "tensors": tensors}), None

    def recover(self) -> None:
        """Leave the lost ranks out, agree on the version to go back to, and tell both; all that live call it.

        RankLost says that one more was lost, and that this is to be called again. The process ends, with exit
        code 75, if the others are not there within `patience` seconds.
        """
        timer = threading.Timer(self.patience or threading.TIMEOUT_MAX, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            self._agree()
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        waited = f"a rank is lost, and others are not there after {self.patience:.0f} s"
        with suppress(OSError):  # a console that is lost
            os.write(2, f"{waited}; the same command continues from the last save\n".encode())
        os._exit(75)

    def _agree(self) -> None:
        comm = self.comm
        gone = comm.shrink()
        self.lost += [self.names[rank] for rank in gone]
        self.names = [name for rank, name in enumerate(self.names) if rank not in gone]
        newest = int(comm.allreduce_(np.array([self.number]), "max")[0])
        if self.number < newest:
            self._take()
        self.next = None
        if comm.is_root:
            are = f"{', '.join(self.lost)} {'is' if len(self.lost) == 1 else 'are'} lost"
            left = f"{comm.size} ranks go" if comm.size > 1 else "one rank goes"
            again = f" from iteration {self.version.done + 1}" if self.version else ""
            print(f"{are}; {left} on{again}", file=sys.stderr, flush=True)
        self.names, self.lost = comm.who(), []

    def restore(self, learner: Trainable) -> int:
        """Load what is kept into a learner; returns how many iterations are done. A collective."""
        learner.load_state_dict(self.state())
        assert self.version
        return self.version.done

    def state(self) -> dict[str, Any]:
        """The kept state with the rows of all ranks, the same on each; a collective.

        Raises SaveError if a part of it is lost with the two ranks that had it.
        """
        comm, version = self.comm, self.version
        assert version
        parts = {rank: unpack(packed) for rank, packed in version.pieces.items()}
        told = comm.allgather_object({rank: [part for part, _ in own] for rank, own in parts.items()})
        layout = {part.path: part for each in told for own in each.values() for part in own}
        holder = {rank: number for number, each in reversed(list(enumerate(told))) for rank in each}
        if layout and (gone := set(range(version.size)) - holder.keys()):
            raise SaveError(
                f"what rank {', '.join(map(str, sorted(gone)))} of {version.size} had is lost with the next "
                "rank, which kept a copy; the same command continues from the last save"
            )
        state = decode(version.alike["tree"], version.alike["tensors"])
        mine = [own for rank in parts if holder[rank] == comm.rank for own in parts[rank]]
        for path, of in sorted(layout.items()):
            whole = np.zeros((of.total, *of.shape[1:]), of.dtype)
            for part, rows in mine:
                if part.path == path:
                    whole[part.start : part.start + len(rows)] = rows
            comm.allreduce_(whole.reshape(-1).view(np.uint8))  # bytes: zeros plus one's own, of any type
            whole = np.ascontiguousarray(np.moveaxis(whole, 0, of.axis))
            put(state, path, torch.from_numpy(whole) if of.is_tensor else whole)
        return state


Path = tuple[str, ...]


def apart(state: dict[str, Any], path: Path = ()) -> tuple[dict[str, Any], dict[Path, Piece]]:
    """A nested state without its pieces, and those by their path."""
    alike, pieces = {}, {}
    for name, value in state.items():
        if isinstance(value, Piece):
            pieces[*path, name] = value
        elif isinstance(value, dict):
            alike[name], inner = apart(value, (*path, name))
            pieces |= inner
        else:
            alike[name] = value
    return alike, pieces


def put(state: dict[str, Any], path: Path, value: Any) -> None:
    """Put back what `apart` took out."""
    for name in path[:-1]:
        state = state.setdefault(name, {})
    state[path[-1]] = value


class Part(NamedTuple):
    """What is told of a piece beside its numbers, which have the rows first."""

    path: Path
    start: int
    total: int
    axis: int
    is_tensor: bool
    dtype: str
    shape: tuple[int, ...]


def pack(pieces: dict[Path, Piece]) -> np.ndarray:
    """Pieces as bytes `[B]`: the length of what is told of them, that, and their numbers."""
    told, numbers = [], []
    for path, (own, rows, total, axis) in pieces.items():
        is_tensor = isinstance(own, torch.Tensor)
        array = np.moveaxis(own.detach().cpu().numpy() if is_tensor else own, axis, 0)
        told.append(Part(path, rows.start, total, axis, is_tensor, array.dtype.str, array.shape))
        numbers.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    text = np.frombuffer(json.dumps(told).encode(), np.uint8)
    return np.concatenate([np.array([len(text)]).view(np.uint8), text, *numbers])


def unpack(packed: np.ndarray) -> list[tuple[Part, np.ndarray]]:
    """What was told of each piece that was packed, and its numbers."""
    at = 8 + int(packed[:8].view(np.int64)[0])
    parts = []
    for path, start, total, axis, is_tensor, dtype, shape in json.loads(packed[8:at].tobytes()):
        part = Part(tuple(path), start, total, axis, is_tensor, dtype, tuple(shape))
        length = math.prod(shape) * np.dtype(part.dtype).itemsize
        parts.append((part, np.frombuffer(packed[at : at + length].tobytes(), part.dtype).reshape(shape)))
        at += length
    return parts
