"""Small runs of PerSim, made and trained."""

import dataclasses

from mpi_utils.comm import Comm
from persim.config import Config, check_config
from persim.learner import Learner
from persim.problem import make_problem


def configured(environment="mountain_car", recipe="fast", **settings) -> Config:
    """A checked configuration: what is not given is the environment's and the recipe's."""
    defaults = Config.defaults({"environment": environment, "recipe": recipe})
    return check_config(dataclasses.replace(defaults, **settings))


def make(config: Config, comm: Comm | None = None) -> Learner:
    """A learner on the configured data."""
    comm = comm or Comm()
    return Learner(config, comm, make_problem(config, comm))


def trained(config: Config, iterations: int | None = None, comm: Comm | None = None) -> Learner:
    """A learner after all its iterations, or the first of them."""
    learner = make(config, comm)
    for i in range(config.max_iters if iterations is None else iterations):
        learner.train_iteration(i)
    return learner
