"""Robots whose agents each have a target speed of their own (Ivanov & Ben-Porat 2024)."""

import math
import numbers
from typing import Any

import mujoco
import numpy as np
from gymnasium.spaces import Box

from envs.parameters import EnvError, check_parameters, check_shapes, check_sizes
from envs.protocols import Draws, Parameters
from envs.robots import ROBOTS, Copies, load_robot
from envs.shared_reward_env import OwnRewardVectorEnv, SharedVectorEnv


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
        env = load_robot(ROBOTS[robot])
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

    def return_range(self, parameters: Parameters) -> tuple[np.ndarray, np.ndarray]:
        """0, and the return at the target speed from the first step on, each `[n]`."""
        n = len(parameters["target"])
        return np.zeros(n), np.full(n, self.max_return)

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
        self.action_space = family.action_space
        self.copies = Copies(ROBOTS[family.name], self.num_envs, num_threads)

    def start(self, envs: np.ndarray, generators: list[np.random.Generator]) -> None:
        """Begin an episode at the positions that `envs` lists."""
        robot, copies = self.copies.robot, self.copies
        nq, nv = copies.position.shape[1], copies.velocity.shape[1]
        velocity_noise = normal if robot.normal_velocities else uniform
        # Each episode draws from its own generator, first positions.
        position = np.array([uniform(rng, robot.noise, nq) for rng in generators]).reshape(-1, nq)
        velocity = np.array([velocity_noise(rng, robot.noise, nv) for rng in generators]).reshape(-1, nv)
        copies.begin(envs, position, velocity)

    def observe(self) -> np.ndarray:
        """The present observations `[N, D]` float32."""
        return self.copies.observe()

    def advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outcomes and ends of one step."""
        before = self.copies.position[:, 0].copy()
        lost = self.copies.step(actions)
        # Of the joint; Gymnasium's Ant uses the torso's `xpos`, which lags one substep behind it.
        speed = (self.copies.position[:, 0] - before) / self.copies.dt
        speed[lost] = 0
        return speed[:, None].astype(np.float32), lost | ~self.copies.healthy()

    def dynamics_state(self) -> dict[str, np.ndarray]:
        """What the physics of N environments continue from, {name: `[N, ...]`}."""
        copies = self.copies
        return {"position": copies.position, "velocity": copies.velocity, "warm_start": copies.warm_start}

    def set_dynamics_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `dynamics_state`."""
        own = self.dynamics_state()
        found, needed = ({name: a.shape for name, a in part.items()} for part in (state, own))
        if found != needed:
            raise EnvError(
                f"state of another robot than {self.copies.robot.id}: it has {found}; give {needed}"
            )
        self.copies.batch.reset(stage=mujoco.mjtStage.mjSTAGE_NONE)
        for name, array in own.items():
            array[:] = state[name]


def uniform(rng: np.random.Generator, scale: float, size: int) -> np.ndarray:
    """Draws `[size]` of U(-scale, scale)."""
    return rng.uniform(-scale, scale, size)


def normal(rng: np.random.Generator, scale: float, size: int) -> np.ndarray:
    """Draws `[size]` of N(0, scale^2)."""
    return scale * rng.standard_normal(size)
