"""Bernoulli bandits (Duan et al. 2016, section 3.1)."""

from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from envs.parameters import EnvError, check_parameters, check_shapes, check_sizes
from envs.protocols import Draws, Parameters
from envs.task_env import SingleTaskEnv, TaskVectorEnv


class BernoulliBandit:
    """The family of multi-armed Bernoulli bandits (Duan et al. 2016, arXiv 1611.02779, section 3.1).

    A task is k = `num_actions` arms with means drawn from U(0, 1): parameters {"means": [n, k] float32}.
    The reward of action a is 1 with probability means[a], else 0. One pull is one episode: every step is
    `terminated`, so a meta-episode of n pulls has n episodes. The observation is always 0, in Discrete(1).
    """

    name = "bandit"
    random_reward = 0.5  # the mean of a step of random actions: a chance is U(0, 1)
    max_episode_len = 1

    def __init__(self, num_actions: int = 5):
        check_sizes("bandit", num_actions=num_actions)
        self.num_actions = int(num_actions)
        self.observation_space, self.action_space = Discrete(1), Discrete(self.num_actions)

    def sample(self, rng: Draws, n: int) -> Parameters:
        """Parameters `[n, ...]` of n tasks."""
        return {"means": rng.random((n, self.num_actions), dtype=np.float32)}

    def check(self, parameters: Any) -> Parameters:
        """The parameters as arrays of the right types; raises `EnvError` for what cannot be."""
        arrays = check_parameters("bandit", parameters)
        check_shapes("bandit", arrays, {"means": (self.num_actions,)})
        means = arrays["means"].astype(np.float32, copy=False)
        if ((means < 0) | (means > 1)).any():
            raise EnvError("bandit: a mean lies outside 0..1; give probabilities")
        return {"means": means}

    def make_vec(self, parameters: Any, rng: Draws | None = None) -> "BernoulliBanditVectorEnv":
        """The n tasks side by side."""
        return BernoulliBanditVectorEnv(parameters=parameters, rng=rng, num_actions=self.num_actions)


class BernoulliBanditVectorEnv(TaskVectorEnv):
    """N bandits pulled at once; see `BernoulliBandit`."""

    ends_by_time = False

    def __init__(
        self, num_envs: int | None = None, *, parameters: Any = None, rng: Draws | None = None, **sizes: Any
    ):
        super().__init__(BernoulliBandit(**sizes), num_envs, 1, parameters, rng)

    def load(self, parameters: Parameters) -> None:
        """Keep the tasks' arrays."""
        self.means = np.ascontiguousarray(parameters["means"]).ravel()
        self.first_row = np.arange(self.num_envs) * self.family.num_actions

    def start(self) -> np.ndarray:
        """Begin an episode in every task; the first observations `[N, ...]`."""
        return np.zeros(self.num_envs, np.int64)

    def advance(self, actions: np.ndarray, rng: Draws) -> tuple[np.ndarray, ...]:
        """What one step leads to."""
        wins = rng.random(self.num_envs, dtype=np.float32) < self.means.take(self.first_row + actions)
        return self.start(), wins.astype(np.float32)


class BernoulliBanditEnv(SingleTaskEnv):
    """One bandit; see `BernoulliBandit`. `parameters {"means": [1, k]}` fixes the task."""

    def __init__(self, *, parameters: Any = None, **sizes: Any):
        super().__init__(BernoulliBanditVectorEnv(parameters=parameters, **sizes))
