"""Agents of CartPole that differ in how hard they are pushed and in the length of the pole."""

from functools import partial
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from envs.heterogeneous_dynamics import Dynamics, DynamicsEnv, DynamicsVectorEnv
from envs.protocols import Draws, Parameters

GRAVITY, CART_MASS, POLE_MASS, DT = 9.8, 1.0, 0.1, 0.02
MASS = CART_MASS + POLE_MASS
LARGEST_POSITION, LARGEST_ANGLE = 2.4, 12 * np.pi / 180


class CartPole(Dynamics):
    """Gymnasium's CartPole-v1 with push and pole as covariates (Agarwal et al. 2021, arXiv 2102.06961).

    Covariates are the "force" in N with which actions 0 and 1 push left and right, and the "length" in m of
    half the pole. The reward of each step is 1; the episode is `terminated` where the cart leaves
    -2.4..2.4 or the angle -12..12 degrees. All four numbers start in U(-0.05, 0.05).
    """

    name = "cart_pole"
    state_names = ("position", "velocity", "angle", "angular_velocity")
    observation_space = Box(-np.inf, np.inf, (4,), np.float32)
    action_space = Discrete(2)
    max_episode_len = 200
    covariates = {"force": (2.0, 18.0), "length": (0.15, 0.85)}
    default = {"force": 10.0, "length": 0.5}
    test_agents = {
        "force": np.array([2.0, 10.0, 18.0, 10.0, 10.0]),
        "length": np.array([0.5, 0.5, 0.5, 0.85, 0.15]),
    }
    behaviour_agents = {
        "force": np.array([6.0, 14.0, 10.0, 10.0, 10.0]),
        "length": np.array([0.5, 0.5, 0.5, 0.675, 0.325]),
    }

    def start(self, rng: Draws, n: int) -> np.ndarray:
        """First states `[n, d]` float64."""
        return 0.1 * rng.random((n, 4), dtype=np.float64) - 0.05

    def advance(self, state: Any, action: Any, parameters: Parameters) -> Any:
        """Next states `[..., d]`."""
        length, push = parameters["length"], (2 * action - 1) * parameters["force"]
        velocity, angle, spin = state[..., 1], state[..., 2], state[..., 3]
        sin, cos = np.sin(angle), np.cos(angle)
        total = (push + POLE_MASS * length * spin * spin * sin) / MASS
        turn = (GRAVITY * sin - cos * total) / (length * (4 / 3 - POLE_MASS * cos * cos / MASS))
        speed_up = total - POLE_MASS * length * turn * cos / MASS
        # Explicit Euler, as in Gymnasium: positions move with the old velocities.
        return state + DT * np.stack([velocity, speed_up, spin, turn], axis=-1)

    def reward(self, state: Any, action: Any, next_state: Any) -> Any:
        """Rewards `[...]` of steps."""
        return self.terminated(next_state) * 0.0 + 1.0

    def return_range(self, parameters: Parameters) -> tuple[np.ndarray, np.ndarray]:
        """0, and a pole that stands for a whole episode, each `[n]`."""
        n = len(parameters["force"])
        return np.zeros(n), np.full(n, float(self.max_episode_len))

    def terminated(self, next_state: Any) -> Any:
        """Whether an episode ends in the states `[..., d]`."""
        return (abs(next_state[..., 0]) > LARGEST_POSITION) | (abs(next_state[..., 2]) > LARGEST_ANGLE)


CartPoleVectorEnv = partial(DynamicsVectorEnv, CartPole)
CartPoleEnv = partial(DynamicsEnv, CartPole)
