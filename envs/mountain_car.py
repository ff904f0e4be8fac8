"""Mountain cars that each feel a gravity of their own."""

from functools import partial
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from envs.heterogeneous_dynamics import Dynamics, DynamicsEnv, DynamicsVectorEnv
from envs.protocols import Draws, Parameters

FORCE, TOP_SPEED = 0.001, 0.07
LEFT_END, GOAL, RIGHT_END = -1.2, 0.5, 0.6


class MountainCar(Dynamics):
    """Gymnasium's MountainCar-v0 with gravity as covariate (Agarwal et al. 2021, arXiv 2102.06961).

    Actions 0, 1, 2 push left, not at all, right. The reward of a step is -1, and 0 where it arrives at 0.5
    with a speed of at least 0 (Gymnasium's is -1 there as well). Starts have position
    U(-0.6, -0.4) and no speed.
    """

    name = "mountain_car"
    state_names = ("position", "velocity")
    observation_space = Box(
        np.array([LEFT_END, -TOP_SPEED], np.float32), np.array([RIGHT_END, TOP_SPEED], np.float32)
    )
    action_space = Discrete(3)
    max_episode_len = 500
    covariates = {"gravity": (0.0001, 0.0035)}
    default = {"gravity": 0.0025}
    test_agents = {"gravity": np.array([0.0001, 0.0005, 0.001, 0.0025, 0.0035])}
    behaviour_agents = {"gravity": np.array([0.0003, 0.00075, 0.00175, 0.0025, 0.003])}

    def start(self, rng: Draws, n: int) -> np.ndarray:
        """First states `[n, d]` float64."""
        return np.stack([0.2 * rng.random(n, dtype=np.float64) - 0.6, np.zeros(n)], axis=-1)

    def advance(self, state: Any, action: Any, parameters: Parameters) -> Any:
        """Next states `[..., d]`."""
        position, velocity = state[..., 0], state[..., 1]
        slope = np.cos(3 * position)
        velocity = velocity + (FORCE * (action - 1) - parameters["gravity"] * slope)
        velocity = np.clip(velocity, -TOP_SPEED, TOP_SPEED)
        position = np.clip(position + velocity, LEFT_END, RIGHT_END)
        velocity = np.where(position == LEFT_END, np.maximum(velocity, 0), velocity)  # the wall stops the car
        return np.stack([position, velocity], axis=-1)

    def reward(self, state: Any, action: Any, next_state: Any) -> Any:
        """Rewards `[...]` of steps."""
        return self.terminated(next_state) * 1.0 - 1.0

    def terminated(self, next_state: Any) -> Any:
        """Whether an episode ends in the states `[..., d]`."""
        return (next_state[..., 0] >= GOAL) & (next_state[..., 1] >= 0)


MountainCarVectorEnv = partial(DynamicsVectorEnv, MountainCar)
MountainCarEnv = partial(DynamicsEnv, MountainCar)
