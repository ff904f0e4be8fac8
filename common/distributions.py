"""Action distributions as the raw outputs of a policy head, batched over any leading shape."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Categorical:
    """Over `Discrete(n)` actions, from logits `[..., n]`."""

    def __init__(self, logits: torch.Tensor):
        self.log_probs = F.log_softmax(logits, dim=-1)

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Actions `[...]` by the Gumbel trick from `noise [..., n]` uniform in [0, 1)."""
        gumbel = -torch.log(-torch.log(noise.clamp(1e-20, 1 - 1e-7)))
        return (self.log_probs + gumbel).argmax(-1)

    def mode(self) -> torch.Tensor:
        """The most likely actions."""
        return self.log_probs.argmax(-1)

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """Log-probabilities `[...]` of actions."""
        return self.log_probs.gather(-1, action[..., None])[..., 0]

    def entropy(self) -> torch.Tensor:
        """Entropies `[...]`."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)


class DiagonalGaussian:
    """`Box` actions, from means `[..., d]` and log standard deviations `[d]` (of k policies: `[k, 1, d]`)."""

    def __init__(self, mean: torch.Tensor, log_std: torch.Tensor):
        self.mean, self.log_std = mean, log_std

    def sample(self, noise: torch.Tensor) -> torch.Tensor:
        """Actions `[..., d]` from `noise [..., d]` uniform in [0, 1), by the inverse normal distribution."""
        normal = math.sqrt(2) * torch.erfinv((2 * noise - 1).clamp(-1 + 1e-6, 1 - 1e-6))
        return self.mean + self.log_std.exp() * normal

    def mode(self) -> torch.Tensor:
        """The most likely actions."""
        return self.mean

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        """Log-probabilities `[...]` of actions."""
        z = (action - self.mean) * (-self.log_std).exp()
        return (-0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> torch.Tensor:
        """Entropies `[...]`."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1).expand(self.mean.shape[:-1])


class ActionHead(nn.Module):
    """Maps the last layer of a policy to a distribution over a Gymnasium action space's `num_outputs`.

    Of continuous actions the deviation begins at exp(`log_std`), and is `trained` or set by others.
    """

    def __init__(self, num_outputs: int, discrete: bool, log_std: float = -0.5, trained: bool = True):
        super().__init__()
        self.num_outputs, self.discrete, self.trained = num_outputs, discrete, trained
        self.log_std = None if discrete else nn.Parameter(torch.full((num_outputs,), log_std))

    def forward(self, outputs: torch.Tensor) -> Categorical | DiagonalGaussian:
        """The distribution of raw outputs `[..., num_outputs]`."""
        if self.log_std is None:
            return Categorical(outputs)
        return DiagonalGaussian(outputs, self.log_std if self.trained else self.log_std.detach())
