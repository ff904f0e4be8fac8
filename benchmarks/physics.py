"""Physics steps per second of a robot, as one JSON line:  python -m benchmarks.physics half_cheetah

Methods that step 160 copies on one core with random actions: Gymnasium's environment, one copy after the
other; a loop over one MjData each; `mujoco.rollout`, which cannot carry the solver's warm start on; one
MjData that takes up each copy's state in turn; `mujoco.batch`; and `envs/target_speed.py`, which uses that
and, alone of all, starts anew what falls. With `suite` in place of a robot: whole environments of the
meta-RL suite, in batches of 64. Seconds are those of the processor, so that a busy machine matters less.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch
from mujoco.rollout import Rollout

from common.errors import UserError
from envs.families import SUITE_FAMILIES, make_family
from envs.robots import ROBOTS, Copies, load_robot
from envs.target_speed import SpeedTask, SpeedVectorEnv
from mpi_utils.comm import Comm, guard

NUM_ENVS, NUM_STEPS, NUM_REPEATS = 160, 40, 5
SUITE_ENVS, SUITE_STEPS, SUITE_REPEATS = 64, 100, 2
STATE = mujoco.mjtState
Play = Callable[[np.ndarray], None]  # takes the actions [T, N, A]


def main(comm: Comm) -> None:
    """Steps per second: the best of some repeats, all of which begin in the same states."""
    with comm.agree():
        known = (*ROBOTS, "suite")
        if len(sys.argv) != 2 or sys.argv[1] not in known:
            raise UserError(f"give one robot: python -m benchmarks.physics [{'|'.join(known)}]")
    name = sys.argv[1]
    if name == "suite":
        found = {f"{task}_steps_per_s": suite_rate(task) for task in SUITE_FAMILIES}
        if comm.is_root:
            print(json.dumps({"num_envs": SUITE_ENVS} | found))
        return
    family = SpeedTask(name)
    shared = family.make_shared(NUM_ENVS, seed=0)
    shared.reset()
    robot, copies = load_robot(ROBOTS[name]), shared.copies
    actions = np.random.default_rng(0).uniform(-1, 1, (NUM_STEPS, NUM_ENVS, *family.action_space.shape))
    actions *= family.action_space.high
    methods = {
        "gymnasium": one_by_one(robot),
        "mj_step_loop": data_each(robot, copies),
        "rollout_without_warm_start": rollout(robot, copies),
        "mj_step_loop_on_one_data": one_data(robot, copies),
        "batch": batch(robot, copies),
        "speed_task": speed_task(shared),
    }
    times: dict[str, list[float]] = {method: [] for method in methods}
    for _ in range(NUM_REPEATS):  # in turns, so that a disturbance of the machine hits all methods
        for method, play in methods.items():
            began = time.process_time()
            play(actions)
            times[method].append(time.process_time() - began)
    rates = {f"{method}_steps_per_s": round(actions[..., 0].size / min(times[method])) for method in methods}
    if comm.is_root:
        print(json.dumps({"robot": name, "num_envs": NUM_ENVS} | rates))


def one_by_one(env: Any) -> Play:
    """Gymnasium's environment, one copy after the other."""

    def play(actions: np.ndarray) -> None:
        for number in range(NUM_ENVS):
            env.reset(seed=number)
            for action in actions[:, number]:
                env.step(action)

    return play


def data_each(env: Any, copies: Copies) -> Play:
    """A loop over one MjData each."""
    datas = [mujoco.MjData(env.model) for _ in range(NUM_ENVS)]
    positions, velocities = copies.position.copy(), copies.velocity.copy()
    warm_starts = copies.warm_start.copy()

    def play(actions: np.ndarray) -> None:
        for data, *first in zip(datas, positions, velocities, warm_starts, strict=True):
            data.qpos[:], data.qvel[:], data.qacc_warmstart[:] = first
        for row in actions:
            for data, action in zip(datas, row, strict=True):
                data.ctrl[:] = action
                mujoco.mj_step(env.model, data, nstep=env.frame_skip)
            np.array([data.qpos for data in datas]), np.array([data.qvel for data in datas])

    return play


def rollout(env: Any, copies: Copies) -> Play:
    """`mujoco.rollout`, without the solver's warm start."""
    pool, data, models = Rollout(nthread=0), mujoco.MjData(env.model), [env.model] * NUM_ENVS
    time_ = np.zeros((NUM_ENVS, 1))
    first = np.concatenate([time_, copies.position, copies.velocity], axis=1)
    states = np.empty((NUM_ENVS, env.frame_skip, first.shape[1]))
    sensors = np.empty((NUM_ENVS, env.frame_skip, env.model.nsensordata))
    settings = {"skip_checks": True, "nstep": env.frame_skip, "state": states, "sensordata": sensors}

    def play(actions: np.ndarray) -> None:
        state = first
        for row in actions:
            control = np.repeat(row[:, None], env.frame_skip, axis=1)
            pool.rollout(models, [data], state, control, control_spec=STATE.mjSTATE_CTRL.value, **settings)
            state = states[:, -1].copy()

    return play


def one_data(env: Any, copies: Copies) -> Play:
    """One MjData that takes up each copy's state in turn."""
    data, spec = mujoco.MjData(env.model), STATE.mjSTATE_FULLPHYSICS | STATE.mjSTATE_WARMSTART
    spec |= STATE.mjSTATE_CTRL
    parts = [np.zeros((NUM_ENVS, 1)), copies.position, copies.velocity, copies.warm_start, copies.control]
    first = np.concatenate(parts, axis=1)

    def play(actions: np.ndarray) -> None:
        states = first.copy()
        for row in actions:
            states[:, -row.shape[1] :] = row
            for state in states:
                mujoco.mj_setState(env.model, data, state, spec)
                mujoco.mj_step(env.model, data, nstep=env.frame_skip)
                mujoco.mj_getState(env.model, data, state, spec)

    return play


def batch(env: Any, copies: Copies) -> Play:
    """`mujoco.batch`."""
    stepped, first = Batch(env.model, NUM_ENVS, 1), copies.batch.state.copy()
    control = stepped.bind("ctrl")

    def play(actions: np.ndarray) -> None:
        stepped.state[:] = first
        for row in actions:
            control[:] = row
            stepped.step(nstep=env.frame_skip)

    return play


def speed_task(shared: SpeedVectorEnv) -> Play:
    """`envs/target_speed.py`."""
    first = shared.get_state()

    def play(actions: np.ndarray) -> None:
        shared.set_state(first)
        for row in actions:
            shared.step(row)

    return play


def suite_rate(task: str) -> int:
    """Steps per second of a task's environments under random actions, the best of some repeats."""
    family = make_family(task)
    env = family.make_vec(family.sample(np.random.default_rng(0), SUITE_ENVS), np.random.default_rng(1))
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(SUITE_STEPS)]
    times = []
    for _ in range(SUITE_REPEATS):
        env.reset()
        began = time.process_time()
        for row in actions:
            env.step(row)
        times.append(time.process_time() - began)
    return round(SUITE_ENVS * SUITE_STEPS / min(times))


if __name__ == "__main__":
    guard(main)
