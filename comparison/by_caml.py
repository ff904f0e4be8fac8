"""CAML on a population: clustered starts from half of the agents, a few updates on each."""

import numpy as np
import torch

from caml.adapt import make_optimiser, update
from caml.config import Config, check_config
from caml.learner import Learner
from caml.medoid_selection import mean_returns, take_turns
from caml.rollout import Actors, inputs
from caml.tasks import Types
from common.runs.seeding import stream
from comparison.config import CAML, recipe
from comparison.problem import People, outcome, test
from mpi_utils.comm import Comm

UPDATES = 5  # on a new agent, after its start was chosen, that the curve shows
COUNTED = 1  # of them, as in the paper, that the table counts


def run(people: People, settings, seed: int) -> dict:
    """Train on the support half, choose a start for each agent, update it a few times, test."""
    found = recipe(CAML, people.environment, "max_iters", settings.effort)
    k = min(settings.num_policies, 10, people.n)
    order = stream(seed, "assignment").permutation(people.n)
    support, query = np.sort(order[: -(-people.n // 2)]), np.sort(order[-(-people.n // 2) :])
    config = Config(
        environment=people.environment,
        num_groups=1,
        num_variants=max(people.n, 2),
        num_support=max(1, min(len(support), people.n - 1)),
        split="random",
        max_episode_len=people.horizon,
        num_medoids=k,
        seed=seed,
        **found,
    )
    # At least one clustering, however short the training.
    config = check_config(config)
    learner = Learner(config, Comm())
    learner.family = people.family
    learner.types = Types(people.parameters, None, support, query)
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


def adapt(people: People, learner, settings, seed: int):
    """The curve of returns over steps with each agent, and the medoid from which each started."""
    config, n, medoids = learner.config, people.n, learner.policies(learner.medoids)
    actors = Actors(people.family, people.parameters, config, 2**31)
    pulls = actors.play(take_turns(medoids, n, config.num_rollouts))
    start = mean_returns(pulls, n, len(medoids)).argmax(1)
    policies = medoids.take(torch.from_numpy(start))
    optimiser = make_optimiser(policies, config.learning_rate)
    first = medoids.take(torch.zeros(n, dtype=torch.long))
    curve = [(0.0, tested(people, first, settings, seed))]
    for u in range(UPDATES + 1):
        curve.append((actors.num_steps.mean(), tested(people, policies, settings, seed)))
        if u < UPDATES:
            update(policies, optimiser, actors.play(policies), config)
    actors.close()
    return curve, start


def tested(people: People, policies, settings, seed: int) -> np.ndarray:
    """Returns [n, E] of a policy for each agent, with its most likely actions."""
    space = people.family.observation_space

    @torch.no_grad()
    def act(observation, reward, running):
        x = torch.from_numpy(inputs(observation, space)).view(settings.episodes, people.n, -1).transpose(0, 1)
        return policies(x.contiguous()).argmax(-1).T.reshape(-1).numpy()

    return test(people, act, settings.episodes, seed)[0]
