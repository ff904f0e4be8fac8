"""Gymnasium's robots, many copies of one stepped at once by `mujoco.batch`."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium
import mujoco
import numpy as np
from mujoco.batch import Batch

WIDE = (-np.inf, np.inf)
BAD_NUMBERS = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{kind}")) for kind in ("QPOS", "QVEL", "QACC")]


class Robot(NamedTuple):
    """What Gymnasium's environment does around the physics; ranges are open intervals of a healthy robot."""

    id: str
    high: float  # largest target speed of Ivanov & Ben-Porat 2024, m/s
    hidden: int  # first positions, which are not observed
    noise: float  # size of the noise of the first state
    normal_velocities: bool  # noise of velocities is normal instead of uniform
    velocity_clip: float = np.inf  # of observations
    height: tuple[float, float] = WIDE
    angle: tuple[float, float] = WIDE
    rest: tuple[float, float] = WIDE  # of every position and velocity from the third on
    xml: str = ""  # Gymnasium's file of another model; "": that of the id
    timestep: float = 0.0  # seconds; 0: the model's own

    def observe(self, position: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """Observations `[N, D]` float32."""
        seen = [position[:, self.hidden :], velocity.clip(-self.velocity_clip, self.velocity_clip)]
        return np.concatenate(seen, axis=1, dtype=np.float32)

    def healthy(self, position: np.ndarray, velocity: np.ndarray) -> np.ndarray:
        """[N] bool."""
        at = self.hidden  # positions are x, z, angle in the plane; x, y, z in space
        healthy = inside(position[:, at], self.height) & inside(position[:, at + 1], self.angle)
        healthy &= inside(position[:, 2:], self.rest).all(axis=1)
        return healthy & inside(velocity, self.rest).all(axis=1)


ROBOTS = {
    "half_cheetah": Robot("HalfCheetah-v5", 4.0, 1, 0.1, True),
    "hopper": Robot("Hopper-v5", 2.5, 1, 5e-3, False, 10, (0.7, np.inf), (-0.2, 0.2), (-100, 100)),
    "walker2d": Robot("Walker2d-v5", 2.5, 1, 5e-3, False, 10, (0.8, 2.0), (-1.0, 1.0)),
    "ant": Robot("Ant-v5", 3.0, 2, 0.1, True, height=(0.4, 1.0)),  # heights of Ivanov & Ben-Porat
}


@contextlib.contextmanager
def no_warnings() -> Iterator[None]:
    """MuJoCo's warnings are neither printed nor written to a file; for work on this thread alone."""
    shown = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda text: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(shown)


@functools.cache
def load_robot(robot: Robot) -> Any:
    """Gymnasium's environment of a robot: of it, model, frame_skip, dt, first pose and spaces are used."""
    with no_warnings():  # of `settotalmass` in its half_cheetah.xml; users can do nothing about it
        other: dict[str, Any] = {"xml_file": robot.xml} if robot.xml else {}
        env: Any = gymnasium.make(robot.id, **other).unwrapped
    if robot.timestep:
        env.model.opt.timestep = robot.timestep
    return env


class Copies:
    """N copies of a robot. They go on from the arrays `position`, `velocity` and `warm_start` [N, ...].

    A copy whose physics diverges stands in its first pose again, and must begin anew.
    """

    def __init__(self, robot: Robot, num: int, num_threads: int = 1):
        self.robot, env = robot, load_robot(robot)
        self.first_position, self.first_velocity = env.init_qpos, env.init_qvel
        self.frame_skip, self.dt = env.frame_skip, env.dt
        # A batch cannot be empty; a rank's share of environments can.
        self.batch = Batch(env.model, max(1, num), num_threads)
        self.position, self.velocity = self.batch.bind("qpos")[:num], self.batch.bind("qvel")[:num]
        self.warm_start, self.control = self.batch.bind("qacc_warmstart")[:num], self.batch.bind("ctrl")[:num]

    def begin(self, rows: np.ndarray, position_noise: np.ndarray, velocity_noise: np.ndarray) -> None:
        """Stand in the first pose, plus noise `[n, ...]`, in the copies that `rows` [n] lists."""
        self.batch.reset(rows, stage=mujoco.mjtStage.mjSTAGE_NONE)
        self.position[rows] = self.first_position + position_noise
        self.velocity[rows] = self.first_velocity + velocity_noise

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Act once in each; where physics diverged, [N] bool."""
        self.control[:] = actions
        with no_warnings():
            self.batch.step(nstep=self.frame_skip)
        lost = diverged(self.batch)[: len(self.position)]
        if lost.any():
            self.position[lost], self.velocity[lost] = self.first_position, self.first_velocity
        return lost

    def observe(self) -> np.ndarray:
        """The present observations `[N, D]` float32."""
        return self.robot.observe(self.position, self.velocity)

    def healthy(self) -> np.ndarray:
        """[N] bool."""
        return self.robot.healthy(self.position, self.velocity)


def diverged(batch: Batch) -> np.ndarray:
    """[n] bool: MuJoCo has met bad numbers and reset itself, or the last substep made them."""
    finite = np.isfinite(batch.qpos).all(axis=1) & np.isfinite(batch.qvel).all(axis=1)
    return batch.warning[:, BAD_NUMBERS, 1].any(axis=1) | ~finite


def inside(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """Which values lie in an open interval."""
    return (ends[0] < values) & (values < ends[1])
