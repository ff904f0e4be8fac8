"""What a run learns from: a log that is made from the seed, or read from a file."""

import dataclasses
from typing import Any

import numpy as np

from common.runs.seeding import stream
from envs import make_family
from envs.problem import Problem
from envs.protocols import Dynamics
from mpi_utils.comm import Comm
from persim.config import DATASETS, Config
from persim.data import behaviour
from persim.data.form import Form, keep_quiet
from persim.data.logs import read
from persim.data.trajectories import Follows, log_dynamics, log_episodes
from persim.data.transitions import Transitions
from persim.partial import hide, seen_of

EPSILON = {"pure": 0.0, "pure_eps_20": 0.2, "pure_eps_40": 0.4}


def make_problem(config: Config, comm: Comm) -> Problem:
    """The configured agents and the log of each, the same on all ranks; a mistake ends all of them alike."""
    with comm.agree():
        family = family_of(config)
        made = config.dataset in DATASETS
        seen = hide(family, config)
        log = seen_of(make_log(config, family), seen) if made else read_log(config, seen, comm.is_root)
    horizon = family.max_episode_len if family else int(np.bincount(log.agent).max())
    return Problem(config.environment, family, log.covariates, horizon, log=log)


def read_log(config: Config, family: Any, show: bool) -> Transitions:
    """The log in --dataset; what is found out about it is printed if `show`."""
    tell = print_now if show else keep_quiet
    form = Form(config.columns, config.action_kind, config.decimal, config.gaps, config.history, tell=tell)
    return read(config.dataset, family, form)


def print_now(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def family_of(config: Config) -> Any:
    """The family of the configured environment; None if it is unknown."""
    return None if config.environment == "unknown" else make_family(config.environment)


def make_log(config: Config, family: Any) -> Transitions:
    """One trajectory of each agent under the configured behaviour; raises `UserError` if it is not there."""
    rng = stream(config.seed, "environment")
    if config.log_steps:
        family = make_family(config.environment, max_episode_len=config.log_steps)
    agents = draw_agents(family, config.num_agents, rng)
    if config.dataset == "random":
        policy = behaviour.random_policy(family)
    else:
        policy = behaviour.load(family).behaviour(agents, EPSILON[config.dataset])
    if isinstance(family, Dynamics):
        return log_dynamics(family, agents, policy, rng)
    actor = Follows(policy, stream(config.seed, "acting"))
    log = log_episodes(family, agents, actor, rng, family.max_episode_len)
    known = family.test_names[: config.num_agents]
    return dataclasses.replace(log, names=known + log.names[len(known) :])


def draw_agents(family: Any, num_agents: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Covariates of the agents: the test agents first, then uniform in the ranges (section 4)."""
    drawn = family.sample(rng, num_agents)
    for name, values in family.test_agents.items():
        drawn[name][: len(values)] = values[:num_agents]
    return drawn
