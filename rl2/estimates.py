"""Advantages over whole meta-episodes: where they end, and what stands for that which follows."""

import torch

from common.gae import gae


def live_steps(done: torch.Tensor, episodes: int) -> torch.Tensor:
    """Whether steps `[T, N]` belong to the first `episodes` of a task; `done [T, N]` is 1 at their ends."""
    return done.cumsum(0) - done < episodes


def so_far(reward: torch.Tensor, gamma: float) -> torch.Tensor:
    """Discounted sums `[T, N]` of the rewards `[T, N]` up to each step."""
    sums = torch.empty_like(reward)
    running = torch.zeros_like(reward[0])
    for t, now in enumerate(reward):
        running = gamma * running + now
        sums[t] = running
    return sums


def meta_gae(
    reward: torch.Tensor,
    value: torch.Tensor,
    gamma: float,
    gae_lambda: float,
    *,
    next_value: torch.Tensor | None = None,
    live: torch.Tensor | None = None,
    cut: torch.Tensor | None = None,
    fallen: torch.Tensor | None = None,
) -> torch.Tensor:
    """Advantages `[T, N]` of meta-episodes; 0 where a step is not `live [T, N]`, i.e. behind the end.

    Ends of episodes inside do not cut the sum of rewards, except where `cut [T, N]` is 1; there the value of
    what comes next stands for the rest. It does so at the end of the meta-episode too where `next_value [N]`,
    the value behind the last step, is given, unless `fallen [T, N]` is 1 there; else nothing follows.
    """
    live = torch.ones_like(reward, dtype=torch.bool) if live is None else live
    last = live & ~torch.cat([live[1:], torch.zeros_like(live[:1])])
    ends = last if cut is None else last | live & (cut > 0)
    bootstrapped = ends & ~last if next_value is None else ends
    if fallen is not None:
        bootstrapped = bootstrapped & ~(last & (fallen > 0))
    behind = torch.zeros_like(value[:1]) if next_value is None else next_value[None]
    reward = reward + gamma * bootstrapped * torch.cat([value[1:], behind])
    return gae(reward, value, gamma, gae_lambda, cut=ends.to(reward.dtype)) * live
