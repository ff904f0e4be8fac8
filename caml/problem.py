"""What is meta-trained on: a population of agents, and which of them are support and which query."""

import dataclasses

import numpy as np

from caml.config import Config
from common.errors import UserError
from common.runs.seeding import stream
from envs import agreed_factory, make_family
from envs.particle import Particle
from envs.problem import Problem
from envs.protocols import Parameters, TaskFamily
from mpi_utils.comm import Comm

RELEASED_SUPPORT = [0, 1, 3, 8, 9, 10, 13, 15, 16, 18, 21, 22]  # of 24: the author's code


def make_problem(config: Config, comm: Comm) -> Problem:
    """The population of a run and its split, drawn from the seed; a collective."""
    family = task_family(config, comm)
    with comm.agree():
        rng = stream(config.seed, "tasks")
        if isinstance(family, Particle):
            agents = family.population(rng, config.num_groups, config.num_variants)
        else:
            agents = family.sample(rng, config.num_groups * config.num_variants)
        support = draw_support(config, agents, rng)
        return Problem(config.environment, family, agents, config.max_episode_len, support)


def task_family(config: Config, comm: Comm) -> TaskFamily:
    """The family of `config.environment`; a user's factory is imported by rank 0 and sent to all ranks."""
    factory = agreed_factory(config.environment, comm)
    with comm.agree():
        names = ("variant", "num_actions", "max_episode_len", "maps", "num_groups")
        sizes = {name: getattr(config, name) for name in names if config.environment == "particle"}
        return make_family(factory or config.environment, **sizes)


def with_support(config: Config, problem: Problem) -> Problem:
    """The problem with a split, drawn from the seed where it has none."""
    if problem.support is not None:
        return problem
    support = draw_support(config, population(problem), stream(config.seed, "tasks"))
    return dataclasses.replace(problem, support=support)


def draw_support(config: Config, agents: Parameters, rng: np.random.Generator) -> np.ndarray:
    """Numbers of the agents to train on, ascending."""
    num_agents = len(next(iter(agents.values())))
    if config.num_support >= num_agents:
        raise UserError(f"--num_support {config.num_support}: leaves no query agent of {num_agents}")
    order, group = rng.permutation(num_agents), agents.get("group")
    if config.split == "balanced" and group is not None:
        shuffled = group[order]
        turn = np.tril(shuffled[:, None] == shuffled, -1).sum(1)  # first of its group, second, ...
        order = order[turn.argsort(kind="stable")]
    if config.split == "released":
        return np.array(RELEASED_SUPPORT)
    return np.sort(order[: config.num_support])


def population(problem: Problem) -> Parameters:
    """The agents of the problem; ValueError if it has none."""
    if problem.agents is None:
        raise ValueError(f"{problem.environment}: CAML needs a population; give the problem agents")
    return problem.agents


def support_of(problem: Problem) -> np.ndarray:
    """Numbers of the agents to train on, ascending; ValueError if they are not known yet."""
    if problem.support is None:
        raise ValueError(f"{problem.environment}: no support; see with_support")
    return problem.support


def query_of(problem: Problem) -> np.ndarray:
    """Numbers of the agents to be tested on, ascending: all that are not support."""
    return np.setdiff1d(np.arange(problem.num_agents), support_of(problem))


def groups_of(problem: Problem) -> np.ndarray | None:
    """Latent groups `[n]` of the agents; None if the family has none."""
    return population(problem).get("group")


def identities(problem: Problem) -> np.ndarray:
    """Labels `[n]` of what can be told apart by what is best with an agent: latent groups with one label
    overlap.

    Of a particle these are the actions that go right or up; another family's groups count as distinct.
    """
    groups = groups_of(problem)
    if groups is None:
        raise ValueError(f"{problem.environment}: its agents have no latent groups")
    if problem.environment != "particle":
        return groups
    # Noise is at most half of the main direction.
    towards_the_target = population(problem)["moves"].sum(-1) > 0
    return towards_the_target @ 2 ** np.arange(towards_the_target.shape[1])
