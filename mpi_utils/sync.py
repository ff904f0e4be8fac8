"""Parameters and gradients that are the same on all ranks, and the check that they are."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from mpi_utils.comm import Comm


def broadcast_parameters(comm: Comm, module: torch.nn.Module) -> None:
    """Overwrite the parameters and buffers of `module` on every rank with those of rank 0."""
    for tensor in (*module.parameters(), *module.buffers()):
        received = tensor.detach().cpu().contiguous()  # the tensor itself where it is both already
        tensor.detach().copy_(comm.bcast_(received))


class FlatGradients:
    """The gradients of `parameters` as one flat float32 buffer, averaged over ranks by one all-reduce.

    `p.grad` of every parameter is a view into the buffer. One update reads

        gradients.zero(); loss.backward(); extras = gradients.average(count, [...]); gradients.clip(1.0)

    then the optimiser's step. A rank without samples calls `zero()` and `average(0.0, ...)`.
    """

    def __init__(self, comm: Comm, parameters: Iterable[torch.Tensor], num_extras: int = 16):
        self.comm, self.parameters, self.num_extras = comm, list(parameters), num_extras
        if any(p.dtype != torch.float32 for p in self.parameters):
            raise TypeError("gradients travel as float32; keep parameters in float32")
        device = self.parameters[0].device
        length = sum(p.numel() for p in self.parameters)
        # What travels: [gradients, extras, weight, one flag a rank: its gradient or extras are not finite].
        self.message = torch.zeros(length + num_extras + 1 + comm.size)
        self.sent, self.tail = self.message[:length], self.message[length:].numpy()
        self.flat = self.sent if device.type == "cpu" else torch.zeros(length, device=device)
        pieces = self.flat.split([p.numel() for p in self.parameters])
        self.views = [piece.view(p.shape) for piece, p in zip(pieces, self.parameters, strict=True)]
        self.zero()

    def zero(self) -> None:
        """Set all gradients to zero, in place of the optimiser's `zero_grad`."""
        self.flat.zero_()
        for p, view in zip(self.parameters, self.views, strict=True):
            p.grad = view

    def average(self, weight: float, extras: Sequence[float] = ()) -> np.ndarray:
        """Replace the gradients by their mean over ranks weighted by `weight`, the samples of this rank.

        Returns the numbers `extras`, averaged likewise (float64). Raises on all ranks alike:
        FloatingPointError if a value on a rank with samples is not finite, ValueError if no rank has samples.
        """
        sums, total = self._sum(weight, extras)
        if total <= 0.0:
            raise ValueError("no rank has a sample to average over")
        self.flat /= total
        return (sums / total).astype(np.float64)

    def sum(self, extras: Sequence[float] = ()) -> np.ndarray:
        """Replace the gradients by their sum over ranks, where each rank's loss is a part of the whole loss.

        Returns the sums of the numbers `extras` (float64); raises FloatingPointError as `average` does.
        """
        return self._sum(1.0, extras)[0].astype(np.float64)

    def _sum(self, weight: float, extras: Sequence[float]) -> tuple[np.ndarray, float]:
        """Sum weighted gradients, extras and weights over ranks; returns the sums of the last two."""
        if len(extras) > self.num_extras:
            raise ValueError(f"{len(extras)} extras, room for {self.num_extras}; raise num_extras")
        self._collect_strays()
        own = np.asarray(extras, np.float32)
        if weight == 0.0:  # the mean of no samples is NaN, which a weight of zero would not remove
            self.flat.zero_()
            own = np.zeros_like(own)
        bad = not (_finite(self.flat) and np.isfinite(own).all() and np.isfinite(weight))
        if weight != 1.0:
            self.flat *= weight
        self.tail[:] = 0.0
        self.tail[: len(own)] = own * np.float32(weight)
        self.tail[self.num_extras] = weight
        self.tail[self.num_extras + 1 + self.comm.rank] = bad
        self._allreduce()

        flags = self.tail[self.num_extras + 1 :]
        if flags.any():
            ranks = ", ".join(map(str, np.flatnonzero(flags)))
            raise FloatingPointError(f"a gradient or metric is not finite on rank {ranks}")
        return self.tail[: len(own)].copy(), float(self.tail[self.num_extras])

    def clip(self, max_norm: float) -> float:
        """Scale the averaged gradients to a norm of at most `max_norm`; returns the norm before."""
        norm = float(torch.linalg.vector_norm(self.flat))
        if norm > max_norm:
            self.flat *= max_norm / norm
        return norm

    def _collect_strays(self) -> None:
        """Bring home gradients that live elsewhere, as after `optimiser.zero_grad(set_to_none=True)`."""
        for p, view in zip(self.parameters, self.views, strict=True):
            if p.grad is None:
                view.zero_()
            elif p.grad.data_ptr() != view.data_ptr():
                view.copy_(p.grad)
            p.grad = view

    def _allreduce(self) -> None:
        on_device = self.flat is not self.sent
        if on_device:
            self.sent.copy_(self.flat)
        self.comm.allreduce_(self.message)
        if on_device:
            self.flat.copy_(self.sent)


def check_in_sync(comm: Comm, named: dict[str, torch.Tensor]) -> None:
    """Compare tensors over all ranks byte by byte; all ranks raise RuntimeError if any differs.

    The error names the ranks that differ from the majority (in a tie, from the lowest rank) and the first
    differing tensor. Bytes, not values: NaN equals itself, and 0.0 is not -0.0.
    """
    names = list(named)
    layout = [(name, str(named[name].dtype), tuple(named[name].shape)) for name in names]
    if ranks := _deviating(comm, [hashlib.sha256(repr(layout).encode())])[1]:
        raise RuntimeError(f"ranks are out of step: rank {ranks} has tensors of other names, types or shapes")
    index, ranks = _deviating(comm, [hashlib.sha256(_bytes(named[name])) for name in names])
    if ranks:
        raise RuntimeError(f"ranks are out of step: rank {ranks} deviates, first in {names[index]}")


def _finite(values: torch.Tensor) -> bool:
    """Whether all are finite; their squared norm is, unless it overflows, and takes a tenth of the time."""
    return math.isfinite(float(torch.dot(values, values))) or bool(torch.isfinite(values).all())


def _bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _deviating(comm: Comm, hashes: list[Any]) -> tuple[int, str]:
    """Return the first position at which ranks disagree and the minority's ranks over all positions."""
    digests = np.zeros((comm.size, len(hashes)), np.uint64)
    digests[comm.rank] = [int.from_bytes(h.digest()[:8], "little") for h in hashes]
    comm.allreduce_(digests)  # rows of zeros but one's own: the sum gathers them
    first = -1
    ranks: set[int] = set()
    for position, column in enumerate(digests.T.tolist()):
        usual = Counter(column).most_common(1)[0][0]  # of equal counts the first met: the lowest rank's
        if any(digest != usual for digest in column):
            first = position if first < 0 else first
            ranks |= {rank for rank, digest in enumerate(column) if digest != usual}
    return first, ", ".join(map(str, sorted(ranks)))
