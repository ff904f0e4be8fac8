"""Two families as a user would write them, to be given to `make_family`."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from envs.parameters import check_parameters, check_shapes
from envs.task_env import TaskVectorEnv


class CartPoles:
    """Gymnasium's CartPole with pole half-length U(0.25, 1) m and push U(5, 15) N; one env a task."""

    def sample(self, rng, n):
        return {"length": rng.uniform(0.25, 1.0, n), "force": rng.uniform(5.0, 15.0, n)}

    def make(self, task):
        env = gymnasium.make("CartPole-v1", disable_env_checker=True)
        cart = env.unwrapped
        cart.length, cart.force_mag = float(task["length"]), float(task["force"])
        cart.polemass_length = cart.masspole * cart.length  # computed once by Gymnasium, so it must follow
        return env


def cart_pole_family():
    return CartPoles()


class Points:
    """A point on a line that must find a hidden target: all tasks stepped at once.

    Parameters {"target": [n] in -1..1}. The observation is the position, 0 at first; an action in -1..1 moves
    it by 0.2 times the action; the reward is minus the distance to the target afterwards. 10 steps.
    """

    max_episode_len = 10
    observation_space = Box(-2.0, 2.0, (1,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def sample(self, rng, n):
        return {"target": 2 * rng.random(n, dtype=np.float32) - 1}

    def check(self, parameters):
        arrays = check_parameters("point", parameters)
        check_shapes("point", arrays, {"target": ()})
        return arrays

    def make_vec(self, parameters, rng=None):
        return PointVectorEnv(self, None, 10, parameters, rng)


class PointVectorEnv(TaskVectorEnv):
    """N points moved at once; see `Points`."""

    def load(self, parameters):
        self.target = parameters["target"]

    def start(self):
        self.position = np.zeros((self.num_envs, 1), np.float32)
        return self.position.copy()

    def advance(self, actions, rng):
        moved = self.position + np.float32(0.2) * np.clip(actions, -1, 1)
        self.position = np.clip(moved, -2, 2).astype(np.float32, copy=False)
        return self.position.copy(), -np.abs(self.position[:, 0] - self.target)


def point_family():
    return Points()
