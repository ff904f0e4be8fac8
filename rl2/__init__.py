"""RL^2 (Duan et al. 2016, arXiv 1611.02779): a recurrent policy that learns to learn."""

import dataclasses
from pathlib import Path

import numpy as np

from common.runs import checkpoint
from envs.problem import Problem
from mpi_utils.comm import Comm
from rl2.evaluation import stored_config, stored_policy
from rl2.policy import Actor
from rl2.problem import make_problem, stored_problem


def load_problem(run: str | Path, environment: str = "") -> Problem:
    """The family of tasks that a run was trained on; raises `UserError`."""
    stored, state = checkpoint.open_run(run, "rl2")
    return stored_problem(stored_config(stored, environment), state, Comm())


def load(
    run: str | Path,
    agents: np.ndarray | None = None,
    *,
    environment: str = "",
    rng: np.random.Generator | None = None,
) -> Actor:
    """An actor from a run folder or one save in it; it adapts to whatever agents it acts for.

    `environment` names a user's own module:factory again. Actions are drawn from `rng` where one is given,
    else the most likely are taken. Raises `UserError`.
    """
    stored, state = checkpoint.open_run(run, "rl2")
    config = dataclasses.replace(stored_config(stored, environment), population="")
    problem = make_problem(config, Comm())
    return Actor(stored_policy(config, state, problem), problem.family.action_space, rng)
