"""Meta-episodes: several episodes in a row in one task, without forgetting."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from common.protocols import Actor
from common.rollout import final_observations, to_space
from mpi_utils.comm import Comm
from rl2.estimates import live_steps
from rl2.policy import Last

REPORTED_EPISODES = 10
LEARNT_FROM = ("inputs", "observation", "action", "log_prob", "expert_action", "live")


@dataclass
class MetaEpisodes:
    """N meta-episodes of at most T steps, time-major, played by one policy."""

    inputs: torch.Tensor  # [T, N, D] what the policy was given
    observation: torch.Tensor  # [T, N] or [T, N, d]
    action: torch.Tensor  # [T, N] or [T, N, d]
    log_prob: torch.Tensor  # [T, N]
    reward: torch.Tensor  # [T, N]
    done: torch.Tensor  # [T, N] 1 where an episode ended with this step
    truncated: torch.Tensor  # [T, N] 1 where it did only because its time was up
    value: torch.Tensor | None  # [T, N], None if the value has a memory of its own
    expert_action: torch.Tensor | None  # [T, N] what the expert would have done
    live: torch.Tensor | None = None  # [T, N] bool, False behind the last episode; None: all are
    next_inputs: torch.Tensor | None = None  # [1, N, D] what a step T would be given, if that was asked for
    next_observation: torch.Tensor | None = None  # [1, N] or [1, N, d]
    next_value: torch.Tensor | None = None  # [1, N]
    reached: torch.Tensor | None = None  # [T, N] or [T, N, d] what each step led to, also at ends of episodes

    def columns(self, index: torch.Tensor) -> dict[str, torch.Tensor]:
        """What is learnt from the meta-episodes `index`, as a dictionary of tensors."""
        fields = {name: getattr(self, name) for name in LEARNT_FROM}
        return {k: v.index_select(1, index) for k, v in fields.items() if v is not None}

    def counted(self, x: torch.Tensor) -> torch.Tensor:
        """`x [T, N, ...]` of the steps that count, as `[n, ...]`."""
        return x.flatten(0, 1) if self.live is None else x[self.live]


@torch.no_grad()
def play(
    policy: Any,
    env: VectorEnv,
    num_steps: int,
    rng: Any,
    expert: Any = None,
    episodes: int = 0,
    look_ahead: bool = False,
    keep_reached: bool = False,
) -> MetaEpisodes:
    """One meta-episode of `num_steps` to learn from in each of the env's N tasks, from an empty memory.

    It ends sooner with its last one of so many `episodes`, if they are given: what a task does until all are
    at their end is not `live`. `look_ahead` tells the value behind the last step too, `keep_reached` what
    each step led to.

    `rng` draws uniform numbers as `rng.random(shape, dtype=...)` with first axis N. An `expert`, one of the
    actors of `rl2.baselines`, watches and tells at each step what it would do.
    """
    num, device = env.num_envs, next(policy.parameters()).device
    state, last, steps, reached = policy.initial_state(num), None, [], []
    if expert is not None:
        expert.reset(num)
    observation, ended = np.array(env.reset()[0]), np.zeros(num, np.int64)
    for _ in range(num_steps):
        seen = torch.as_tensor(observation, device=device)
        x = policy.features(seen, last)
        distribution, value, state = policy.step(x, seen, state)
        uniform = torch.from_numpy(rng.random((num, policy.head.num_outputs), dtype=np.float32)).to(device)
        action = distribution.sample(uniform)
        expert_action = None if expert is None else torch.from_numpy(expert.act(observation))
        before = observation
        given = to_space(action.cpu().numpy(), env.single_action_space, policy.scaled)
        observation, reward, terminated, truncated, infos = env.step(given)
        observation = np.array(observation)  # environments may reuse their arrays
        done = np.logical_or(terminated, truncated)
        if expert is not None:
            expert.observe(before, given, reward, final_observations(observation, infos, done), done)
        if keep_reached:
            reached.append(torch.from_numpy(final_observations(observation, infos, done)).to(device))
        last = Last(
            seen,
            action,
            torch.tensor(reward, dtype=torch.float32, device=device),
            torch.as_tensor(done, dtype=torch.float32, device=device),
        )
        time_up = torch.as_tensor(done > terminated, dtype=torch.float32, device=device)
        log_prob = distribution.log_prob(action)
        steps.append(
            (policy.learnt_from(x, state), seen, action, log_prob, *last[2:], time_up, value, expert_action)
        )
        ended += done
        if episodes and (ended >= episodes).all():
            break
    columns: list = [
        None if column[0] is None else torch.stack(column) for column in zip(*steps, strict=True)
    ]
    batch = MetaEpisodes(*columns)
    if keep_reached:
        batch.reached = torch.stack(reached)
    if episodes:
        batch.live = live_steps(batch.done, episodes)
    if look_ahead:
        seen = torch.as_tensor(observation, device=device)
        x = policy.features(seen, last)
        _, value, state = policy.step(x, seen, state)
        batch.next_inputs, batch.next_observation = policy.learnt_from(x, state)[None], seen[None]
        batch.next_value = None if value is None else value[None]
    return batch


def play_meta_episodes(
    env: VectorEnv, actor: Actor, num_steps: int, episodes: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and ends of episodes `[T, N]` float32 of one meta-episode in each of the env's N tasks.

    It ends after `num_steps`, or sooner with its last one of so many `episodes`; zeros follow.
    An actor that has `observe`, as those of `rl2.baselines`, is told each step, with what it really led to.
    """
    observe = getattr(actor, "observe", None)
    rewards, ends = np.zeros((2, num_steps, env.num_envs), np.float32)
    actor.reset(env.num_envs)
    observation, reward, done = np.array(env.reset()[0]), None, None
    ended = np.zeros(env.num_envs, np.int64)
    for t in range(num_steps):
        action, before = actor.act(observation, reward, done), observation
        observation, reward, terminated, truncated, infos = env.step(action)
        observation, reward = np.array(observation), np.array(reward)  # environments may reuse their arrays
        done = np.logical_or(terminated, truncated)
        if observe:
            observe(before, action, np.float32(reward), final_observations(observation, infos, done), done)
        live = ended < episodes if episodes else True
        rewards[t], ends[t] = np.where(live, reward, 0), np.where(live, done, 0)
        ended += done
        if episodes and (ended >= episodes).all():
            break
    return rewards, ends


