"""A point that is rewarded only near a goal on a half circle (Zintgraf et al. 2020)."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box

from envs.parameters import check_parameters, check_shapes, check_sizes
from envs.protocols import Draws, Parameters
from envs.task_env import SingleTaskEnv, TaskVectorEnv

STEP, NEAR = 0.1, 0.2


class SparsePointRobot:
    """SparsePointRobot of VariBAD (Zintgraf et al. 2020, arXiv 1910.08348): search a half circle.

    A task is {"angle": [n]} from U(0, pi), of a goal on the unit circle. Each episode of 100 steps begins in
    (0, 0). An action, clipped to -1..1 in each coordinate, moves the point by 0.1 times it. With d the
    distance to the goal after the step, the reward is 1 - d where d <= 0.2, else 0. The observation is the
    point [2].

    A policy that knows the goal returns 93.38 on average, the most there is. One that sweeps an arc of radius
    0.92 until it meets a reward returns 81.5 in the first episode, so the best policy at least that.
    """

    name = "sparse_point_robot"

    def __init__(self, max_episode_len: int = 100):
        check_sizes(self.name, max_episode_len=max_episode_len)
        self.max_episode_len = int(max_episode_len)
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)

    def sample(self, rng: Draws, n: int) -> Parameters:
        """Parameters `[n]` of n tasks."""
        return {"angle": np.pi * rng.random(n, dtype=np.float64)}

    def check(self, parameters: Any) -> Parameters:
        """The parameters as arrays of the right types; raises `EnvError` for what cannot be."""
        arrays = check_parameters(self.name, parameters)
        check_shapes(self.name, arrays, {"angle": ()})
        return {"angle": arrays["angle"].astype(np.float64)}

    def task_numbers(self, parameters: Parameters) -> np.ndarray:
        """The goals `[n, 2]`, x and y."""
        return np.stack([np.cos(parameters["angle"]), np.sin(parameters["angle"])], axis=1)

    def make_vec(self, parameters: Any, rng: Draws | None = None) -> "SparsePointRobotVectorEnv":
        """The n tasks side by side."""
        limit = self.max_episode_len
        return SparsePointRobotVectorEnv(parameters=parameters, rng=rng, max_episode_len=limit)


class SparsePointRobotVectorEnv(TaskVectorEnv):
    """N points stepped at once; see `SparsePointRobot`."""

    def __init__(
        self, num_envs: int | None = None, *, parameters: Any = None, rng: Draws | None = None, **sizes: Any
    ):
        family = SparsePointRobot(**sizes)
        super().__init__(family, num_envs, family.max_episode_len, parameters, rng)

    def load(self, parameters: Parameters) -> None:
        """Keep the tasks' arrays."""
        self.goal = np.stack([np.cos(parameters["angle"]), np.sin(parameters["angle"])], axis=1)

    def start(self) -> np.ndarray:
        """Begin an episode in every task; the first observations `[N, 2]`."""
        self.point = np.zeros((self.num_envs, 2))
        return self.point.astype(np.float32)

    def advance(self, actions: np.ndarray, rng: Draws) -> tuple[np.ndarray, ...]:
        """What one step leads to."""
        self.point = self.point + STEP * np.asarray(actions, np.float64).clip(-1, 1)
        distance = np.linalg.norm(self.point - self.goal, axis=1)
        reward = np.where(distance <= NEAR, 1 - distance, 0.0)
        return self.point.astype(np.float32), reward.astype(np.float32)


class SparsePointRobotEnv(SingleTaskEnv):
    """One point; see `SparsePointRobot`. `parameters {"angle": [1]}` fixes the task."""

    def __init__(self, *, parameters: Any = None, **sizes: Any):
        super().__init__(SparsePointRobotVectorEnv(parameters=parameters, **sizes))
