"""Two families as a user would write them, to be given to `make_family`."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from envs.parameters import check_parameters, check_shapes
from envs.protocols import Draws, Parameters
from envs.task_env import TaskVectorEnv


class CartPoles:
    """Gymnasium's CartPole with pole half-length U(0.25, 1) m and push U(5, 15) N; one env a task."""

    def sample(self, rng: Any, n: int) -> Parameters:
        """Parameters `[n, ...]` of n tasks."""
        return {"length": rng.uniform(0.25, 1.0, n), "force": rng.uniform(5.0, 15.0, n)}

    def make(self, task: dict[str, Any]) -> gymnasium.Env:
        """The environment of one task."""
        env = gymnasium.make("CartPole-v1", disable_env_checker=True)
        cart: Any = env.unwrapped
        cart.length, cart.force_mag = float(task["length"]), float(task["force"])
        cart.polemass_length = cart.masspole * cart.length  # computed once by Gymnasium, so it must follow
        return env


def cart_pole_family() -> CartPoles:
    """A factory for `make_family`."""
    return CartPoles()


class Points:
    """A point on a line that must find a hidden target: all tasks stepped at once.

    Parameters {"target": [n] in -1..1}. The observation is the position, 0 at first; an action in -1..1 moves
    it by 0.2 times the action; the reward is minus the distance to the target afterwards. 10 steps.
    """

    max_episode_len = 10
    observation_space = Box(-2.0, 2.0, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def sample(self, rng: Draws, n: int) -> Parameters:
        """Parameters `[n, ...]` of n tasks."""
        return {"target": 2 * rng.random(n, dtype=np.float32) - 1}

    def check(self, parameters: Any) -> Parameters:
        """The parameters as arrays of the right types; raises `EnvError` for what cannot be."""
        arrays = check_parameters("point", parameters)
        check_shapes("point", arrays, {"target": ()})
        return arrays

    def make_vec(self, parameters: Any, rng: Draws | None = None) -> "PointVectorEnv":
        """The n tasks side by side."""
        return PointVectorEnv(self, None, 10, parameters, rng)


class PointVectorEnv(TaskVectorEnv):
    """N points moved at once; see `Points`."""

    def load(self, parameters: Parameters) -> None:
        """Keep the tasks' arrays."""
        self.target = parameters["target"]

    def start(self) -> np.ndarray:
        """Begin an episode in every task; the first observations `[N, ...]`."""
        self.position = np.zeros((self.num_envs, 1), np.float32)
        return self.position.copy()

    def advance(self, actions: np.ndarray, rng: Draws) -> tuple[np.ndarray, ...]:
        """What one step leads to."""
        moved = self.position + np.float32(0.2) * np.clip(actions, -1, 1)
        self.position = np.clip(moved, -2, 2).astype(np.float32, copy=False)
        return self.position.copy(), -np.abs(self.position[:, 0] - self.target)


def point_family() -> Points:
    """A factory for `make_family`."""
    return Points()
