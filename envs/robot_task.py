"""Robots whose tasks are rewards or bodies of their own, for the meta-RL suite (Zintgraf et al. 2020)."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box

from envs.keyed import child, keys, normal, uniform
from envs.parameters import EnvError, check_parameters, check_shapes, check_sizes
from envs.protocols import Draws, Parameters
from envs.robots import Copies, Robot, load_robot
from envs.task_env import FamilyVectorEnv, SingleTaskEnv


class RobotTask:
    """Base of the suite's robots (VariBAD, arXiv 1910.08348).

    A subclass sets `name`, `robot`, whose ranges say where an episode is `terminated`, and `shapes` {name:
    shape of one task's parameter}. It defines `sample` and `reward`. Episodes are `truncated` after
    `max_episode_len` steps. Each starts in the robot's first pose with noise of its own; actions are torques,
    clipped to -1..1. Where the physics diverges, the episode is `terminated` in the first pose.
    """

    name: str
    robot: Robot
    shapes: dict[str, tuple[int, ...]]

    def __init__(self, max_episode_len: int = 200):
        check_sizes(self.name, max_episode_len=max_episode_len)
        self.max_episode_len, env = int(max_episode_len), load_robot(self.robot)
        size = env.model.nq + env.model.nv - self.robot.hidden
        self.dt = env.dt
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = Box(env.action_space.low, env.action_space.high)

    def sample(self, rng: Draws, n: int) -> Parameters:
        """Parameters `[n, ...]` of n tasks."""
        raise NotImplementedError

    def reward(self, before: np.ndarray, after: np.ndarray, squares: np.ndarray, tasks: Parameters) -> Any:
        """Rewards [n] of steps between positions [n, nq], for the sums of squared actions [n]."""
        raise NotImplementedError

    def check(self, parameters: Any) -> Parameters:
        """The parameters as arrays of the right types; raises `EnvError` for what cannot be."""
        arrays = check_parameters(self.name, parameters)
        check_shapes(self.name, arrays, self.shapes)
        return {name: arrays[name].astype(np.float64) for name in self.shapes}

    def build(self, copies: Copies, parameters: Parameters) -> None:
        """Give the copies their tasks' bodies, where these differ."""

    def make_vec(self, parameters: Any, rng: Draws | None = None) -> "RobotVectorEnv":
        """The n tasks side by side."""
        limit = self.max_episode_len
        return RobotVectorEnv(type(self), parameters=parameters, rng=rng, max_episode_len=limit)


class RobotVectorEnv(FamilyVectorEnv):
    """N tasks of one `RobotTask`, stepped at once."""

    def load(self, parameters: Parameters) -> None:
        """Keep the tasks' arrays."""
        self.copies = Copies(self.family.robot, self.num_envs)
        self.family.build(self.copies, parameters)

    def start(self) -> np.ndarray:
        """Begin an episode in every task; the first observations `[N, ...]`."""
        self.key = keys(self._draws().random(self.num_envs, dtype=np.float64))
        self.episode = np.zeros(self.num_envs, np.int64)
        return super().start()

    def begin(self, tasks: np.ndarray) -> np.ndarray:
        """Begin an episode in the tasks `[N]` bool, each from noise of its own; all observations."""
        rows, robot = np.flatnonzero(tasks), self.family.robot
        self.episode[rows] += 1
        key = child(self.key[rows], self.episode[rows])[:, None]
        nq, nv = self.copies.position.shape[1], self.copies.velocity.shape[1]
        position = robot.noise * (2 * uniform(key, np.arange(nq)) - 1)
        if robot.normal_velocities:
            velocity = robot.noise * normal(key, np.arange(nv))
        else:
            velocity = robot.noise * (2 * uniform(key, nq + np.arange(nv)) - 1)
        self.copies.begin(rows, position, velocity)
        return self.copies.observe()

    def advance(self, actions: np.ndarray, rng: Draws) -> tuple[np.ndarray, ...]:
        """What one step leads to."""
        assert self.parameters is not None
        actions = np.asarray(actions, np.float64).clip(-1, 1)
        before = self.copies.position.copy()
        lost = self.copies.step(actions)
        after = self.copies.position
        before[lost] = after[lost]  # no distance that was not walked
        rewards = self.family.reward(before, after, np.square(actions).sum(1), self.parameters)
        return self.copies.observe(), rewards.astype(np.float32), lost | ~self.copies.healthy()


class RobotEnv(SingleTaskEnv):
    """One task of a `RobotTask`; `parameters` with n = 1 fix it."""

    def __init__(self, family_type: type[RobotTask], *, parameters: Any = None, **sizes: Any):
        super().__init__(RobotVectorEnv(family_type, parameters=parameters, **sizes))


def choose(rng: Draws, n: int, values: tuple[float, ...]) -> np.ndarray:
    """[n] of the values, each as likely."""
    return np.array(values)[(len(values) * rng.random(n, dtype=np.float64)).astype(np.int64)]


def require(good: np.ndarray, where: str, name: str, values: np.ndarray, wanted: str) -> None:
    """Raise `EnvError` with the first of the values [n, ...] that are not good [n, ...]."""
    if not good.all():
        text = f"{name} of task {np.argwhere(~good)[0][0]} is {values[~good][0]}; give {wanted}"
        raise EnvError(f"{where}: {text}")
