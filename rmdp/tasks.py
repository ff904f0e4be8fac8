"""Which dynamics the agents have and what each of them wants, from the settings of a run."""

import numpy as np
from gymnasium.spaces import Box

from common.errors import UserError
from common.runs.seeding import stream
from envs import Population, agreed_factory, make_family
from rmdp.config import shared

SCALE = {"resource_gathering": 100.0}  # returns are reported as percent there, as in the paper


def shared_family(config):
    """The environment whose every step pays all agents."""
    ranges = {"low": config.target_low, "high": config.target_high}
    ranges = {name: value for name, value in ranges.items() if value is not None}
    return make_family(config.environment, **ranges)


def separate_family(config, comm):
    """The family of agents with dynamics of their own; rank 0 imports a user's factory for all ranks."""
    factory = agreed_factory(config.environment, comm)
    with comm.agree():
        family = make_family(factory or config.environment)
        if not isinstance(family.observation_space, Box):
            raise UserError(f"--environment {config.environment}: r-MDP needs observations in a Box")
    return family


def draw_agents(config, family) -> dict[str, np.ndarray]:
    """Parameters `[n]` of all agents: from a file, or drawn.

    Those that share dynamics are drawn by NumPy's legacy generator, as in the authors' code: seed by seed the
    same populations.
    """
    if not config.population and not shared(config):
        return family.sample(stream(config.seed, "tasks"), config.num_agents)
    if not config.population:
        return family.sample(np.random.RandomState(config.seed % 2**32), config.num_agents)
    population = Population.load(config.population)
    if population.environment != config.environment:
        raise UserError(
            f"--population {config.population}: its agents live in {population.environment}, "
            f"not in --environment {config.environment}"
        )
    if len(population) != config.num_agents:
        raise UserError(
            f"--population {config.population}: holds {len(population)} agents; give --num_agents "
            f"{len(population)}"
        )
    return family.check(population.parameters)
