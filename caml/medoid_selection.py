"""The first episodes with an agent tell which medoid it starts from, as pulls tell which arm is best."""

import math
from collections.abc import Callable

import numpy as np
import torch

from caml.policy import Policies
from caml.rollout import Rollouts, Trajectories


def best_in_turns(medoids: Policies, rollouts: Rollouts) -> np.ndarray:
    """The best medoid `[n]` for each agent, by `num_rollouts` episodes that the medoids play in turn."""
    num_agents = rollouts.num_agents
    played = rollouts.play(take_turns(medoids, num_agents, rollouts.config.num_rollouts))
    return mean_returns(played, num_agents, len(medoids)).argmax(1)


def take_turns(medoids: Policies, num_agents: int, num_episodes: int) -> Policies:
    """Who plays the episodes `[n * K]` of each of n agents, agent by agent: the k medoids in turn."""
    turn = torch.arange(num_episodes) % len(medoids)
    return medoids.take(turn.repeat(num_agents))


def mean_returns(played: Trajectories, num_agents: int, num_medoids: int) -> np.ndarray:
    """Mean return `[n, k]` of each medoid in the episodes that `take_turns` gave it; -inf without one."""
    returns = played.returns().reshape(num_agents, -1)
    its_turn = np.arange(returns.shape[1])[:, None] % num_medoids == np.arange(num_medoids)  # [K, k]
    count = its_turn.sum(0)
    return np.where(count > 0, returns @ its_turn / count.clip(1), -np.inf)


def halving_rounds(num_medoids: int, num_episodes: int) -> list[tuple[int, int]]:
    """Medoids left and episodes of each, round by round (successive halving, Karnin et al. 2013).

    At least one episode each, which few episodes need; of more medoids than episodes the first are tried.
    What is left of the episodes after the last round is not played.
    """
    left, rounds = min(num_medoids, num_episodes), []
    while left > 1 and num_episodes >= left:
        episodes = max(1, num_episodes // (left * math.ceil(math.log2(left))))
        rounds.append((left, episodes))
        num_episodes -= left * episodes
        left = (left + 1) // 2
    return rounds


def successive_halving(
    medoids: Policies,
    num_agents: int,
    num_episodes: int,
    play: Callable[[int, Policies, int], Trajectories],
) -> np.ndarray:
    """The best medoid `[n]` of each agent; in each round the better half, by the mean of all episodes, stays.

    `play(round, policies, episodes)` gives trajectories in which each of n * left policies plays `episodes`
    in a row.
    """
    left = np.tile(np.arange(len(medoids)), (num_agents, 1))
    sums = np.zeros(left.shape)
    for number, (many, episodes) in enumerate(halving_rounds(len(medoids), num_episodes)):
        left, sums = left[:, :many], sums[:, :many]
        played = play(number, medoids.take(torch.from_numpy(left.ravel())), episodes)
        sums = sums + played.returns().reshape(num_agents, many, episodes).sum(2)
        order = (-sums).argsort(1, kind="stable")
        left, sums = np.take_along_axis(left, order, 1), np.take_along_axis(sums, order, 1)
    return left[:, 0]
