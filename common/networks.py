"""Layers of many small networks at once."""

import torch
from torch import nn


class BatchedLinear(nn.Module):
    """`num_networks` linear layers side by side: `[num_networks, B, in]` to `[num_networks, B, out]`.

    Orthogonal initialisation with `gain`, biases zero. With one network, any leading shape is one batch.
    """

    def __init__(self, num_networks: int, in_features: int, out_features: int, gain: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_networks, in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(num_networks, 1, out_features))
        for weight in self.weight:
            nn.init.orthogonal_(weight, gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layers' outputs `[num_networks, B, out]`."""
        if len(self.weight) > 1:
            return torch.baddbmm(self.bias, x, self.weight)
        rows = torch.addmm(self.bias[0, 0], x.reshape(-1, x.shape[-1]), self.weight[0])
        return rows.view(*x.shape[:-1], rows.shape[-1])
