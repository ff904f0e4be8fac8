"""Which agents there are, in which dynamics, and what each of them prefers: from the settings of a run."""

from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.runs.seeding import stream
from envs import Population, Problem, agreed_factory, make_family
from envs.one_hot import as_vectors
from rmdp.config import Config, shared
from rmdp.reference import check_reference
from rmdp.start import read_start


def make_problem(config: Config, comm: Any) -> Problem:
    """The agents that the settings draw or load, in their environment; a collective.

    Agents that share dynamics are drawn by NumPy's legacy generator, as in the authors' code: seed by seed
    the same populations.
    """
    family = make_task_family(config, comm)
    with comm.agree():
        if config.population:
            agents = load_agents(config, family)
        elif shared(config):
            agents = family.sample(np.random.RandomState(config.seed % 2**32), config.num_agents)
        else:
            agents = family.sample(stream(config.seed, "tasks"), config.num_agents)
        begun = Path(config.checkpoint_dir) / config.model_name / "config.json"
        if config.start_from and not begun.exists():  # a run that goes on needs it no more
            read_start(config)
        if config.algorithm == "given":
            check_groups(config, agents)
        if config.welfare != "mean":
            check_reference(family, config.reference)
    return Problem(config.environment, family, agents, config.max_episode_len)


def make_task_family(config: Config, comm: Any) -> Any:
    """The environment; rank 0 imports a user's factory for all ranks."""
    limit = {"max_episode_len": config.max_episode_len} if config.max_episode_len else {}
    if shared(config):
        ranges = {"low": config.target_low, "high": config.target_high}
        with comm.agree():
            given = {name: value for name, value in ranges.items() if value is not None}
            return make_family(config.environment, **given, **limit)
    factory = agreed_factory(config.environment, comm)
    with comm.agree():
        return as_vectors(make_family(factory or config.environment, **({} if factory else limit)))


def load_agents(config: Config, family: Any) -> dict[str, np.ndarray]:
    """The agents `{name: [n, ...]}` in the file `--population`; raises UserError if they are others."""
    population = Population.of_run(config.population, config.environment)
    if len(population) != config.num_agents:
        raise UserError(
            f"--population {config.population}: holds {len(population)} agents; give --num_agents "
            f"{len(population)}"
        )
    return family.check(population.parameters)


def check_groups(config: Config, agents: dict[str, np.ndarray]) -> None:
    """Refuse a parameter that does not make as many groups as there are policies."""
    flag, values = f"--assign_by {config.assign_by!r}", agents.get(config.assign_by)
    if values is None or values.ndim != 1:
        known = ", ".join(name for name, value in agents.items() if value.ndim == 1)
        raise UserError(f"{flag}: no parameter of one number an agent; choose one of {known}")
    if (num := len(np.unique(values))) != config.num_policies:
        raise UserError(f"{flag}: has {num} values among the agents; give --num_policies {num}")


def shares_dynamics(problem: Problem) -> bool:
    """Whether every step has a reward for all agents."""
    return hasattr(problem.family, "make_shared")
