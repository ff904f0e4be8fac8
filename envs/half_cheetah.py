"""Agents of HalfCheetah that differ in mass and in the damping of their joints."""

import functools
from functools import partial
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from mujoco import mjtStage
from mujoco.batch import Batch

from envs.heterogeneous_dynamics import Dynamics, DynamicsEnv, DynamicsVectorEnv
from envs.protocols import Draws, Parameters
from envs.robots import ROBOTS, diverged, load_robot, no_warnings

JOINTS = ("rootx", "rootz", "rooty", "bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
CONTROL_COST = 0.1
START_NOISE = 0.001


@functools.lru_cache(maxsize=4)
def robots(mass_scale: bytes, damping_scale: bytes) -> Batch:
    """Robots of these float64 scales; the caller writes their whole state before each step."""
    model = load_robot(ROBOTS["half_cheetah"]).model
    mass, damping = (np.frombuffer(scale)[:, None] for scale in (mass_scale, damping_scale))
    batch = Batch(model, max(1, len(mass)), 1)  # a batch cannot be empty; a rank's share of agents can
    batch.expand("body_mass")[: len(mass)] = mass * model.body_mass
    batch.expand("dof_damping")[: len(mass)] = damping * model.dof_damping
    batch.set_const()  # what MuJoCo derives from masses follows
    return batch


class HalfCheetah(Dynamics):
    """Gymnasium's HalfCheetah-v5 with scaled masses and damping (Agarwal et al. 2021, arXiv 2102.06961).

    "mass_scale" multiplies the masses of all bodies, "damping_scale" the damping of all joints; rotational
    inertias stay, as in the authors' code. The state [18] is the forward velocity of the last step, positions
    but for x [8] and velocities [9]. Actions are six torques in -1..1. The reward of a step is the forward
    velocity that it led to, minus 0.1 times the squared action. No episode ends early. The solver starts cold
    at each step, so that a step follows from the state alone. Where the physics diverges, the robot
    stands at rest again, which is a state of zeros. Starts are normal around it, with deviation 0.001.
    """

    name = "half_cheetah_body"
    state_names = (
        "forward_velocity",
        *(f"{joint}_position" for joint in JOINTS[1:]),
        *(f"{joint}_velocity" for joint in JOINTS),
    )
    observation_space = Box(-np.inf, np.inf, (18,), np.float32)
    action_space = Box(-1.0, 1.0, (6,), np.float32)
    max_episode_len = 1000
    covariates = {"mass_scale": (0.2, 1.8), "damping_scale": (0.2, 1.8)}
    default = {"mass_scale": 1.0, "damping_scale": 1.0}
    test_agents = {
        "mass_scale": np.array([0.3, 1.7, 0.3, 1.7, 1.0]),
        "damping_scale": np.array([1.7, 0.3, 0.3, 1.7, 1.0]),
    }
    behaviour_agents = {
        "mass_scale": np.array([1.4, 1.4, 0.6, 0.6]),
        "damping_scale": np.array([0.6, 1.4, 0.6, 1.4]),
    }

    def start(self, rng: Draws, n: int) -> np.ndarray:
        """First states `[n, d]` float64."""
        noise = START_NOISE * rng.standard_normal((n, 17), dtype=np.float64)
        return np.concatenate([np.zeros((n, 1)), noise], axis=1)

    def advance(self, state: Any, action: Any, parameters: Parameters) -> Any:
        """Next states `[..., d]`."""
        robot, shape = load_robot(ROBOTS["half_cheetah"]), state.shape[:-1]
        scales = (np.asarray(parameters[name], np.float64) for name in self.covariates)
        batch = robots(*(np.broadcast_to(scale, shape).tobytes() for scale in scales))
        rows = state.reshape(-1, 18)
        n = len(rows)
        position, velocity = batch.qpos[:n], batch.qvel[:n]
        position[:, 0], position[:, 1:], velocity[:] = 0, rows[:, 1:9], rows[:, 9:]
        batch.ctrl[:n] = np.reshape(action, (-1, 6))
        batch.qacc_warmstart[:] = 0
        with no_warnings():  # planners try what no robot survives
            batch.step(nstep=robot.frame_skip)
        next_state = np.concatenate([position[:, :1] / robot.dt, position[:, 1:], velocity], axis=1)
        lost = diverged(batch)
        if lost.any():
            batch.reset(lost, stage=mjtStage.mjSTAGE_NONE)  # its warnings, too
            next_state[lost[:n]] = 0
        return next_state.reshape(state.shape)

    def reward(self, state: Any, action: Any, next_state: Any) -> Any:
        """Rewards `[...]` of steps."""
        return next_state[..., 0] - CONTROL_COST * (action * action).sum(-1)

    def terminated(self, next_state: Any) -> Any:
        """Whether an episode ends in the states `[..., d]`."""
        return next_state[..., 0] != next_state[..., 0]  # never, except where a learned model gives NaN


HalfCheetahVectorEnv = partial(DynamicsVectorEnv, HalfCheetah)
HalfCheetahEnv = partial(DynamicsEnv, HalfCheetah)
