"""Medoids as arms of a bandit: the first episodes on a type tell which medoid it starts from."""

import numpy as np
import torch

from caml.policy import Policies
from caml.rollout import Episodes


def take_turns(medoids: Policies, num_types: int, num_pulls: int) -> Policies:
    """Who plays the pulls `[P * K]` of each of P types, type by type: the k medoids in turn."""
    arm = torch.arange(num_pulls) % len(medoids)
    return medoids.take(arm.repeat(num_types))


def mean_returns(pulls: Episodes, num_types: int, num_medoids: int):
    """Mean return `[P, k]` of each arm from the episodes that `take_turns` played; -inf without a pull."""
    returns = pulls.returns().reshape(num_types, -1)
    is_arm = np.arange(returns.shape[1])[:, None] % num_medoids == np.arange(num_medoids)  # [K, k]
    count = is_arm.sum(0)
    return np.where(count > 0, returns @ is_arm / count.clip(1), -np.inf)
