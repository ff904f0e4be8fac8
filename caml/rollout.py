"""Acting: P policies on P tasks at once, B episodes each."""

from dataclasses import dataclass

import numpy as np
import torch
from gymnasium.spaces import Discrete

from common.runs.seeding import SharedStream, stream


@dataclass
class Episodes:
    """B episodes of each of P policies, one task a policy; nothing counts where `alive` is false."""

    observation: np.ndarray  # [T, P, B, D]
    action: np.ndarray  # [T, P, B]
    reward: np.ndarray  # [T, P, B], 0 after the end
    alive: np.ndarray  # [T, P, B] bool: the step belongs to the episode
    final_observation: np.ndarray  # [P, B, D] where the last step led to

    def returns(self):
        """Sums of rewards `[P, B]`."""
        return self.reward.sum(0, dtype=np.float64)

    def last_rewards(self):
        """Rewards of the last steps `[P, B]`, the quantity of the paper's Figure 1."""
        last = self.alive.sum(0) - 1
        return np.take_along_axis(self.reward, last[None], axis=0)[0].astype(np.float64)

    def trajectory(self, num_steps: int):
        """The first episode of each policy: states in which it acted `[P, num_steps, D]`, 0 after the end,
        and how many `[P]`.
        """
        alive = self.alive[:, :, 0]
        states = np.zeros((alive.shape[1], num_steps, self.observation.shape[-1]), np.float32)
        states[:, : len(alive)] = (self.observation[:, :, 0] * alive[..., None]).swapaxes(0, 1)
        return states, alive.sum(0)


class Actors:
    """Environments of a rank's tasks, B for each task and all stepped together, with streams of their own.

    `parameters` are those of the tasks `own` of `total` in iteration `iteration`; None means all. What is
    drawn does not depend on how tasks are shared over ranks.
    """

    def __init__(self, family, parameters, config, iteration: int = 0, total=None, own=None):
        self.num_tasks = len(next(iter(parameters.values())))
        self.total, self.own = total or self.num_tasks, own or slice(0, self.num_tasks)
        self.config, self.iteration, self.plays = config, iteration, 0
        self.chance = self.shared(None, config.num_rollouts)
        repeated = {name: values.repeat(config.num_rollouts, axis=0) for name, values in parameters.items()}
        self.env = family.make_vec(repeated, self.chance)
        self.num_steps = np.zeros(self.num_tasks, np.int64)  # played on each task so far

    def shared(self, generator, rows: int) -> SharedStream:
        """A stream of which this rank holds its tasks' part, `rows` rows for each."""
        share = slice(self.own.start * rows, self.own.stop * rows)
        return SharedStream(generator, self.total * rows, share)

    def play(self, policies) -> Episodes:
        """Episodes `[T, P, B]` of a policy for each task, or `[T, P * B, 1]` of one for each environment."""
        config, counters = self.config, (self.iteration, self.plays)
        # Streams of each play's own: how much one draws depends on the longest of the rank's episodes.
        self.chance.generator = stream(config.seed, "environment", *counters)
        acting = self.shared(stream(config.seed, "acting", *counters), len(policies) // self.num_tasks)
        episodes = collect(policies, self.env, config.max_episode_len, acting)
        self.plays += 1
        self.num_steps += episodes.alive.sum((0, 2)).reshape(self.num_tasks, -1).sum(1)
        return episodes

    def close(self) -> None:
        self.env.close()


@torch.no_grad()
def collect(policies, env, num_steps: int, noise) -> Episodes:
    """One episode in each of `env`'s P * B environments, B in a row for each policy; cut after `num_steps`.

    `noise` draws as `noise.standard_exponential(shape, dtype)` with first axis P.
    """
    P, B = len(policies), env.num_envs // len(policies)
    space = env.single_observation_space
    seen = inputs(env.reset()[0], space)
    D, A = seen.shape[-1], int(env.single_action_space.n)
    # The largest of logits plus Gumbel noise is a draw from their softmax.
    exponential = torch.from_numpy(noise.standard_exponential((P, num_steps, B, A), np.float32))
    gumbel = exponential.transpose(0, 1).contiguous().log_().neg_().numpy()
    observation = np.zeros((num_steps, P * B, D), np.float32)
    final = np.zeros((P * B, D), np.float32)
    action = np.zeros((num_steps, P * B), np.int64)
    reward = np.zeros((num_steps, P * B), np.float32)
    alive = np.zeros((num_steps, P * B), bool)
    running = np.ones(P * B, bool)
    for t in range(num_steps):
        logits = policies(torch.from_numpy(seen).view(P, B, D)).numpy()
        observation[t], alive[t] = seen, running
        action[t] = (logits + gumbel[t]).argmax(-1).ravel()
        seen, paid, terminated, truncated, infos = env.step(action[t])
        seen = inputs(seen, space)
        reward[t] = np.where(running, paid, 0)
        ended = running & (terminated | truncated)
        if ended.any():
            final[ended] = inputs(rows(infos["final_obs"][ended]), space)
            running = running & ~ended
            if not running.any():
                break
    final[running] = seen[running]
    T = t + 1
    steps = (observation, action, reward, alive)
    steps = [array[:T].reshape(T, P, B, *array.shape[2:]) for array in steps]
    return Episodes(*steps, final.reshape(P, B, D))


def inputs(observation, space):
    """What a policy is told of observations: `[N, D]` float32; a discrete one becomes a one-hot vector."""
    if isinstance(space, Discrete):
        return np.eye(space.n, dtype=np.float32)[observation]
    return np.ascontiguousarray(observation, np.float32)


def rows(observations):
    """Observations as one array; other environments than the package's own give an array of arrays."""
    return np.stack(list(observations)) if observations.dtype == object else observations


def num_inputs_of(space) -> int:
    """The length D of one policy's input."""
    return int(space.n if isinstance(space, Discrete) else space.shape[0])
