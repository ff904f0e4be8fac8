"""The program of test_faults.py, `not_finite SYSTEM FOLDER`: NaN and infinities on one rank.

Each case is a fresh run, in whose second iteration a value appears in one place on one rank. All ranks must
raise alike in the very iteration, and no save may hold it. Prints one line a case, of each rank.
"""

import os
import sys
from pathlib import Path

import numpy as np

from common.runs import checkpoint
from common.runs.encoding import first_not_finite
from mpi_utils import loop
from mpi_utils.comm import Comm, guard
from tests.helpers.runs import flags
from train import make_learner, parse_arguments

PLACES = {
    "rl2": ("reward", "observation", "loss", "gradient", "parameter"),
    "rmdp": ("reward", "observation", "loss", "gradient", "parameter"),
    "persim": ("gradient", "parameter"),
    "caml": ("reward", "observation"),
}
MORE = {"rl2": ["--environment", "envs.examples:cart_pole_family"]}  # whose observations are numbers
VALUES = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf}
AT = 1  # the second iteration


def main(comm, system, folder):
    for place in PLACES[system]:
        for name in VALUES:
            for rank in (0, comm.size - 1):
                case = f"{place} {name} {rank}"
                said = outcome(comm, system, folder, case)
                comm.barrier()
                os.write(1, f"{case}: rank {comm.rank} {said}\n".encode())  # in one piece


def outcome(comm, system, folder, case) -> str:
    """What a rank had to say, and whether a save holds what is not finite."""
    place, value, rank = case.split()
    name = case.replace(" ", "_")
    _, config = parse_arguments(
        [*flags(system, folder, name), *MORE.get(system, []), "--checkpoint_interval", "1"], Comm()
    )
    learner = make_learner(system, config, comm)
    if comm.rank == int(rank):
        spoil(learner, place, VALUES[value])
    run_dir = Path(folder) / name
    said = "went on"
    try:
        loop.run(learner, comm, run_dir, iterations=4, checkpoint_interval=1, log=False)
    except (FloatingPointError, RuntimeError) as error:
        if "not finite" not in str(error) and "out of step" not in str(error):
            raise  # the error of one rank
        said = f"{type(error).__name__}: {error}".splitlines()[0]
    comm.barrier()
    for path in run_dir.glob("step_*"):
        step, state = checkpoint.load(path)
        if step > AT or first_not_finite(state):
            said += f"; SAVED {step} {first_not_finite(state)}"
    return said


def spoil(learner, place, value) -> None:
    """Let `value` appear in a learner's iteration number AT."""
    train, now = learner.train_iteration, [-1]

    def train_iteration(i):
        now[0] = i
        if place == "parameter" and i == AT:
            tensor = next(
                t for t in learner.tensors_in_sync().values() if t.is_floating_point() and t.numel()
            )
            tensor.detach().reshape(-1)[0] = value
        return train(i)

    learner.train_iteration = train_iteration
    if place in ("loss", "gradient"):
        inner = learner.gradients._sum

        def summed(weight, extras):
            if now[0] == AT:
                if place == "gradient":
                    learner.gradients.views[0].view(-1)[0] = value
                extras = [value, *extras[1:]] if place == "loss" else extras
            return inner(weight, extras)

        learner.gradients._sum = summed
    if place in ("reward", "observation"):
        if hasattr(learner, "population"):
            spoil_steps(learner.population.environments.env, place, value, now)
        else:
            make_vec = learner.family.make_vec
            learner.family.make_vec = lambda *a, **k: spoil_steps(make_vec(*a, **k), place, value, now)


def spoil_steps(env, place, value, now):
    step = env.step

    def spoilt(actions):
        result = step(actions)
        if now[0] == AT:
            if hasattr(result, "outcome"):  # rewards of all agents follow from it
                array = result.outcome if place == "reward" else result.observation
                array.reshape(-1)[0] = value
                return result
            result = list(result)
            position = 1 if place == "reward" else 0
            result[position] = result[position].astype(np.float64)
            result[position].reshape(-1)[0] = value
        return tuple(result) if not hasattr(result, "outcome") else result

    env.step = spoilt
    return env


if __name__ == "__main__":
    guard(lambda comm: main(comm, *sys.argv[1:]))
