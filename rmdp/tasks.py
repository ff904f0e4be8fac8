"""Which dynamics the agents share and what each of them wants, from the settings of a run."""

import numpy as np

from common.config import UsageError
from envs import Population, make_shared_family

SCALE = {"resource_gathering": 100.0}  # returns are reported as percent there, as in the paper


def shared_family(config):
    """The environment whose every step pays all agents."""
    ranges = {"low": config.target_low, "high": config.target_high}
    ranges = {name: value for name, value in ranges.items() if value is not None}
    return make_shared_family(config.environment, **ranges)


def draw_agents(config, family) -> dict[str, np.ndarray]:
    """Parameters `[n]` of all agents: from a file, or drawn.

    They are drawn by NumPy's legacy generator, as in the authors' code: seed by seed the same populations.
    """
    if not config.population:
        return family.sample(np.random.RandomState(config.seed % 2**32), config.num_agents)
    population = Population.load(config.population)
    if population.environment != config.environment:
        raise UsageError(
            f"--population {config.population}: its agents live in {population.environment}, "
            f"not in --environment {config.environment}"
        )
    if len(population) != config.num_agents:
        raise UsageError(
            f"--population {config.population}: holds {len(population)} agents; give --num_agents "
            f"{len(population)}"
        )
    return family.check(population.parameters)
