"""One policy for all agents: a network that is given the state and the agent's latent factors."""

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete
from torch import nn

from common.distributions import ActionHead, Categorical, DiagonalGaussian
from common.networks import BatchedLinear
from common.rollout import to_space
from persim.simulator import Simulator

HEAD_GAIN = 0.01  # actions begin nearly alike
FARTHEST = 10.0  # deviations; a smooth network sees no state farther out


class Latents(nn.Module):
    """Agents' factors of all members [M, n, r] as `num_latents` numbers each [n, k].

    Members agree on what differs between agents, each in factors of its own: the numbers are the first
    principal components of all of them, in deviations of the first, so that what is noise in one member
    stays small. The map is fixed once the simulators are, and serves agents that come later, too.
    """

    centre: torch.Tensor
    map: torch.Tensor

    def __init__(self, size: int, num_latents: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("map", torch.zeros(size, num_latents))

    def fit(self, factors: torch.Tensor, active: torch.Tensor) -> None:
        """Take the map from the factors [M, n, r] of a population, of the `active` members [M] bool alone."""
        table = flat(factors).double()
        spread = table.std(0, correction=0)
        counts = (spread > 0) & active.repeat_interleave(factors.shape[2])
        self.centre.copy_(table.mean(0))
        table = torch.where(counts, (table - table.mean(0)) / spread.where(counts, 1.0), 0.0)
        _, sizes, axes = torch.linalg.svd(table, full_matrices=False)
        k = min(self.map.shape[1], len(sizes))
        unit = sizes[0] / len(table) ** 0.5
        if unit > 0:
            axes = axes[:k] * torch.sign(axes[:k].sum(1, keepdim=True))  # a sign is nobody's choice
            self.map[:, :k] = (axes / spread.where(counts, 1.0) / unit).T.float()

    def forward(self, factors: torch.Tensor) -> torch.Tensor:
        """Latents [n, k] of agents with factors [M, n, r]."""
        return (flat(factors) - self.centre) @ self.map


def flat(factors: torch.Tensor) -> torch.Tensor:
    """Factors [M, n, r] side by side, [n, M * r]."""
    return factors.detach().transpose(0, 1).flatten(1)


class LearnedPolicy(nn.Module):
    """The distribution of actions, and the value of a state, of an agent with given latents.

    Two networks of two layers of `features` units; states enter as (state - state_mean) / state_scale. Those
    that are `smooth` have derivatives of all orders, and means of actions in -1..1, the space of actions.
    """

    state_mean: torch.Tensor
    state_scale: torch.Tensor

    def __init__(
        self,
        state_size: int,
        num_factors: int,
        num_models: int,
        num_outputs: int,
        discrete: bool,
        features: int,
        smooth: bool = False,
    ) -> None:
        super().__init__()
        self.sizes: dict[str, Any] = {
            "state_size": state_size,
            "num_factors": num_factors,
            "num_models": num_models,
            "num_outputs": num_outputs,
            "discrete": discrete,
            "features": features,
            "smooth": smooth,
        }
        self.latents = Latents(num_models * num_factors, num_factors)
        self.register_buffer("state_mean", torch.zeros(state_size))
        self.register_buffer("state_scale", torch.ones(state_size))
        into = state_size + num_factors
        self.actor: nn.Sequential
        if smooth:
            self.actor, self.critic = smooth_mlp(into, features, num_outputs), smooth_mlp(into, features, 1)
        else:
            self.actor = mlp(into, features, num_outputs, HEAD_GAIN)
            self.critic = mlp(into, features, 1, 1.0)
        self.head = ActionHead(num_outputs, discrete)

    def prepare(self, simulator: Simulator) -> None:
        """Take the units of states, and the map of factors, from simulators that are trained."""
        self.state_mean.copy_(simulator.state_mean.cpu())
        self.state_scale.copy_(simulator.state_scale.cpu())
        self.latents.fit(simulator.factors().cpu(), simulator.active_members.cpu())

    def forward(
        self, state: torch.Tensor, latents: torch.Tensor
    ) -> tuple[Categorical | DiagonalGaussian, torch.Tensor]:
        """Distributions and values [B] of states [B, D] of agents with latents [B, k]."""
        x = self.inputs(state, latents)
        outputs = self.actor(x)
        return self.head(outputs.tanh() if self.sizes["smooth"] else outputs), self.critic(x)[:, 0]

    def inputs(self, state: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """What both networks see [..., D + k] of states [..., D] of agents with latents [..., k]."""
        scaled = (state - self.state_mean) / self.state_scale
        if self.sizes["smooth"]:
            scaled = scaled.clamp(-FARTHEST, FARTHEST)
        return torch.cat([scaled, latents], dim=-1)

    def likeliest(self, state: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The means of actions [B, a] of smooth networks."""
        return self.actor(self.inputs(state, latents)).tanh()


def mlp(into: int, features: int, out: int, gain: float) -> nn.Sequential:
    """Two hidden layers with tanh, and an output layer with weights of size `gain`."""
    root = 2**0.5
    return nn.Sequential(
        BatchedLinear(1, into, features, root),
        nn.Tanh(),
        BatchedLinear(1, features, features, root),
        nn.Tanh(),
        BatchedLinear(1, features, out, gain),
    )


def smooth_mlp(into: int, features: int, out: int) -> nn.Sequential:
    """Two hidden layers of normalised SiLU units; outputs begin near zero."""
    last = nn.Linear(features, out)
    with torch.no_grad():
        last.weight.mul_(HEAD_GAIN)
        last.bias.zero_()
    first = nn.Linear(into, features), nn.SiLU(), nn.LayerNorm(features)
    return nn.Sequential(*first, nn.Linear(features, features), nn.SiLU(), nn.LayerNorm(features), last)


def num_outputs(space: Any) -> int:
    """Outputs of a policy for an action space."""
    return int(space.n) if isinstance(space, Discrete) else int(np.prod(space.shape))


class Acts:
    """A learned policy in the place of a planner, for the agents of a model with `factors()` [M, n, r]."""

    def __init__(self, policy: LearnedPolicy, model: Any, space: Any) -> None:
        self.policy, self.space = policy, space
        self.latents = policy.latents(model.factors().cpu())

    @torch.no_grad()
    def plan(self, model: Any, agents: np.ndarray, state: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """The likeliest actions [E] int64 or [E, a] of `agents` [E] in `state` [E, D]."""
        given = torch.from_numpy(np.asarray(state, np.float32))
        likely = self.policy(given, self.latents[torch.from_numpy(agents)])[0].mode()
        return to_space(likely.numpy(), self.space)
