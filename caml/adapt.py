"""Vanilla policy gradient for P policies on P tasks at once."""

import numpy as np
import torch

from caml.rollout import Episodes
from common.optim import make_adamw

ADAM_EPS = 1e-8


def advantages(episodes: Episodes, gamma: float, baseline: str = "step"):
    """Discounted returns from each step on `[T, P, B]`, standardised for each policy; 0 after the end.

    "step": over the B episodes at each step. "batch": over all steps at once, as in the author's code; that
    blames early actions for having many steps after them, and learning takes several times as long.
    """
    value, alive = episodes.reward.astype(np.float64), episodes.alive
    for t in reversed(range(len(value) - 1)):
        value[t] += gamma * value[t + 1]
    over = {"step": 2, "batch": (0, 2)}[baseline]
    count = alive.sum(over, keepdims=True).clip(1)
    value = (value - (value * alive).sum(over, keepdims=True) / count) * alive
    return value / (np.sqrt(np.square(value).sum(over, keepdims=True) / count) + 1e-8)


def loss(policies, episodes: Episodes, gamma: float, entropy_coef: float = 0.0, baseline: str = "step"):
    """REINFORCE's loss (Williams 1992): for each policy the mean over its steps, summed over policies.

    So a policy's gradient is that of its own mean, whatever the others are.
    """
    share = episodes.alive / episodes.alive.sum((0, 2), keepdims=True)
    weight = rows_of(share * advantages(episodes, gamma, baseline)).float()
    log_probs = policies(rows_of(episodes.observation)).transpose(1, 2).log_softmax(1)  # [P, A, T * B]
    chosen = log_probs.gather(1, rows_of(episodes.action)[:, None])[:, 0]
    result = -(chosen * weight).sum()
    if entropy_coef:
        entropy = -(log_probs.exp() * log_probs).sum(1)
        result = result - entropy_coef * (entropy * rows_of(share).float()).sum()
    return result


def rows_of(array):
    """`[T, P, B, ...]` as a tensor `[P, T * B, ...]`."""
    return torch.from_numpy(array).transpose(0, 1).flatten(1, 2)


def make_optimiser(policies, learning_rate: float):
    """Adam with moments of zero: elementwise, hence one for each policy."""
    return make_adamw(policies.parameters(), learning_rate, ADAM_EPS)


def update(policies, optimiser, episodes: Episodes, config) -> None:
    """One policy-gradient step of all policies at once, each on its own episodes."""
    optimiser.zero_grad()
    loss(policies, episodes, config.gamma, config.entropy_coef, config.baseline).backward()
    optimiser.step()
