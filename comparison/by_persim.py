"""PerSim on a population: one logged trajectory of each agent, a simulator of each, a planner on it."""

import dataclasses

import numpy as np

from common.runs.seeding import stream
from comparison.config import PERSIM, recipe
from comparison.problem import People, outcome, test
from envs.problem import Problem
from mpi_utils.comm import Comm
from persim.config import Config, check_config
from persim.data import behaviour
from persim.data.trajectories import Follows, log_episodes
from persim.data.transitions import Transitions
from persim.learner import Learner
from persim.new_agents import NewAgents, first_steps, from_steps
from persim.policy import Actor, make_actor

EPSILON = 0.2  # how often the behaviour policies act at random
FEW = 20  # steps of the curve's first point
KNOWN = ("cart_pole", "mountain_car")  # whose rewards PerSim has as formulas, and whose behaviour is shipped


def run(people: People, settings, seed: int) -> dict:
    """Log each agent once, learn all simulators together, plan on them in the agents' own environments."""
    found = recipe(PERSIM, people.environment, "max_iters", settings.effort)
    known = people.environment in KNOWN
    data = log(people, seed)
    config = Config.defaults({"environment": people.environment if known else "unknown"})
    config = dataclasses.replace(
        config,
        num_agents=people.n,
        num_factors=min(config.num_factors, people.n),
        max_iters=found["max_iters"],
        learn_reward=not known,
        seed=seed,
    )
    problem = Problem(config.environment, people.family, people.parameters, people.horizon, log=data)
    learner = Learner(check_config(config, with_data=False), Comm(), problem)
    for i in range(config.max_iters):
        learner.train_iteration(i)

    planning = {"horizon": found["horizon"], "num_candidates": found["num_candidates"], "seed": seed}
    lengths, actor = np.bincount(data.agent, minlength=people.n), learner.actor(**planning)
    curve = []
    if people.n > config.num_factors:  # as if an agent had been seen for a few steps only
        factor = from_steps(learner.simulator, *first_steps(learner.data, FEW))
        new = make_actor(config, people.family, NewAgents(learner.simulator, factor), **planning)
        curve.append((FEW, returns(people, new, settings, seed)))
    curve.append((lengths.mean(), returns(people, actor, settings, seed)))
    who = "shipped behaviour policies" if known else "random actions"
    return outcome(
        curve[-1][1],
        train_steps=len(data),
        new_agent_steps=lengths.mean(),
        policies=0,
        curve=curve,
        facts={"logged_by": who, "planned_episodes": settings.planned, **found},
    )


def log(people: People, seed: int) -> Transitions:
    """One episode of each agent under shipped behaviour policies, or random actions where none are shipped.

    Raises `UserError` where those that should be there are missing.
    """
    if people.environment in KNOWN:
        policy = behaviour.load(people.family).behaviour(people.parameters, EPSILON)
    else:
        policy = behaviour.random_policy(people.family)
    follows = Follows(policy, stream(seed, "environment"))
    rng = stream(seed, "environment", 1)
    return log_episodes(people.family, people.parameters, follows, rng, people.horizon)


def returns(people: People, actor: Actor, settings, seed: int) -> np.ndarray:
    """Returns [n, E] of the first planned starts."""
    actor.reset(people.n * settings.planned)

    def act(observation, reward, running):
        return actor.act(observation, reward, None, running)

    return test(people, act, settings.planned, seed)[0]
