"""Medoids as arms of a bandit: the first episodes on a type tell which medoid it starts from."""

import math

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


def halving_rounds(num_arms: int, num_pulls: int) -> list[tuple[int, int]]:
    """Arms left and pulls of each, round by round (successive halving, Karnin et al. 2013).

    At least one pull each, which few pulls need; of more arms than pulls the first are tried. What is left of
    the pulls after the last round is not played.
    """
    arms, rounds = min(num_arms, num_pulls), []
    while arms > 1 and num_pulls >= arms:
        pulls = max(1, num_pulls // (arms * math.ceil(math.log2(arms))))
        rounds.append((arms, pulls))
        num_pulls -= arms * pulls
        arms = (arms + 1) // 2
    return rounds


def successive_halving(medoids: Policies, num_types: int, num_pulls: int, play):
    """The best medoid `[P]` of each type; in each round the better half, by the mean of all pulls, stays.

    `play(round, policies, pulls)` gives episodes in which each of P * arms policies plays `pulls` in a row.
    """
    alive = np.tile(np.arange(len(medoids)), (num_types, 1))
    sums = np.zeros(alive.shape)
    for number, (arms, pulls) in enumerate(halving_rounds(len(medoids), num_pulls)):
        alive, sums = alive[:, :arms], sums[:, :arms]
        episodes = play(number, medoids.take(torch.from_numpy(alive.ravel())), pulls)
        sums = sums + episodes.returns().reshape(num_types, arms, pulls).sum(2)
        order = (-sums).argsort(1, kind="stable")
        alive, sums = np.take_along_axis(alive, order, 1), np.take_along_axis(sums, order, 1)
    return alive[:, 0]
