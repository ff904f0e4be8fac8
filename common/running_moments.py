"""Mean and variance of everything seen so far, the same on all ranks."""

from typing import Any

import numpy as np
import torch
from torch import nn

CLIP = 10.0  # normalised numbers beyond this say no more


class RunningMoments(nn.Module):
    """Mean and variance of each of `size` numbers over all vectors that were given to `update`.

    Before the first they are 0 and 1. They are buffers, so they are saved with the module that has them.
    """

    count: torch.Tensor  # [1] float64
    mean: torch.Tensor  # [size] float64
    variance: torch.Tensor  # [size] float64

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("count", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(size, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Vectors `[..., size]` less the mean, in deviations, clipped."""
        return self.scaled(x - self.mean.float())

    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        """Vectors `[..., size]` in deviations, clipped; no mean is taken away."""
        return (x * (self.variance + 1e-8).rsqrt().float()).clamp(-CLIP, CLIP)

    @torch.no_grad()
    def update(self, comm: Any, x: torch.Tensor | None) -> None:
        """Merge the vectors `[n, size]` of every rank, None for none (Chan et al. 1979); a collective."""
        size = len(self.mean)
        sums = np.zeros(1 + 2 * size)
        if x is not None:
            away = x.double() - self.mean
            sums[0] = len(x)
            sums[1:] = torch.cat([away.sum(0), away.square().sum(0)]).cpu().numpy()
        new, *rest = torch.from_numpy(comm.allreduce_(sums)).to(self.mean.device).split([1, size, size])
        if not new:
            return
        share = new / (self.count + new)
        delta, squares = (share * part / new for part in rest)
        self.variance.copy_(((1 - share) * self.variance + squares - delta.square()).clamp(min=0))
        self.mean.add_(delta)
        self.count.add_(new)
