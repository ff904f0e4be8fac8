"""Vanilla policy gradient for P policies with P agents at once."""

import numpy as np
import torch
from torch.nn import functional as F

from caml.config import Config
from caml.policy import SLOPES, Policies
from caml.rollout import Trajectories
from common.optim import SGD, AdamW, make_adamw

ADAM_EPS = 1e-8


def advantages(played: Trajectories, gamma: float, baseline: str = "step") -> np.ndarray:
    """Discounted returns from each step on `[T, P, B]`, standardised for each policy; 0 after the end.

    "step": over the B episodes at each step. "batch": over all steps at once, as in the author's code; that
    blames early actions for having many steps after them, and learning takes several times as long.
    """
    value, alive = played.reward.astype(np.float64), played.alive
    for t in reversed(range(len(value) - 1)):
        value[t] += gamma * value[t + 1]
    over: int | tuple[int, int] = 2 if baseline == "step" else (0, 2)
    count = alive.sum(over, keepdims=True).clip(1)
    value = (value - (value * alive).sum(over, keepdims=True) / count) * alive
    return value / (np.sqrt(np.square(value).sum(over, keepdims=True) / count) + 1e-8)


def weights(played: Trajectories, config: Config) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each step `[P, T * B]`: its share in its policy's mean, and that times its advantage."""
    alive = rows_of(played.alive).float()
    share = alive / alive.sum(1, keepdim=True)
    return share, share * rows_of(advantages(played, config.gamma, config.baseline)).float()


def loss(policies: Policies, played: Trajectories, config: Config) -> torch.Tensor:
    """REINFORCE's loss (Williams 1992): for each policy the mean over its steps of -advantage * log_prob
    - entropy_coef * entropy, summed over policies.

    So a policy's gradient is that of its own mean, whatever the others are.
    """
    share, share_advantage = weights(played, config)
    outputs = policies(rows_of(played.observation)).transpose(1, 2)  # [P, A, T * B]
    action = actions_of(policies, played)
    if policies.gaussian:
        z = (action - outputs) * (-policies.log_std).exp()
        log_prob = -(0.5 * z.square() + policies.log_std).sum(1)  # up to a constant
        entropy = policies.log_std.sum(1)  # likewise
    else:
        log_probs = outputs.log_softmax(1)
        log_prob = log_probs.gather(1, action)[:, 0]
        entropy = -(log_probs.exp() * log_probs).sum(1)
    return -(share_advantage * log_prob + config.entropy_coef * share * entropy).sum()


def actions_of(policies: Policies, played: Trajectories) -> torch.Tensor:
    """The actions taken: `[P, 1, T * B]` whole numbers, or `[P, A, T * B]` of Gaussian policies."""
    action = rows_of(played.action)
    return action.transpose(1, 2) if policies.gaussian else action[:, None]


@torch.no_grad()
def written_gradients(policies: Policies, played: Trajectories, config: Config) -> dict[str, torch.Tensor]:
    """The derivatives of `loss` by the names of parameters, in less than half of the time of autograd's.

    Derivatives by hidden values, `[P, T * B, F]`, are never formed: steps are summed before the head enters.
    """
    share, share_advantage = (rows[:, None] for rows in weights(played, config))
    x, t = rows_of(played.observation), policies.tensors
    hidden = policies.hidden(x)
    outputs, action = policies.outputs(hidden), actions_of(policies, played)
    own = {}
    if policies.gaussian:
        scale = (-policies.log_std).exp()
        z = (action - outputs) * scale
        by_outputs = -share_advantage * z * scale
        by_log_std = -(share_advantage * (z.square() - 1)).sum(2, keepdim=True) - config.entropy_coef
        own["log_std"] = by_log_std * (t["log_std"] == policies.log_std)
    else:
        log_probs = outputs.log_softmax(1)
        probs = log_probs.exp()
        scale = share_advantage
        if config.entropy_coef:
            entropy_slope = log_probs - (probs * log_probs).sum(1, keepdim=True)
            scale = share_advantage + config.entropy_coef * share * entropy_slope
        by_outputs = (probs * scale).scatter_add_(1, action, -share_advantage)

    relu = policies.activation == "relu"
    by_head = None if relu else torch.bmm(by_outputs, hidden)
    slopes = SLOPES[policies.activation](hidden)  # in place of the values
    inputs = F.pad(x.transpose(1, 2), (0, 0, 0, 1), value=1.0)  # [P, D + 1, T * B], the bias's is 1
    products = (inputs[:, :, None] * by_outputs[:, None]).flatten(1, 2)
    sums = torch.bmm(products, slopes).unflatten(1, (inputs.shape[1], -1))  # [P, D + 1, A, F]
    by_first = (sums * t["head.weight"][:, None]).sum(2)
    if relu:  # its values are slopes times what comes in
        by_head = (sums * torch.cat([t["first.weight"], t["first.bias"]], 1)[:, :, None]).sum(1)
    return {
        "first.weight": by_first[:, :-1].contiguous(),
        "first.bias": by_first[:, -1:].contiguous(),
        "head.weight": by_head,
        "head.bias": by_outputs.sum(2, keepdim=True),
        **own,
    }


def autograd_gradients(policies: Policies, played: Trajectories, config: Config) -> dict[str, torch.Tensor]:
    """The derivatives of `loss` by the names of parameters."""
    found = torch.autograd.grad(loss(policies, played, config), policies.parameters())
    return dict(zip(policies.tensors, found, strict=True))


GRADIENTS = {"written": written_gradients, "autograd": autograd_gradients}


def rows_of(array: np.ndarray) -> torch.Tensor:
    """`[T, P, B, ...]` as a tensor `[P, T * B, ...]`."""
    return torch.from_numpy(array).transpose(0, 1).flatten(1, 2)


def make_optimiser(policies: Policies, learning_rate: float) -> AdamW:
    """Adam with moments of zero: elementwise, hence one for each policy."""
    return make_adamw(policies.parameters(), learning_rate, ADAM_EPS)


def update(policies: Policies, optimiser: AdamW | SGD, played: Trajectories, config: Config) -> None:
    """One policy-gradient step of all policies at once, each on its own episodes."""
    found = GRADIENTS[config.gradient](policies, played, config)
    for name, parameter in policies.tensors.items():
        parameter.grad = found[name]
    optimiser.step()
