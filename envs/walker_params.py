"""Walkers whose bodies differ in masses, inertias, friction and damping."""

from functools import partial
from typing import Any

import numpy as np

from envs.protocols import Draws, Parameters
from envs.robot_task import RobotEnv, RobotTask, RobotVectorEnv, require
from envs.robots import ROBOTS, Copies

SPREAD = 3.0  # exponents are from U(-3, 3)
# The field of MuJoCo's model that a parameter multiplies, its base, and its shape.
PARTS = {
    "mass": ("body_mass", 1.5, (8,)),
    "inertia": ("body_inertia", 1.5, (8, 3)),
    "friction": ("geom_friction", 1.5, (8, 3)),
    "damping": ("dof_damping", 1.3, (9,)),
}


class WalkerParams(RobotTask):
    """A body for each task, as 65 factors of the usual one's numbers (Walker2DRandParams of VariBAD).

    "mass" [n, 8] and "inertia" [n, 8, 3] multiply those of the world (0, so without effect) and seven bodies,
    "friction" [n, 8, 3] the coefficients of the floor and seven geoms, "damping" [n, 9] that of the joints.
    A factor is 1.5, of damping 1.3, to a power from U(-3, 3). The reward is 1 + (x' - x) / 0.016 s - 0.001 *
    the sum of squared torques. The episode of at most 200 steps is `terminated` where the torso's height
    leaves 0.8..2 m or its angle -1..1. The observation [17] has all positions but x, and velocities clipped
    to -10..10.

    The body is the published one's: Gymnasium's walker2d.xml of version 4, whose feet have friction 0.9 and
    1.9, with its time step of 0.004 s (Walker2d-v5: both 1.9, and 0.002 s). As published, what MuJoCo derives
    from masses for its contacts stays that of the usual body.
    """

    name = "walker_params"
    robot = ROBOTS["walker2d"]._replace(xml="walker2d.xml", timestep=0.004)
    shapes = {name: shape for name, (_, _, shape) in PARTS.items()}

    def sample(self, rng: Draws, n: int) -> Parameters:
        """Parameters `[n, ...]` of n tasks."""
        return {
            name: base ** (SPREAD * (2 * rng.random((n, *shape), dtype=np.float64) - 1))
            for name, (_, base, shape) in PARTS.items()
        }

    def check(self, parameters: Any) -> Parameters:
        """The parameters as arrays of the right types; raises `EnvError` for what cannot be."""
        arrays = super().check(parameters)
        for name, factor in arrays.items():
            require(factor > 0, self.name, name, factor, "a factor above 0")
        return arrays

    def build(self, copies: Copies, parameters: Parameters) -> None:
        """Give the copies their tasks' bodies."""
        for name, (field, *_) in PARTS.items():
            copies.batch.expand(field)[: len(parameters[name])] *= parameters[name]

    def reward(self, before: np.ndarray, after: np.ndarray, squares: np.ndarray, tasks: Parameters) -> Any:
        """Rewards [n]."""
        return 1 + (after[:, 0] - before[:, 0]) / self.dt - 0.001 * squares


WalkerParamsVectorEnv = partial(RobotVectorEnv, WalkerParams)
WalkerParamsEnv = partial(RobotEnv, WalkerParams)
