"""The program of test_faults.py, `not_finite SYSTEM FOLDER`: NaN and infinities on one rank.

Each case is a fresh run, in whose second iteration a value appears in one place on one rank. All ranks must
raise alike in the very iteration, and no save may hold it. Prints one line a case, of each rank.
"""

import contextlib
import copy
import dataclasses
import os
import sys
from pathlib import Path

import numpy as np

from common.runs import checkpoint
from common.runs.encoding import first_not_finite
from mpi_utils import loop
from mpi_utils.comm import Comm, guard
from mpi_utils.sync import FlatGradients
from tests.helpers.runs import flags
from train import SYSTEMS, parse_arguments

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
    problem, at = SYSTEMS[system].make_problem(config, comm), Now()
    if comm.rank == int(rank) and place in ("reward", "observation"):
        problem = dataclasses.replace(problem, family=spoilt_family(problem.family, place, VALUES[value], at))
    learner = Spoilt(SYSTEMS[system].learner(config, comm, problem), at)
    if comm.rank == int(rank) and place == "parameter":
        learner.spoil = lambda: spoil_parameter(learner.tensors_in_sync(), VALUES[value])
    run_dir = Path(folder) / name
    said = "went on"
    try:
        with spoilt_gradients(place, VALUES[value], at if comm.rank == int(rank) else Now()):
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


@dataclasses.dataclass
class Now:
    """Which iteration it is."""

    iteration: int = -1

    def __bool__(self) -> bool:
        return self.iteration == AT


class Spoilt:
    """A learner that tells which iteration it is in, and is spoilt before number AT if it is asked to."""

    def __init__(self, learner, now: Now) -> None:
        self.learner, self.now, self.spoil = learner, now, lambda: None

    def train_iteration(self, i: int) -> dict[str, float]:
        self.now.iteration = i
        if self.now:
            self.spoil()
        return self.learner.train_iteration(i)

    def __getattr__(self, name):
        return getattr(self.learner, name)


def spoil_parameter(tensors, value) -> None:
    tensor = next(t for t in tensors.values() if t.is_floating_point() and t.numel())
    tensor.detach().reshape(-1)[0] = value


@contextlib.contextmanager
def spoilt_gradients(place, value, now: Now):
    """Gradients, or the losses averaged with them, are spoilt before they meet those of other ranks."""
    methods = {name: getattr(FlatGradients, name) for name in ("average", "sum")}

    def spoilt(name):
        def combine(self, *arguments):
            *weight, extras = arguments if len(arguments) == 1 + (name == "average") else (*arguments, ())
            if now and place == "gradient":
                self.parameters[0].grad.view(-1)[0] = value
            if now and place == "loss":
                extras = [value, *list(extras)[1:]]
            return methods[name](self, *weight, extras)

        return combine

    try:
        for name in methods:
            setattr(FlatGradients, name, spoilt(name))
        yield
    finally:
        for name, method in methods.items():
            setattr(FlatGradients, name, method)


def spoilt_family(family, place, value, now: Now):
    """The same family, whose environments spoil one number of what a step leads to."""
    family = copy.copy(family)
    for name in ("make_vec", "make_shared"):
        if make := getattr(family, name, None):
            setattr(family, name, lambda *a, make=make, **k: spoil_steps(make(*a, **k), place, value, now))
    return family


def spoil_steps(env, place, value, now: Now):
    step = env.step

    def spoilt(actions):
        result = step(actions)
        if not now:
            return result
        if hasattr(result, "outcome"):  # rewards of all agents follow from it
            array = result.outcome if place == "reward" else result.observation
            array.reshape(-1)[0] = value
            return result
        result = list(result)
        position = 1 if place == "reward" else 0
        result[position] = result[position].astype(np.float64)
        result[position].reshape(-1)[0] = value
        return tuple(result)

    env.step = spoilt
    return env


if __name__ == "__main__":
    guard(lambda comm: main(comm, *sys.argv[1:]))
