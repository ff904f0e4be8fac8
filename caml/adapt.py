"""Vanilla policy gradient for P policies on P tasks at once."""

import numpy as np
import torch
from torch.nn import functional as F

from caml.policy import SLOPES
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


def weights(episodes: Episodes, gamma: float, baseline: str):
    """Of each step `[P, T * B]`: its share in its policy's mean, and that times its advantage."""
    alive = rows_of(episodes.alive).float()
    share = alive / alive.sum(1, keepdim=True)
    return share, share * rows_of(advantages(episodes, gamma, baseline)).float()


def loss(policies, episodes: Episodes, gamma: float, entropy_coef: float = 0.0, baseline: str = "step"):
    """REINFORCE's loss (Williams 1992): for each policy the mean over its steps, summed over policies.

    So a policy's gradient is that of its own mean, whatever the others are.
    """
    share, weight = weights(episodes, gamma, baseline)
    log_probs = policies(rows_of(episodes.observation)).transpose(1, 2).log_softmax(1)  # [P, A, T * B]
    chosen = log_probs.gather(1, rows_of(episodes.action)[:, None])[:, 0]
    result = -(chosen * weight).sum()
    if entropy_coef:
        entropy = -(log_probs.exp() * log_probs).sum(1)
        result = result - entropy_coef * (entropy * share).sum()
    return result


@torch.no_grad()
def gradients(policies, episodes: Episodes, gamma: float, entropy_coef: float = 0.0, baseline: str = "step"):
    """The derivatives of `loss` by the names of parameters, in less than half of the time of autograd's.

    Derivatives by hidden values, `[P, T * B, F]`, are never formed: steps are summed before the head enters.
    """
    share, weight = (rows[:, None] for rows in weights(episodes, gamma, baseline))
    x, t = rows_of(episodes.observation), policies.tensors
    hidden = policies.hidden(x)
    log_probs = policies.logits(hidden).log_softmax(1)
    probs = log_probs.exp()
    scale = weight
    if entropy_coef:
        scale = weight + entropy_coef * share * (log_probs - (probs * log_probs).sum(1, keepdim=True))
    by_logits = (probs * scale).scatter_add_(1, rows_of(episodes.action)[:, None], -weight)

    relu = policies.activation == "relu"
    by_head = None if relu else torch.bmm(by_logits, hidden)
    slopes = SLOPES[policies.activation](hidden)  # in place of the values
    inputs = F.pad(x.transpose(1, 2), (0, 0, 0, 1), value=1.0)  # [P, D + 1, T * B], the bias's is 1
    products = (inputs[:, :, None] * by_logits[:, None]).flatten(1, 2)
    sums = torch.bmm(products, slopes).unflatten(1, (inputs.shape[1], -1))  # [P, D + 1, A, F]
    by_first = (sums * t["head.weight"][:, None]).sum(2)
    if relu:  # its values are slopes times what comes in
        by_head = (sums * torch.cat([t["first.weight"], t["first.bias"]], 1)[:, :, None]).sum(1)
    return {
        "first.weight": by_first[:, :-1].contiguous(),
        "first.bias": by_first[:, -1:].contiguous(),
        "head.weight": by_head,
        "head.bias": by_logits.sum(2, keepdim=True),
    }


def rows_of(array):
    """`[T, P, B, ...]` as a tensor `[P, T * B, ...]`."""
    return torch.from_numpy(array).transpose(0, 1).flatten(1, 2)


def make_optimiser(policies, learning_rate: float):
    """Adam with moments of zero: elementwise, hence one for each policy."""
    return make_adamw(policies.parameters(), learning_rate, ADAM_EPS)


def update(policies, optimiser, episodes: Episodes, config) -> None:
    """One policy-gradient step of all policies at once, each on its own episodes."""
    found = gradients(policies, episodes, config.gamma, config.entropy_coef, config.baseline)
    for name, parameter in policies.tensors.items():
        parameter.grad = found[name]
    optimiser.step()
