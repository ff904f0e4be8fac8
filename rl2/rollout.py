"""Meta-episodes: several episodes in a row in one task, without forgetting."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from common.protocols import Actor
from common.rollout import final_observations, to_space
from rl2.policy import Last, RecurrentPolicy


@dataclass
class MetaEpisodes:
    """N meta-episodes of T steps, time-major, played by one policy."""

    inputs: torch.Tensor  # [T, N, D] what the policy was given
    observation: torch.Tensor  # [T, N] or [T, N, d]
    action: torch.Tensor  # [T, N] or [T, N, d]
    log_prob: torch.Tensor  # [T, N]
    reward: torch.Tensor  # [T, N]
    done: torch.Tensor  # [T, N] 1 where an episode ended with this step
    value: torch.Tensor | None  # [T, N], None if the value has a memory of its own
    expert_action: torch.Tensor | None  # [T, N] what the expert would have done

    def columns(self, index: torch.Tensor) -> dict[str, torch.Tensor]:
        """The meta-episodes `index` as a dictionary of tensors."""
        fields = {k: v for k, v in vars(self).items() if v is not None}
        return {k: v.index_select(1, index) for k, v in fields.items()}


@torch.no_grad()
def play(
    policy: RecurrentPolicy, env: VectorEnv, num_steps: int, rng: Any, expert: Any = None
) -> MetaEpisodes:
    """One meta-episode of `num_steps` to learn from in each of the env's N tasks, from an empty memory.

    `rng` draws uniform numbers as `rng.random(shape, dtype=...)` with first axis N. An `expert`, one of the
    actors of `rl2.baselines`, watches and tells at each step what it would do.
    """
    num, device = env.num_envs, next(policy.parameters()).device
    state, last, steps = policy.initial_state(num), None, []
    if expert is not None:
        expert.reset(num)
    observation = np.array(env.reset()[0])
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
        last = Last(
            seen,
            action,
            torch.tensor(reward, dtype=torch.float32, device=device),
            torch.as_tensor(done, dtype=torch.float32, device=device),
        )
        steps.append((x, seen, action, distribution.log_prob(action), *last[2:], value, expert_action))
    columns: list = [
        None if column[0] is None else torch.stack(column) for column in zip(*steps, strict=True)
    ]
    return MetaEpisodes(*columns)


def play_meta_episodes(env: VectorEnv, actor: Actor, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Rewards and ends of episodes `[T, N]` float32 of one meta-episode in each of the env's N tasks.

    An actor that has `observe`, as those of `rl2.baselines`, is told each step, with what it really led to.
    """
    observe = getattr(actor, "observe", None)
    rewards, ends = np.zeros((2, num_steps, env.num_envs), np.float32)
    actor.reset(env.num_envs)
    observation, reward, done = np.array(env.reset()[0]), None, None
    for t in range(num_steps):
        action, before = actor.act(observation, reward, done), observation
        observation, reward, terminated, truncated, infos = env.step(action)
        observation, reward = np.array(observation), np.array(reward)  # environments may reuse their arrays
        done = np.logical_or(terminated, truncated)
        rewards[t], ends[t] = reward, done
        if observe:
            observe(before, action, rewards[t], final_observations(observation, infos, done), done)
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
