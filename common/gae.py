"""Generalised advantage estimation."""

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
