"""Speed of CAML's adaptation and divergences; see benchmarks.throughput."""

import dataclasses
import time

import numpy as np

from caml.adapt import make_optimiser, update
from caml.divergence import policy_divergences
from caml.learner import Learner
from caml.policy import Policies, num_weights
from caml.problem import make_problem
from caml.rollout import Rollouts, Trajectories
from common.errors import UserError

NUM_POLICIES = 200  # of the matrix of divergences
ROUNDS = 5


def measure(config, comm) -> dict:
    """Environment steps per second of adaptation: an iteration's agents at once, one agent after another with
    its episodes at once, and one episode after another, as the author's code plays.

    Adaptation is one update: `num_rollouts` episodes of each agent and a step of the optimiser. The three
    take turns, medians count. Seconds are the processor's, as the comparison is about one core and one rank.
    """
    if comm.size > 1:
        raise UserError("throughput caml compares on one core: start it without mpirun")
    learner = Learner(config, comm, make_problem(config, comm))
    support = learner.problem.support
    assert support is not None
    agents = support[np.arange(config.tasks_per_iteration) % config.num_support]
    methods = (all_at_once, one_task_at_a_time, one_episode_at_a_time)
    for method in methods:
        method(learner, agents[:2])
    rates: dict[str, list[float]] = {method.__name__: [] for method in methods}
    for _ in range(ROUNDS):
        for method in methods:
            began = time.process_time()
            steps = method(learner, agents)
            rates[method.__name__].append(steps / (time.process_time() - began))
    rate = {name: float(np.median(values)) for name, values in rates.items()}
    learner.train_iteration(0)
    iterations = [
        learner.train_iteration(i) for i in range(1, 2 * config.pool_size // config.tasks_per_iteration)
    ]
    names = (
        "environment",
        "variant",
        "tasks_per_iteration",
        "num_rollouts",
        "max_episode_len",
        "num_features",
    )
    return {
        "adaptation_steps_per_s": round(rate["all_at_once"]),
        **{f"{name}_steps_per_s": round(rate[name]) for name in list(rate)[1:]},
        "times_one_task_at_a_time": round(rate["all_at_once"] / rate["one_task_at_a_time"], 1),
        "times_one_episode_at_a_time": round(rate["all_at_once"] / rate["one_episode_at_a_time"], 1),
        "iteration_s": round(
            float(np.median([m["time/adapt_s"] + m["time/cluster_s"] for m in iterations])), 3
        ),
        f"divergences_of_{NUM_POLICIES}_s": round(divergence_seconds(learner), 3),
        "settings": {name: getattr(config, name) for name in names},
    }


def adapt(learner: Learner, agents: np.ndarray) -> int:
    """One update of fresh policies on all `agents` at once; returns the steps played."""
    config, policies = learner.config, fresh(learner, len(agents))
    rollouts = Rollouts(learner.problem, agents, config)
    update(policies, make_optimiser(policies, config.learning_rate), rollouts.play(policies), config)
    rollouts.close()
    return int(rollouts.num_steps.sum())


def all_at_once(learner: Learner, agents: np.ndarray) -> int:
    """All agents side by side."""
    return adapt(learner, agents)


def one_task_at_a_time(learner: Learner, agents: np.ndarray) -> int:
    """One agent after another, its episodes side by side."""
    return sum(adapt(learner, agents[[j]]) for j in range(len(agents)))


def one_episode_at_a_time(learner: Learner, agents: np.ndarray) -> int:
    """Each episode in an environment of its own; one update with all of an agent's episodes."""
    config, steps = learner.config, 0
    single = dataclasses.replace(config, num_rollouts=1)
    for j in range(len(agents)):
        policies, played = fresh(learner, 1), []
        rollouts = Rollouts(learner.problem, agents[[j]], single)
        for _ in range(config.num_rollouts):
            played.append(rollouts.play(policies))
        rollouts.close()
        update(policies, make_optimiser(policies, config.learning_rate), together(played), config)
        steps += int(rollouts.num_steps.sum())
    return steps


def together(played: list[Trajectories]) -> Trajectories:
    """Trajectories of one policy side by side, the shorter ones filled up."""
    longest = max(len(episodes.reward) for episodes in played)
    columns = {}
    for field in dataclasses.fields(Trajectories):
        values = [getattr(episodes, field.name) for episodes in played]
        if field.name == "final_observation":
            columns[field.name] = np.concatenate(values, axis=1)
            continue
        rest = [[(0, longest - len(value))] + [(0, 0)] * (value.ndim - 1) for value in values]
        columns[field.name] = np.concatenate(
            [np.pad(value, pad) for value, pad in zip(values, rest, strict=True)], axis=2
        )
    return Trajectories(**columns)


def fresh(learner: Learner, num_policies: int) -> Policies:
    """Policies of random weights."""
    uniform = np.random.default_rng(0).random((num_policies, num_weights(*learner.sizes)), np.float32)
    return Policies.fresh(uniform, *learner.sizes, activation=learner.config.activation)


def divergence_seconds(learner: Learner) -> float:
    """Seconds for the divergences of `NUM_POLICIES` policies from trajectories of the run's length."""
    rng, config = np.random.default_rng(0), learner.config
    policies = fresh(learner, NUM_POLICIES)
    shape = (NUM_POLICIES, config.max_episode_len, learner.sizes[0])
    trajectories = list(rng.standard_normal(shape).cumsum(1))
    seconds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        policy_divergences(trajectories, policies.probabilities, config.num_states, rng, config.bandwidth)
        seconds.append(time.process_time() - began)
    return float(np.median(seconds))
