"""Speed of an iteration of r-MDP; see benchmarks.throughput."""

import dataclasses
import resource
import time

import numpy as np

from rmdp.learner import Learner
from rmdp.problem import make_problem

# The authors' code, seconds an iteration on one core: HalfCheetah, 100 agents (algorithm, policies).
AUTHORS = {("em", 5): 1.71, ("end_to_end", 5): 2.92, ("em", 50): 9.56}


def measure(config, comm) -> dict:
    """One iteration to warm up, five measured; the median counts. EM without its warm start, 5 % of a run."""
    config = dataclasses.replace(config, warm_start_iters=0)
    learner = Learner(config, comm, make_problem(config, comm))
    learner.train_iteration(0)
    measured = []
    for i in range(1, 6):
        metrics = learner.train_iteration(i)
        spent = np.array([metrics["time/collect_s"], metrics["time/update_s"]])
        measured.append(comm.allreduce_(spent, op="max"))
    collect, update = np.median(measured, axis=0)
    physics = bare_environment(learner, config.steps_per_policy // config.envs_per_policy)
    physics = float(comm.allreduce_(np.array([physics]), op="max")[0])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    memory = float(comm.allreduce_(np.array([memory]), op="max")[0])
    result = {
        "iteration_s": round(collect + update, 3),
        "collect_s": round(collect, 3),
        "update_s": round(update, 3),
        "environment_s": round(physics, 3),
        "environment_share": round(physics / (collect + update), 3),
        "env_steps_per_s": round(config.num_policies * config.steps_per_policy / (collect + update)),
        "peak_memory_per_rank_gib": round(memory, 2),
        "ranks": comm.size,
    }
    authors = AUTHORS.get((config.algorithm, config.num_policies))
    if authors and (config.environment, config.num_agents) == ("half_cheetah", 100):
        result |= {"authors_code_s": authors, "times_faster": round(authors / (collect + update), 2)}
    names = (
        "environment",
        "algorithm",
        "num_agents",
        "num_policies",
        "policy_network",
        "steps_per_policy",
        "envs_per_policy",
        "num_epochs",
        "num_minibatches",
    )
    return result | {"settings": {name: getattr(config, name) for name in names}}


def bare_environment(learner, num_steps: int) -> float:
    """Seconds that this rank's environments alone take for an iteration, with random actions."""
    env = learner.population.environments.env
    if env is None:
        return 0.0
    space, rng = learner.problem.family.action_space, np.random.default_rng(0)
    actions: np.ndarray
    if learner.policies.discrete:
        actions = rng.integers(0, space.n, (num_steps, env.num_envs))
    else:
        actions = rng.uniform(space.low, space.high, (num_steps, env.num_envs, *space.shape))
    began = time.perf_counter()
    for action in actions:
        env.step(action)
    return time.perf_counter() - began
