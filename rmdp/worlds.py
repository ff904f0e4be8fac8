"""Worlds of agents' own: task families of vectorised environments, as `Actors` and surveys step them."""

import numpy as np
import torch
from gymnasium.spaces import Discrete

from common.runs.seeding import SharedStream
from envs.shared_reward_env import Step
from rmdp.rollout import by_policy


class Worlds:
    """Makes environments for `Actors`: number e * k + j is the world of agent `who[e * k + j]`."""

    outcome_size = 1  # the reward

    def __init__(self, family, agents: dict[str, np.ndarray], who: np.ndarray):
        self.family, self.agents, self.who = family, agents, who
        self.observation_space, self.action_space = family.observation_space, family.action_space

    def make_shared(self, num_envs: int, *, seed: int, index, stagger: bool = False) -> "World":
        """The worlds with the numbers `index [num_envs]`, neighbours; each begins with an episode's start."""
        who = self.who[index]
        own = slice(int(index[0]), int(index[0]) + num_envs)
        rng = SharedStream(np.random.default_rng(seed), len(self.who), own)
        return World(self.family.make_vec({name: values[who] for name, values in self.agents.items()}, rng))


class World:
    """N environments of Gymnasium's kind whose outcomes [N, 1] are their rewards."""

    def __init__(self, env):
        self.env = env

    def reset(self) -> np.ndarray:
        return self.env.reset()[0].astype(np.float32)

    def step(self, actions) -> Step:
        """Act in each; continuous actions [N, A] are clipped to the space's bounds."""
        observation, reward, terminated, truncated, infos = self.env.step(clipped(actions, self.env))
        final = observation
        if "final_obs" in infos:
            ended = terminated | truncated
            final = observation.copy()
            final[ended] = np.stack(list(infos["final_obs"][ended]))
        single = (np.asarray(array, np.float32) for array in (observation, reward, final))
        observation, reward, final = single
        return Step(observation, reward[:, None], terminated, truncated & ~terminated, final)


def clipped(actions, env):
    """Actions as the environments take them."""
    space = env.single_action_space
    if isinstance(space, Discrete):
        return actions
    return np.clip(actions, space.low, space.high).astype(space.dtype)


@torch.no_grad()
def try_all(policies, family, parameters, rng) -> tuple[np.ndarray, np.ndarray]:
    """Returns and steps `[k, n]` of one episode of each of k policies with each of n agents {name: [n]}.

    Actions are the most likely ones; an agent's starts, drawn from `rng`, are the same for all policies.
    """
    k, n = policies.num_policies, len(next(iter(parameters.values())))
    total, steps = np.zeros((k, n)), np.zeros((k, n), np.int64)
    if not n:
        return total, steps
    everyone = {name: values.repeat(k, axis=0) for name, values in parameters.items()}
    env = family.make_vec(everyone, Repeated(rng, k))
    seen, running = env.reset()[0], np.ones((k, n), bool)
    for _ in range(family.max_episode_len):
        seen = by_policy(np.asarray(seen, np.float32), k)
        action = policies(policies.normaliser(torch.from_numpy(seen))).mode()
        action = action.transpose(0, 1).reshape(n * k, *action.shape[2:]).numpy()
        seen, reward, terminated, truncated, _ = env.step(clipped(action, env))
        total += np.where(running, by_policy(np.asarray(reward, np.float64), k), 0.0)
        steps += running
        running &= ~by_policy(terminated | truncated, k)
        if not running.any():
            break
    env.close()
    return total, steps


class Repeated:
    """A stream whose draws for n rows serve k rows each."""

    def __init__(self, stream, times: int):
        self.stream, self.times = stream, times

    def random(self, size, dtype=np.float64) -> np.ndarray:
        return self._rows("random", size, dtype)

    def standard_normal(self, size, dtype=np.float64) -> np.ndarray:
        return self._rows("standard_normal", size, dtype)

    def _rows(self, name, size, dtype):
        rows, *rest = np.atleast_1d(size).tolist()
        return getattr(self.stream, name)((rows // self.times, *rest), dtype).repeat(self.times, axis=0)
