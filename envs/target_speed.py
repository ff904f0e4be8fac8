"""Robots whose agents each have a target speed of their own (Ivanov & Ben-Porat 2024)."""

import contextlib
import functools
import math
import numbers
from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box
from mujoco.batch import Batch

from envs.parameters import EnvError, check_parameters, check_shapes, check_sizes
from envs.protocols import Draws, Parameters
from envs.shared_reward_env import OwnRewardVectorEnv, SharedVectorEnv

WIDE = (-np.inf, np.inf)
BAD_NUMBERS = [int(getattr(mujoco.mjtWarning, f"mjWARN_BAD{kind}")) for kind in ("QPOS", "QVEL", "QACC")]


class Robot(NamedTuple):
    """What Gymnasium's environment does around the physics; ranges are open intervals of a healthy robot."""

    id: str
    high: float  # largest target speed of the paper, m/s
    hidden: int  # first positions, which are not observed
    noise: float  # size of the noise of the first state
    normal_velocities: bool  # noise of velocities is normal instead of uniform
    velocity_clip: float = np.inf  # of observations
    height: tuple[float, float] = WIDE
    angle: tuple[float, float] = WIDE
    rest: tuple[float, float] = WIDE  # of every position and velocity from the third on


ROBOTS = {
    "half_cheetah": Robot("HalfCheetah-v5", 4.0, 1, 0.1, True),
    "hopper": Robot("Hopper-v5", 2.5, 1, 5e-3, False, 10, (0.7, np.inf), (-0.2, 0.2), (-100, 100)),
    "walker2d": Robot("Walker2d-v5", 2.5, 1, 5e-3, False, 10, (0.8, 2.0), (-1.0, 1.0)),
    "ant": Robot("Ant-v5", 3.0, 2, 0.1, True, height=(0.4, 1.0)),  # heights of the paper
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
def load_robot(name: str) -> Any:
    """Gymnasium's environment of a robot, of which only model, frame_skip, first pose and spaces are used."""
    with no_warnings():  # of `settotalmass` in its half_cheetah.xml; users can do nothing about it
        return gymnasium.make(ROBOTS[name].id).unwrapped


class SpeedTask:
    """A robot of Gymnasium and agents with target speeds (Ivanov & Ben-Porat 2024, arXiv 2401.06514).

    `robot` is half_cheetah, hopper, walker2d or ant. An agent is {"target": [n] float64} in m/s, drawn from
    U(low, high), by default the paper's range. The outcome [..., 1] of a step is the velocity v along x; the
    reward is 0.1 * max(0, 1 - |v - target| / L) with L = (high - low) / 20, so at most 0.1 *
    `max_episode_len` an episode. Observations, noise and ends are those of Gymnasium's version 5, Ant's
    without contact forces (27 values) and with the paper's healthy heights of 0.4 to 1 m.
    """

    outcome_size = 1

    def __init__(
        self, robot: str, max_episode_len: int = 1000, low: float | None = None, high: float | None = None
    ):
        if robot not in ROBOTS:
            raise EnvError(f"speed: unknown robot {robot!r}; known are {', '.join(ROBOTS)}")
        check_sizes(robot, max_episode_len=max_episode_len)
        low, high = 0.0 if low is None else low, ROBOTS[robot].high if high is None else high
        good = all(isinstance(end, numbers.Real) and math.isfinite(end) for end in (low, high))
        if not good or not 0 <= low < high:
            text = f"target speeds from {low!r} to {high!r}; give finite numbers 0 <= low < high (m/s)"
            raise EnvError(f"{robot}: {text}")
        self.name, self.max_episode_len = robot, int(max_episode_len)
        self.low, self.high = float(low), float(high)
        self.window = (self.high - self.low) / 20
        self.max_return = 0.1 * self.max_episode_len
        env = load_robot(robot)
        observation_size = env.model.nq + env.model.nv - ROBOTS[robot].hidden
        self.observation_space = Box(-np.inf, np.inf, (observation_size,), np.float32)
        self.action_space = Box(env.action_space.low, env.action_space.high)

    def sample(self, rng: Any, n: int) -> Parameters:
        """Parameters `[n, ...]` of n tasks."""
        return {"target": rng.uniform(self.low, self.high, n)}

    def check(self, parameters: Any) -> Parameters:
        """The parameters as arrays of the right types; raises `EnvError` for what cannot be."""
        arrays = check_parameters(self.name, parameters)
        check_shapes(self.name, arrays, {"target": ()})
        return {"target": arrays["target"].astype(np.float64, copy=False)}

    def rewards(self, outcome: Any, parameters: Parameters) -> Any:
        """[..., n] of outcome [..., 1] for targets [n]; both NumPy arrays or both torch tensors."""
        return 0.1 * (1 - abs(outcome - parameters["target"]) / self.window).clip(min=0)

    def own_rewards(self, outcome: np.ndarray, parameters: Parameters) -> np.ndarray:
        """[n] of outcomes [n, 1], one for each agent."""
        return 0.1 * (1 - abs(outcome[:, 0] - parameters["target"]) / self.window).clip(min=0)

    def make_vec(self, parameters: Any, rng: Draws | None = None) -> OwnRewardVectorEnv:
        """The n tasks side by side."""
        return OwnRewardVectorEnv(self, parameters, rng)

    def order(self, parameters: Parameters) -> np.ndarray:
        """The agents `[n]` in an order in which neighbours are alike."""
        return np.argsort(parameters["target"], kind="stable")

    def make_shared(
        self, num_envs: int, *, seed: int, index: Any = None, stagger: bool = False, num_threads: int = 1
    ) -> "SpeedVectorEnv":
        """`num_envs` copies of the robot, stepped on `num_threads` threads, this one included."""
        return SpeedVectorEnv(
            self, num_envs, seed=seed, index=index, stagger=stagger, num_threads=num_threads
        )


class SpeedVectorEnv(SharedVectorEnv):
    """N copies of one robot in one `mujoco.batch.Batch`; see `SpeedTask`.

    A copy whose physics diverges is terminated, with outcome 0 and the standing pose as last observation.
    """

    def __init__(self, family: SpeedTask, num_envs: int, *, num_threads: int = 1, **shared: Any):
        super().__init__(num_envs, max_episode_len=family.max_episode_len, **shared)
        check_sizes(family.name, num_threads=num_threads)
        self.robot, self.action_space = ROBOTS[family.name], family.action_space
        env = load_robot(family.name)
        self.first_position, self.first_velocity = env.init_qpos, env.init_qvel
        self.frame_skip, self.dt = env.frame_skip, env.dt
        # A batch cannot be empty; a rank's share of environments can.
        self.batch = Batch(env.model, max(1, self.num_envs), num_threads)
        rows = slice(0, self.num_envs)
        self.position, self.velocity = self.batch.bind("qpos")[rows], self.batch.bind("qvel")[rows]
        self.warm_start, self.control = self.batch.bind("qacc_warmstart")[rows], self.batch.bind("ctrl")[rows]

    def start(self, envs: np.ndarray, generators: list[np.random.Generator]) -> None:
        """Begin an episode at the positions that `envs` lists."""
        noise, (nq, nv) = self.robot.noise, (self.position.shape[1], self.velocity.shape[1])
        velocity_noise = normal if self.robot.normal_velocities else uniform
        self.batch.reset(envs, stage=mujoco.mjtStage.mjSTAGE_NONE)
        for env, rng in zip(envs, generators, strict=True):  # each episode draws from its own generator
            self.position[env] = self.first_position + uniform(rng, noise, nq)
            self.velocity[env] = self.first_velocity + velocity_noise(rng, noise, nv)

    def observe(self) -> np.ndarray:
        """The present observations `[N, D]` float32."""
        clip = self.robot.velocity_clip
        seen = [self.position[:, self.robot.hidden :], self.velocity.clip(-clip, clip)]
        return np.concatenate(seen, axis=1, dtype=np.float32)

    def advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outcomes and ends of one step."""
        before = self.position[:, 0].copy()
        self.control[:] = actions
        self.batch.step(nstep=self.frame_skip)
        # Of the joint; Gymnasium's Ant uses the torso's `xpos`, which lags one substep behind it.
        speed = (self.position[:, 0] - before) / self.dt
        lost = diverged(self.batch)[: self.num_envs]
        if lost.any():
            speed[lost] = 0
            self.position[lost], self.velocity[lost] = self.first_position, self.first_velocity
        return speed[:, None].astype(np.float32), lost | ~self.healthy()

    def healthy(self) -> np.ndarray:
        """[N] bool."""
        robot, at = self.robot, self.robot.hidden  # positions are x, z, angle in the plane; x, y, z in space
        healthy = inside(self.position[:, at], robot.height) & inside(self.position[:, at + 1], robot.angle)
        healthy &= inside(self.position[:, 2:], robot.rest).all(axis=1)
        return healthy & inside(self.velocity, robot.rest).all(axis=1)

    def dynamics_state(self) -> dict[str, np.ndarray]:
        """What the physics of N environments continue from, {name: `[N, ...]`}."""
        return {"position": self.position, "velocity": self.velocity, "warm_start": self.warm_start}

    def set_dynamics_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `dynamics_state`."""
        own = self.dynamics_state()
        found, needed = ({name: a.shape for name, a in part.items()} for part in (state, own))
        if found != needed:
            raise EnvError(f"state of another robot than {self.robot.id}: it has {found}; give {needed}")
        self.batch.reset(stage=mujoco.mjtStage.mjSTAGE_NONE)
        for name, array in own.items():
            array[:] = state[name]


def diverged(batch: Batch) -> np.ndarray:
    """[n] bool: MuJoCo has met bad numbers and reset itself, or the last substep made them."""
    finite = np.isfinite(batch.qpos).all(axis=1) & np.isfinite(batch.qvel).all(axis=1)
    return batch.warning[:, BAD_NUMBERS, 1].any(axis=1) | ~finite


def inside(values: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """Which values lie in an open interval."""
    return (ends[0] < values) & (values < ends[1])


def uniform(rng: np.random.Generator, scale: float, size: int) -> np.ndarray:
    """Draws `[size]` of U(-scale, scale)."""
    return rng.uniform(-scale, scale, size)


def normal(rng: np.random.Generator, scale: float, size: int) -> np.ndarray:
    """Draws `[size]` of N(0, scale^2)."""
    return scale * rng.standard_normal(size)
