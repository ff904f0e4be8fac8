"""Half cheetahs that are to run at a speed of their own, or in a direction of their own."""

from functools import partial
from typing import Any

import numpy as np

from envs.protocols import Draws, Parameters
from envs.robot_task import RobotEnv, RobotTask, RobotVectorEnv, choose, require
from envs.robots import ROBOTS

CONTROL_COST, HIGHEST_SPEED = 0.05, 3.0


class HalfCheetahVel(RobotTask):
    """A target speed for each task, {"target": [n]} in m/s from U(0, 3) (VariBAD, arXiv 1910.08348).

    The reward is -|v - target| - 0.05 * the sum of squared torques, with v = (x' - x) / 0.05 s; nothing ends
    an episode of 200 steps early. It is Gymnasium's HalfCheetah-v5 with the control cost of the published
    task. Its observation [17] leaves the torso's place out, which the published one has (x, y and z, 20
    numbers): an unbounded input that tells nothing.
    """

    name, robot, shapes = "half_cheetah_vel", ROBOTS["half_cheetah"], {"target": ()}

    def sample(self, rng: Draws, n: int) -> Parameters:
        """Parameters `[n]` of n tasks."""
        return {"target": HIGHEST_SPEED * rng.random(n, dtype=np.float64)}

    def reward(self, before: np.ndarray, after: np.ndarray, squares: np.ndarray, tasks: Parameters) -> Any:
        """Rewards [n]."""
        speed = (after[:, 0] - before[:, 0]) / self.dt
        return -abs(speed - tasks["target"]) - CONTROL_COST * squares


class HalfCheetahDir(RobotTask):
    """Run forward or backward, {"direction": [n]} of 1 or -1, each half of the time (VariBAD).

    The reward is direction * (x' - x) / 0.05 s - 0.05 * the sum of squared torques. All else is as in
    `HalfCheetahVel`.
    """

    name, robot, shapes = "half_cheetah_dir", ROBOTS["half_cheetah"], {"direction": ()}

    def sample(self, rng: Draws, n: int) -> Parameters:
        """Parameters `[n]` of n tasks."""
        return {"direction": choose(rng, n, (-1.0, 1.0))}

    def check(self, parameters: Any) -> Parameters:
        """The parameters as arrays of the right types; raises `EnvError` for what cannot be."""
        arrays = super().check(parameters)
        direction = arrays["direction"]
        require(abs(direction) == 1, self.name, "direction", direction, "1 or -1")
        return arrays

    def reward(self, before: np.ndarray, after: np.ndarray, squares: np.ndarray, tasks: Parameters) -> Any:
        """Rewards [n]."""
        speed = (after[:, 0] - before[:, 0]) / self.dt
        return tasks["direction"] * speed - CONTROL_COST * squares


HalfCheetahVelVectorEnv = partial(RobotVectorEnv, HalfCheetahVel)
HalfCheetahVelEnv = partial(RobotEnv, HalfCheetahVel)
HalfCheetahDirVectorEnv = partial(RobotVectorEnv, HalfCheetahDir)
HalfCheetahDirEnv = partial(RobotEnv, HalfCheetahDir)
