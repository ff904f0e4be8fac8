"""CAML on a population: clustered starts from half of the agents, a few updates on each."""

import numpy as np

from caml.config import Config, check_config
from caml.fewshot import Adaptation, Start
from caml.learner import Learner
from caml.policy import Actor
from common.runs.seeding import stream
from comparison.config import CAML, recipe
from comparison.problem import People, outcome, test
from envs.problem import Problem
from mpi_utils.comm import Comm

UPDATES = 5  # on a new agent, after its start was chosen, that the curve shows
COUNTED = 1  # of them, as in the paper, that the table counts


def run(people: People, settings, seed: int) -> dict:
    """Train on the support half, choose a start for each agent, update it a few times, test."""
    found = recipe(CAML, people.environment, "max_iters", settings.effort)
    k = min(settings.num_policies, 10, people.n)
    support = np.sort(stream(seed, "assignment").permutation(people.n)[: -(-people.n // 2)])
    config = check_config(Config(num_medoids=k, seed=seed, **found))
    problem = Problem(people.environment, people.family, people.parameters, people.horizon, support)
    learner = Learner(config, Comm(), problem)
    # At least one clustering, however short the training.
    for i in range(max(config.max_iters, config.pool_size // config.tasks_per_iteration)):
        learner.train_iteration(i)
    curve, groups = adapt(people, learner, settings, seed)
    each = np.zeros(people.n, bool)
    each[support] = True
    facts = {"iterations": config.max_iters, "trained_on": each.tolist(), "updates": UPDATES}
    steps, returns = curve[1 + COUNTED]
    return outcome(
        returns,
        train_steps=learner.env_steps,
        new_agent_steps=steps,
        policies=k,
        curve=curve,
        groups=groups,
        facts=facts,
    )


def adapt(people: People, learner: Learner, settings, seed: int):
    """The curve of returns over steps with each agent, and the medoid from which each started."""
    start = learner.start()
    adaptation = Adaptation(start, learner.problem, learner.config)
    unadapted = Start(start.policies, np.zeros(people.n, np.int64))
    first = Adaptation(unadapted, learner.problem, learner.config).actor()
    curve = [(0.0, tested(people, first, settings, seed))]
    for u in range(UPDATES + 1):
        curve.append((adaptation.steps, tested(people, adaptation.actor(), settings, seed)))
        if u < UPDATES:
            adaptation.update()
    adaptation.close()
    return curve, adaptation.index


def tested(people: People, actor: Actor, settings, seed: int) -> np.ndarray:
    """Returns [n, E] of a policy for each agent, with its most likely actions."""
    return test(people, lambda seen, *_: actor.act(seen), settings.episodes, seed)[0]