def episode_returns(reward: np.ndarray, done: np.ndarray, num_episodes: int) -> np.ndarray:
    """Returns `[E, N]` of the first E episodes from `reward, done [T, N]`; NaN where there is none.

    An episode that the end of the meta-episode cuts off counts as it is.
    """
    reward, done = np.asarray(reward, dtype=np.float64), np.asarray(done)
    number = (np.cumsum(done, axis=0) - done).astype(int)  # [T, N] index of the episode a step belongs to
    rows = np.minimum(number, num_episodes)
    columns = np.broadcast_to(np.arange(reward.shape[1]), reward.shape)
    totals, steps = np.zeros((2, num_episodes + 1, reward.shape[1]))
    np.add.at(totals, (rows, columns), reward)
    np.add.at(steps, (rows, columns), 1)
    return np.where(steps > 0, totals, np.nan)[:num_episodes]


def mean_returns(
    prefix: str, played: tuple[np.ndarray, np.ndarray] | None, comm: Comm, episodes: int
) -> dict[str, float]:
    """Mean return of meta-episodes and of each of their first episodes over all ranks; a collective.

    `played` are rewards and ends `[T, N]` of this rank's tasks, None for none. A meta-episode has so many
    `episodes`, 0 if they are not counted.
    """
    num_episodes = min(episodes or REPORTED_EPISODES, REPORTED_EPISODES)
    sums = np.zeros((2, 1 + num_episodes))
    if played is not None:
        total = np.sum(played[0], axis=0, dtype=np.float64)
        returns = np.vstack([total, episode_returns(*played, num_episodes)])
        sums[:] = np.nansum(returns, axis=1), np.isfinite(returns).sum(axis=1)
    totals, counts = comm.allreduce_(sums)
    names = [f"{prefix}/return", *(f"{prefix}/return_episode_{e + 1:02d}" for e in range(num_episodes))]
    return {name: t / n for name, t, n in zip(names, totals, counts, strict=True) if n}
