"""k policies as one batched module, the critic with one value for each agent, and what acts for agents."""

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import nn

from common.distributions import Categorical, DiagonalGaussian
from common.networks import BatchedLinear
from common.rollout import to_space
from rmdp.config import Config

CLIP = 5.0  # normalised observations beyond this say no more


class Policies(nn.Module):
    """k policies, each a tanh network of two hidden layers; `shared`: one trunk for all of them.

    Observations are `[k, B, D]`: row j is what policy j sees. Discrete actions come as logits, others as a
    Gaussian whose standard deviation is trained, one for each policy.
    """

    def __init__(self, config: Config, observation_space: Any, action_space: Any):
        super().__init__()
        self.num_policies = config.num_policies
        self.discrete = hasattr(action_space, "n")
        self.scaled = config.action_scaling == "box"
        self.num_outputs = num_outputs = int(action_space.n) if self.discrete else action_space.shape[0]
        size = observation_space.shape[0]
        trunks = 1 if config.policy_network == "shared" else config.num_policies
        self.first = BatchedLinear(trunks, size, config.num_features, math.sqrt(2))
        self.second = BatchedLinear(trunks, config.num_features, config.num_features, math.sqrt(2))
        self.head = BatchedLinear(config.num_policies, config.num_features, num_outputs, 0.01)
        if not self.discrete:
            nn.init.constant_(self.head.bias, config.initial_action)
            start = torch.full((config.num_policies, 1, num_outputs), config.initial_log_std)
            self.log_std = nn.Parameter(start)
        self.normaliser = Normaliser(config.num_policies, size, config.normalise_observations)

    def forward(self, x: torch.Tensor) -> Categorical | DiagonalGaussian:
        """The distribution of actions from normalised observations `[k, B, D]`."""
        features = torch.tanh(self.second(torch.tanh(self.first(x))))
        outputs = self.head(features)
        return Categorical(outputs) if self.discrete else DiagonalGaussian(outputs, self.log_std)

    def most_likely(self, observation: torch.Tensor) -> torch.Tensor:
        """Actions `[k, B, ...]` without exploration from raw observations `[k, B, D]`."""
        return self(self.normaliser(observation)).mode()

    def only(self, j: int) -> "Policies":
        """A copy of policy j alone, k = 1."""
        alone = copy.deepcopy(self)
        alone.num_policies = 1
        for tensor in (*alone.parameters(), *alone.buffers()):
            if len(tensor) > 1:  # a shared trunk has one row for all
                tensor.data = tensor.data[j : j + 1].clone()
        return alone


class Normaliser(nn.Module):
    """Running mean and variance of observations, one of each for every policy; clipped at 5 deviations."""

    count: torch.Tensor
    mean: torch.Tensor
    variance: torch.Tensor

    def __init__(self, num_policies: int, size: int, active: bool):
        super().__init__()
        self.active = active
        self.register_buffer("count", torch.zeros(1, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(num_policies, 1, size, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(num_policies, 1, size, dtype=torch.float64))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        """Normalise `[k, ..., D]`."""
        if not self.active:
            return observation
        shape = (len(self.mean), *(1,) * (observation.ndim - 2), self.mean.shape[-1])
        scale = (self.variance + 1e-8).rsqrt().float().view(shape)
        return ((observation - self.mean.float().view(shape)) * scale).clamp_(-CLIP, CLIP)

    @torch.no_grad()
    def update(self, observation: torch.Tensor) -> None:
        """Merge the moments of `[k, B, D]` into the running ones (Chan et al. 1979, parallel variance)."""
        wide = observation.double()
        new, mean = wide.shape[1], wide.mean(1, keepdim=True)
        variance = wide.var(1, keepdim=True, correction=0)
        total = self.count + new
        delta = mean - self.mean
        spread = self.variance * self.count + variance * new + delta.square() * self.count * new / total
        self.variance.copy_(spread / total)
        self.mean.add_(delta * new / total)
        self.count.copy_(total)


class Critic(nn.Module):
    """Values of a state under policy j for each agent of a slice: `[k, B, D]` to `[k, B, agents]`.

    The trunk sees the state and which policy acts; the last layer has one row for each agent, and a rank may
    hold the rows of its own agents only.
    """

    def __init__(self, config: Config, observation_space: Any, num_agents: int):
        super().__init__()
        self.first = BatchedLinear(1, observation_space.shape[0], config.num_features, math.sqrt(2))
        self.acting = nn.Parameter(torch.zeros(config.num_policies, 1, config.num_features))
        self.second = BatchedLinear(1, config.num_features, config.num_features, math.sqrt(2))
        # PyTorch draws a start that is not used, of another size on each rank: nothing else may depend on it.
        with torch.random.fork_rng(devices=[]):
            self.head = nn.Linear(config.num_features, num_agents)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def features(self, x: torch.Tensor, policy: torch.Tensor | None = None) -> torch.Tensor:
        """Row j of `x [k, B, D]` is policy j's; or `x [B, D]` with the policy's number `[B]` for each."""
        acting = self.acting if policy is None else self.acting[policy, 0]
        return torch.tanh(self.second(torch.tanh(self.first(x) + acting)))

    def values(self, features: torch.Tensor, agents: slice = slice(None)) -> torch.Tensor:
        """Values `[..., agents]` of some of the agents from features `[..., H]`."""
        return nn.functional.linear(features, self.head.weight[agents], self.head.bias[agents])

    def forward(self, x: torch.Tensor, policy: torch.Tensor | None = None) -> torch.Tensor:
        """Values `[..., agents]` of all agents."""
        return self.values(self.features(x, policy))

    def trunk(self) -> list[nn.Parameter]:
        """The parameters that all ranks share."""
        return [*self.first.parameters(), self.acting, *self.second.parameters()]


class Actor:
    """Acts for agents by k policies, the most likely actions: row i acts for agent `i % n`.

    `policy_of [n]` is the number of each agent's policy.
    """

    def __init__(self, policies: Policies, action_space: Any, policy_of: np.ndarray):
        self.policies, self.action_space = policies, action_space
        self.policy_of = np.asarray(policy_of)

    def reset(self, num: int) -> None:
        """Begin with `num` rows."""
        k, self.policy = self.policies.num_policies, np.resize(self.policy_of, num)
        count = np.bincount(self.policy, minlength=k)
        order = np.argsort(self.policy, kind="stable")
        self.column = np.empty_like(order)
        self.column[order] = np.arange(num) - (count.cumsum() - count)[self.policy[order]]
        size = self.policies.normaliser.mean.shape[-1]
        self.x = np.zeros((k, count.max(), size), np.float32)

    @torch.no_grad()
    def act(
        self,
        observation: np.ndarray,
        reward: np.ndarray | None = None,
        done: np.ndarray | None = None,
        running: np.ndarray | None = None,
    ) -> np.ndarray:
        """Actions `[num, ...]` for raw observations `[num, D]`; the rest makes no difference.

        All rows are worked on, `running` or not: the rounding of a matrix product hangs on its shape.
        """
        self.x[self.policy, self.column] = observation
        action = self.policies.most_likely(torch.from_numpy(self.x)).numpy()
        return to_space(action[self.policy, self.column], self.action_space, self.policies.scaled)
