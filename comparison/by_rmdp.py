"""r-MDP on a population: k policies, one for all (k = 1), or one for each (k = n)."""

import dataclasses

import numpy as np

from common.runs.seeding import stream
from comparison.config import PER_AGENT, RMDP, recipe
from comparison.problem import People, outcome, test
from envs import Problem
from mpi_utils.comm import Comm
from rmdp.config import Config, check_config
from rmdp.learner import Learner
from rmdp.own_dynamics import try_policies

POINTS = 8  # of the curve of agents who train a policy each


def run(people: People, settings, seed: int, num_policies: int, each: bool = False) -> dict:
    """Train and test; `each`: every agent has a policy of its own, which is all that is spent on it."""
    found = recipe(PER_AGENT if each else RMDP, people.environment, "max_iters", settings.effort)
    steps = found["steps_per_policy"]
    config = dataclasses.replace(
        Config.defaults({"environment": people.environment}),
        num_agents=people.n,
        num_policies=num_policies,
        algorithm="random" if each else "em",
        policy_network="separate" if each else "shared",
        num_minibatches=next(m for m in range(steps // 128 or 1, 0, -1) if steps % m == 0),
        num_epochs=6,
        seed=seed,
        **{"warm_start_iters": found["max_iters"] // 4} | found,
    )
    problem = Problem(people.environment, people.family, people.parameters, people.horizon)
    learner = Learner(check_config(config), Comm(), problem)
    k, spent, curve = num_policies, 0.0, []
    checks = set(np.linspace(0, config.max_iters, POINTS).astype(int)) if each else ()
    for i in range(config.max_iters):
        if i in checks:
            curve.append((i * config.steps_per_policy, tested(people, learner, None, settings, seed)))
        metrics = learner.train_iteration(i)
    train_steps = metrics["train/env_steps"]
    if each:
        returns = tested(people, learner, None, settings, seed)
        spent, groups = train_steps / people.n, learner.population.assignment.everyone()
    elif k == 1:
        returns, groups = tested(people, learner, None, settings, seed), np.zeros(people.n, int)
    else:
        returns, groups, spent, curve = tried(people, learner, settings, seed)
    curve = [*curve, (spent, returns)]
    facts = {
        "iterations": config.max_iters,
        "steps_of_each_policy": config.max_iters * config.steps_per_policy,
    }
    return outcome(
        returns,
        train_steps=train_steps,
        new_agent_steps=spent,
        policies=k,
        curve=curve,
        groups=groups,
        facts=facts,
    )


def tried(people: People, learner, settings, seed: int):
    """Each agent tries policies once, those of large groups first, and keeps the best of those tried.

    Returns, groups, steps of an agent and the curve over the number of policies tried.
    """
    trial, steps = try_policies(learner.policies, learner.problem, stream(seed, "evaluation", 1))
    sizes = np.bincount(learner.population.assignment.everyone(), minlength=learner.policies.num_policies)
    order, curve, returns, best = np.argsort(-sizes, kind="stable"), [], None, None
    for some in range(1, learner.policies.num_policies + 1):
        now = order[trial[order[:some]].argmax(0)]
        if best is None or (now != best).any():
            best, returns = now, tested(people, learner, now, settings, seed)
        curve.append((steps[order[:some]].sum(0).mean() if some > 1 else 0.0, returns))
    return returns, best, curve[-1][0], curve[:-1]


def tested(people: People, learner, policy_of, settings, seed: int) -> np.ndarray:
    """Returns [n, E] where agent i has the policy `policy_of[i]`, by default its own; exploration off."""
    actor = learner.actor(policy_of=policy_of)
    actor.reset(people.n * settings.episodes)
    return test(people, lambda seen, reward, running: actor.act(seen), settings.episodes, seed)[0]
