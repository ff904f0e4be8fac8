"""Returns of every policy for every agent on fresh episodes, exploration off, where dynamics are shared."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from envs import Problem
from rmdp.assignment import one_hot, policies_of, probabilities
from rmdp.policy import Policies

BLOCKS = 64  # partial sums over agents; ranks take whole ones, so that no digit depends on the ranks
ELEMENTS = 2**17  # rewards scored at once, so many as a core's cache holds


@dataclass
class Episodes:
    """The first E episodes of k policies, on all ranks."""

    outcome: np.ndarray  # [S, O] of all steps, sorted by policy, then episode, then time
    length: np.ndarray  # [k, E] steps; their sum is S
    seen: np.ndarray  # [T, k, D] where each step of episode 0 led to; zeros or another episode after its end

    def by_episode(self, per_step: np.ndarray) -> np.ndarray:
        """Sums `[k, E, ...]` over the steps of each episode of `per_step [S, ...]`."""
        starts = np.append(0, self.length.ravel().cumsum()[:-1])
        sums = np.add.reduceat(per_step, starts, axis=0, dtype=np.float64)
        return sums.reshape(*self.length.shape, *per_step.shape[1:])


@torch.no_grad()
def play(policies: Policies, family: Any, num_episodes: int, seed: int, comm: Any) -> Episodes:
    """Let all policies play the same `num_episodes` starts with their most likely actions; a collective.

    Episodes are shared over ranks. Every rank computes actions in the shape of the whole batch, whose other
    rows are zero: the rounding of a matrix product hangs on its shape, and these dynamics are chaotic. The
    loop of `common.rollout` would sum the rewards of one agent in each environment; outcomes are kept here,
    from which the rewards of all agents follow.
    """
    k, own, num_steps = policies.num_policies, comm.share(num_episodes), family.max_episode_len
    shape = (k, own.stop - own.start)
    outcome = np.zeros((num_steps, k, num_episodes, family.outcome_size), np.float32)
    length = np.zeros((k, num_episodes), np.int64)
    path = np.zeros((num_steps, k, family.observation_space.shape[0]), np.float32)
    with comm.agree():
        index = np.tile(np.arange(own.start, own.stop), k)
        env = family.make_shared(index.size, seed=seed, index=index)
        seen = np.zeros((k, num_episodes, path.shape[-1]), np.float32)
        seen[:, own] = env.reset().reshape(*shape, -1)
        running, t = np.ones(shape, bool), 0
        while running.any():
            chosen = policies.most_likely(torch.from_numpy(seen))
            step = env.step(chosen[:, own].flatten(0, 1).numpy())
            outcome[t, :, own] = step.outcome.reshape(*shape, -1)
            if own.start == 0:
                path[t] = step.final_observation.reshape(*shape, -1)[:, 0]
            length[:, own] += running
            running &= ~(step.terminated | step.truncated).reshape(shape)
            seen[:, own] = step.observation.reshape(*shape, -1)
            t += 1
    for array in (outcome, length, path):
        comm.allreduce_(array)
    counted = np.arange(num_steps) < length[..., None]  # [k, E, T]
    return Episodes(outcome.transpose(1, 2, 0, 3)[counted], length, path)


@dataclass
class Scores:
    """Returns of all agents, on all ranks; weighted sums are over agents, one for each policy and episode."""

    own: np.ndarray  # [n] under the agent's own policy, mean over episodes
    assigned: np.ndarray  # [k, E] each agent under its own policy
    best: np.ndarray  # [k, E] each agent under the policy that is best for it in these episodes
    soft: np.ndarray  # [k, E] each agent under every policy, by its probabilities


def score(
    problem: Problem, assignment: dict, episodes: Episodes, comm: Any, elements: int = ELEMENTS
) -> Scores:
    """Every policy for every agent, `elements` rewards at a time; a collective.

    `assignment` is the state of `rmdp.assignment.Assignment`.
    """
    n, (k, num_episodes) = problem.num_agents, episodes.length.shape
    policy_of = policies_of(assignment)
    size = max(1, elements // len(episodes.outcome))
    own_blocks = comm.share(BLOCKS)
    own, totals = np.zeros(n), np.zeros((BLOCKS, 3, k, num_episodes))
    for number, first in enumerate(range(0, n, size)):
        block = number % BLOCKS
        if not own_blocks.start <= block < own_blocks.stop:
            continue
        part = slice(first, first + size)
        agents = {name: single(values) for name, values in problem.rows(part).items()}
        returns = episodes.by_episode(problem.family.rewards(episodes.outcome, agents))  # [k, E, part]
        mean = returns.mean(1)
        soft = probabilities(assignment, k, part, mean.shape[1])
        hard = soft if policy_of is None else one_hot(policy_of[part], k)
        own[part] = (hard * mean).sum(0)
        weights = np.stack([hard, one_hot(mean.argmax(0), k), soft])
        totals[block] += np.einsum("wjc,jec->wje", weights, returns)
    return Scores(comm.allreduce_(own), *comm.allreduce_(totals).sum(0))


def single(values: np.ndarray) -> np.ndarray:
    """float64 as float32, which halves the time of scoring a large population."""
    return values.astype(np.float32) if values.dtype == np.float64 else values
