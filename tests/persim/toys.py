"""Small systems whose best plans are known."""

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete


class Walk:
    """x' = x + a - 1 for actions 0, 1, 2; a step earns minus its distance to 2 and ends beyond 3."""

    name, action_space = "walk", Discrete(3)

    def reward(self, state, action, next_state):
        return -abs(next_state[..., 0] - 2)

    def terminated(self, next_state):
        return next_state[..., 0] > 3


class Drift:
    """x' = x + a for actions in -1..3; a step earns minus its squared distance to the first `goal`."""

    name, action_space = "drift", Box(-1.0, 3.0, (1,), np.float32)

    def __init__(self, goal: float):
        self.goal = goal

    def reward(self, state, action, next_state):
        return -((next_state[..., 0] - self.goal) ** 2)

    def terminated(self, next_state):
        return next_state[..., 0] != next_state[..., 0]


class Members:
    """Models x' = x + gain * move, one member for each gain; `move` is a - 1, or a itself if continuous."""

    def __init__(self, gains=(1.0,)):
        self.gains = torch.tensor(gains, dtype=torch.float32).view(-1, 1, 1, 1)

    def at(self, agents):
        return self

    def step(self, state, action):
        move = action if action.is_floating_point() else (action - 1.0)[..., None]
        return state + self.gains * move
