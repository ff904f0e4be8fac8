"""Meta-episodes: what happened, and how they are played."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass
class MetaEpisodes:
    """N meta-episodes of T steps, time-major, played by one policy."""

    inputs: torch.Tensor  # [T, N, D] what the policy was told
    observation: torch.Tensor  # [T, N] or [T, N, d]
    action: torch.Tensor  # [T, N] or [T, N, d]
    log_prob: torch.Tensor  # [T, N]
    reward: torch.Tensor  # [T, N]
    done: torch.Tensor  # [T, N] 1 where an episode ended with this step
    value: torch.Tensor | None  # [T, N], None if the value has a memory of its own
    label: torch.Tensor | None  # [T, N] what the teacher would have done

    def columns(self, index):
        """The meta-episodes `index` as a dictionary of tensors."""
        fields = {k: v for k, v in vars(self).items() if v is not None}
        return {k: v.index_select(1, index) for k, v in fields.items()}


@torch.no_grad()
def play(policy, env, num_steps: int, noise, *, greedy: bool = False, teacher=None) -> MetaEpisodes:
    """Play one meta-episode of `num_steps` in each of the env's N tasks, from an empty memory.

    `noise` draws uniform numbers as `noise.random(shape, dtype=...)` with first axis N. `greedy` takes the
    most likely action. A `teacher` (see `rl2.baselines`) watches and says at each step what it would do.
    """
    num, device = env.num_envs, next(policy.parameters()).device
    state, last, steps = policy.initial_state(num), None, []
    if teacher is not None:
        teacher.reset(num)
    observation, _ = env.reset()
    for _ in range(num_steps):
        seen = torch.as_tensor(observation, device=device)
        x = policy.features(seen, last)
        distribution, value, state = policy.step(x, seen, state)
        uniform = torch.from_numpy(noise.random((num, policy.head.num_outputs), dtype=np.float32)).to(device)
        action = distribution.mode() if greedy else distribution.sample(uniform)
        label = None if teacher is None else torch.from_numpy(teacher.act(observation, noise))
        before = observation
        observation, reward, terminated, truncated, infos = env.step(env_action(action, env))
        done = terminated | truncated
        if teacher is not None:
            ended = bool(done.any())
            arrived = infos["final_obs"] if ended else observation
            teacher.observe(before, action.numpy(), reward, np.asarray(arrived, dtype=before.dtype), ended)
        reward_t = torch.as_tensor(reward, dtype=torch.float32, device=device)
        done_t = torch.as_tensor(done, dtype=torch.float32, device=device)
        last = (seen, action, reward_t, done_t)
        steps.append((x, seen, action, distribution.log_prob(action), reward_t, done_t, value, label))
    columns = list(zip(*steps, strict=True))
    return MetaEpisodes(*(None if column[0] is None else torch.stack(column) for column in columns))


def env_action(action, env):
    """What the environment is given: continuous actions are clipped to its bounds, the policy's are not."""
    action = action.cpu().numpy()
    space = env.single_action_space
    return action if action.ndim == 1 else np.clip(action, space.low, space.high).astype(space.dtype)


def episode_returns(reward, done, num_episodes: int):
    """Returns `[E, N]` of the first E episodes from `reward, done [T, N]`; NaN where there is none.

    An episode that the end of the meta-episode cuts off counts as it is.
    """
    reward, done = np.asarray(reward, dtype=np.float64), np.asarray(done)
    number = (np.cumsum(done, axis=0) - done).astype(int)  # [T, N] index of the episode a step belongs to
    rows, columns = (
        np.minimum(number, num_episodes),
        np.broadcast_to(np.arange(reward.shape[1]), reward.shape),
    )
    totals, steps = np.zeros((2, num_episodes + 1, reward.shape[1]))
    np.add.at(totals, (rows, columns), reward)
    np.add.at(steps, (rows, columns), 1)
    return np.where(steps > 0, totals, np.nan)[:num_episodes]
