"""CAML (Zhang 2019, arXiv 2010.04816): start from the best of k clustered policies, then adapt."""

from pathlib import Path

import numpy as np

from caml.evaluation import stored_config
from caml.fewshot import adapt
from caml.learner import Learner
from caml.policy import Actor
from caml.problem import make_problem
from common.runs import checkpoint
from envs.problem import Problem
from mpi_utils.comm import Comm


def load_problem(run: str | Path, environment: str = "") -> Problem:
    """The agents of a run, support and query, and their environment; raises `UserError`."""
    return _learner(run, environment).problem


def load(
    run: str | Path,
    agents: np.ndarray | None = None,
    *,
    problem: Problem | None = None,
    updates: int = 1,
    environment: str = "",
    rng: np.random.Generator | None = None,
) -> Actor:
    """An actor from a run folder or one save in it.

    Without `agents` and `problem` it has the run's first medoid, as it is. With them the best medoid for each
    of the agents (numbers; None: all) of the problem (None: the run's own) gets `updates`, from new episodes.
    `environment` names a user's own module:factory again. Actions are drawn from `rng` where one is given.
    Raises `UserError`.
    """
    learner = _learner(run, environment)
    start = learner.start()
    if agents is None and problem is None:
        family = learner.problem.family
        return Actor(start.policies.take([0]), family.observation_space, family.action_space, rng)
    return adapt(start, problem or learner.problem, learner.config, agents, updates, rng)


def _learner(run: str | Path, environment: str) -> Learner:
    stored, state = checkpoint.open_run(run, "caml")
    config = stored_config(stored, environment)
    learner = Learner(config, Comm(), make_problem(config, Comm()))
    learner.load_state_dict(state)
    return learner
