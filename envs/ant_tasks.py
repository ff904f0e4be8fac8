"""Ants that are to walk in a direction of their own, or to a place of their own."""

from functools import partial
from typing import Any

import numpy as np

from envs.protocols import Draws, Parameters
from envs.robot_task import RobotEnv, RobotTask, RobotVectorEnv, choose
from envs.robots import ROBOTS, WIDE

SURVIVAL = 1.0
LARGEST_DISTANCE = 3.0  # of a goal, m
WALKER = ROBOTS["ant"]._replace(height=(0.2, 1.0))
NEVER_FALLS = ROBOTS["ant"]._replace(height=WIDE, hidden=0)


class AntDir(RobotTask):
    """Walk at an angle to the x-axis, {"angle": [n]}: 1 or -1 radian, each half of the time (VariBAD).

    These are the published directions, 114.6 degrees apart (arXiv 1910.08348); opposite ones are
    `AntForwardBackward`. With v the torso's velocity in m/s, the reward is 1 + v . (cos angle, sin angle) -
    0.5 * the sum of squared torques. The episode of at most 200 steps is `terminated` where the torso's
    height leaves 0.2..1 m. The observation [27] has all positions but x and y, and velocities.

    It is Gymnasium's Ant-v5 but for the reward. The published one also costs 0.0005 * the squared contact
    forces, each clipped to -1..1, about 0.3 an episode; they are left out, since `mujoco.batch` has none.
    """

    name, robot, shapes = "ant_dir", WALKER, {"angle": ()}
    angles: tuple[float, ...] = (-1.0, 1.0)

    def sample(self, rng: Draws, n: int) -> Parameters:
        """Parameters `[n]` of n tasks."""
        return {"angle": choose(rng, n, self.angles)}

    def reward(self, before: np.ndarray, after: np.ndarray, squares: np.ndarray, tasks: Parameters) -> Any:
        """Rewards [n]."""
        velocity = (after[:, :2] - before[:, :2]) / self.dt
        ahead = velocity[:, 0] * np.cos(tasks["angle"]) + velocity[:, 1] * np.sin(tasks["angle"])
        return SURVIVAL + ahead - 0.5 * squares


class AntForwardBackward(AntDir):
    """Walk forward or backward, 180 degrees apart: `AntDir` with angles 0 and pi.

    Its returns must not be set beside those published for AntDir, whose directions are 114.6 degrees apart.
    """

    name, angles = "ant_forward_backward", (0.0, np.pi)


class AntGoal(RobotTask):
    """Go to a place and stay, {"x": [n], "y": [n]} in m, uniform in a disc of radius 3 (VariBAD).

    The reward is -(|x - goal x| + |y - goal y|) - 0.1 * the sum of squared torques; nothing ends an episode
    of 200 steps early. The observation [29] has all positions, x and y too, and velocities. The published one
    has 84 contact forces more; these, and their cost, are left out as in `AntDir`.
    """

    name, robot, shapes = "ant_goal", NEVER_FALLS, {"x": (), "y": ()}

    def sample(self, rng: Draws, n: int) -> Parameters:
        """Parameters `[n]` of n tasks."""
        angle = 2 * np.pi * rng.random(n, dtype=np.float64)
        distance = LARGEST_DISTANCE * np.sqrt(rng.random(n, dtype=np.float64))
        return {"x": distance * np.cos(angle), "y": distance * np.sin(angle)}

    def reward(self, before: np.ndarray, after: np.ndarray, squares: np.ndarray, tasks: Parameters) -> Any:
        """Rewards [n]."""
        return -abs(after[:, 0] - tasks["x"]) - abs(after[:, 1] - tasks["y"]) - 0.1 * squares


AntDirVectorEnv = partial(RobotVectorEnv, AntDir)
AntDirEnv = partial(RobotEnv, AntDir)
AntForwardBackwardVectorEnv = partial(RobotVectorEnv, AntForwardBackward)
AntForwardBackwardEnv = partial(RobotEnv, AntForwardBackward)
AntGoalVectorEnv = partial(RobotVectorEnv, AntGoal)
AntGoalEnv = partial(RobotEnv, AntGoal)
