"""Discrete observations as vectors, for methods whose policies take nothing else."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from envs.protocols import Parameters, TaskFamily


class OneHotFamily:
    """A family whose observation i of Discrete(n) is a vector [n] float32 with a one at place i - start."""

    def __init__(self, family: TaskFamily):
        assert isinstance(family.observation_space, Discrete)
        self.family, self.name, self.max_episode_len = family, family.name, family.max_episode_len
        self.seen, self.action_space = family.observation_space, family.action_space
        self.observation_space = Box(0.0, 1.0, (int(self.seen.n),), np.float32)
        self.declares_length = getattr(family, "declares_length", True)

    def sample(self, rng: Any, n: int) -> Parameters:
        """Tasks of the family."""
        return self.family.sample(rng, n)

    def check(self, parameters: Any) -> Parameters:
        """The parameters as the family has them."""
        return self.family.check(parameters)

    def make_vec(self, parameters: Parameters, rng: Any = None) -> VectorEnv:
        """The tasks side by side."""
        return OneHotEnv(self.family.make_vec(parameters, rng), self.seen)


class OneHotEnv(VectorWrapper):
    """Environments of a `OneHotFamily`."""

    def __init__(self, env: VectorEnv, seen: Discrete):
        super().__init__(env)
        self.vectors, self.first = np.eye(int(seen.n), dtype=np.float32), int(seen.start)
        self.single_observation_space = Box(0.0, 1.0, (int(seen.n),), np.float32)
        self.observation_space = batch_space(self.single_observation_space, env.num_envs)

    def vector(self, observation: Any) -> np.ndarray:
        """Vectors [..., n] of observations [...]."""
        return self.vectors[np.asarray(observation) - self.first]

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode in every task."""
        observation, infos = self.env.reset(**options)
        return self.vector(observation), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act once in every task."""
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        done = np.logical_or(terminated, truncated)
        if done.any():
            final = self.vector(observation)
            final[done] = self.vector(np.stack(list(infos["final_obs"][done])))
            infos = {"final_obs": final, "_final_obs": done}
        return self.vector(observation), reward, terminated, truncated, infos


def as_vectors(family: Any) -> Any:
    """The family, its observations as vectors if they are Discrete."""
    return OneHotFamily(family) if isinstance(family.observation_space, Discrete) else family
