"""What a run learns from: made from a seed, or read from a log."""

import numpy as np

from common.runs.seeding import stream
from envs import make_family
from persim.config import DATASETS, FAMILIES
from persim.data import behaviour
from persim.data.logs import read
from persim.data.rollout import play
from persim.data.transitions import Transitions
from persim.learned_reward import with_earned

EPSILON = {"pure": 0.0, "pure_eps_20": 0.2, "pure_eps_40": 0.4}


def family_of(config):
    """The family of the configured environment; None if it is unknown."""
    return make_family(FAMILIES[config.environment]) if config.environment in FAMILIES else None


def load(config, family, comm) -> Transitions:
    """The transitions of the configured dataset, the same on all ranks; a mistake ends all of them alike."""
    with comm.agree():
        known = config.dataset in DATASETS
        data = generate(config, family) if known else read(config.dataset, family)
        return with_earned(data) if config.learn_reward else data


def generate(config, family) -> Transitions:
    """One trajectory of each agent under the configured behaviour."""
    rng = stream(config.seed, "environment")
    agents = draw_agents(family, config.num_agents, rng)
    if config.dataset == "random":
        policy = behaviour.random_policy(family)
    else:
        policy = behaviour.load(family).behaviour(agents, EPSILON[config.dataset])
    return play(family, agents, policy, rng)


def draw_agents(family, num_agents: int, rng) -> dict[str, np.ndarray]:
    """Covariates of the agents: the test agents first, then uniform in the ranges (section 4)."""
    drawn = family.sample(rng, num_agents)
    for name, values in family.test_agents.items():
        drawn[name][: len(values)] = values[:num_agents]
    return drawn
