"""Generalised advantage estimation."""

import numpy as np
import torch


def gae(
    rewards: torch.Tensor,
    values: torch.Tensor,
    gamma: float,
    gae_lambda: float,
    next_value: torch.Tensor | None = None,
    cut: torch.Tensor | None = None,
) -> torch.Tensor:
    """Advantages of `rewards [T, N]` under `values [T, N]` (Schulman et al. 2016, eq. 16).

    `next_value [N]` is the value after the last step (zero where the data ends for good). `cut [T, N]` is 1
    where a step is the last of what the discounted sum may see; without it nothing inside is cut, as RL^2
    wants: the return of a meta-episode flows across the ends of its episodes.
    Returns `advantages [T, N]`; the value target is `advantages + values`.
    """
    num_steps = len(rewards)
    advantages = torch.empty_like(rewards)
    following = torch.zeros_like(values[0]) if next_value is None else next_value
    running = torch.zeros_like(values[0])
    for t in reversed(range(num_steps)):
        alive = 1.0 if cut is None else 1.0 - cut[t]
        delta = rewards[t] + gamma * alive * following - values[t]
        running = delta + gamma * gae_lambda * alive * running
        advantages[t] = running
        following = values[t]
    return advantages


def above_alike(advantage: np.ndarray, done: np.ndarray, num_alike: int) -> np.ndarray:
    """Advantages `[..., T, m]` less their mean over the `num_alike` environments that began alike.

    That mean is what chance has brought them, e.g. a meal that no policy can foresee, so taking it away takes
    away noise. It is over those that have not come to a `done` yet: then they go on at different times.
    """
    if num_alike == 1:
        return advantage
    groups = (*advantage.shape[:-1], advantage.shape[-1] // num_alike, num_alike)
    first = np.cumsum(done, axis=-2) - done == 0
    value, runs = advantage.reshape(groups), first.reshape(groups)
    mean = (value * runs).sum(-1, keepdims=True) / runs.sum(-1, keepdims=True).clip(1)
    return (value - mean * runs).reshape(advantage.shape)
