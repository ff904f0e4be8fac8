"""What each method makes of a population: it trains on a problem, and its actors are evaluated."""

import dataclasses
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np

import caml.config
import caml.learner
import persim.config
import persim.learner
import rl2.config
import rl2.learner
import rmdp.config
import rmdp.learner
from caml.fewshot import Adaptation, Start
from common.protocols import Actor
from common.runs.seeding import stream
from comparison.config import Settings, recipe
from comparison.problem import Curve, FixedHorizon, evaluate_actor, outcome
from envs import Problem
from mpi_utils.comm import Comm
from persim.data import behaviour
from persim.data.trajectories import Follows, log_episodes
from persim.data.transitions import Transitions
from persim.new_agents import NewAgents, first_steps, from_steps
from persim.policy import make_actor
from rmdp.own_dynamics import try_policies

Outcome = dict[str, Any]
POINTS = 8  # of the curve of agents who train a policy each
UPDATES = 5  # of CAML on a new agent, after its start was chosen, that the curve shows
COUNTED = 1  # of them, as in the paper, that the table counts
EPSILON = 0.2  # how often behaviour policies act at random
FEW = 20  # steps of the first point of PerSim's curve
SHIPPED = ("cart_pole", "mountain_car")  # environments with behaviour policies, and rewards as formulas


def run_rl2(problem: Problem, settings: Settings, seed: int, _: int) -> Outcome:
    """One policy with a memory: meta-episodes of agents of the population, then a few episodes with each."""
    found = recipe("rl2", problem.environment, settings.effort)
    num_episodes = found.pop("episodes")
    config = rl2.config.Config(
        environment=problem.environment,
        meta_episode_len=num_episodes * problem.horizon,
        num_features=64,
        meta_episodes_per_policy_update=80,
        meta_episodes_per_learner_batch=20,
        num_epochs=4,
        gamma=0.99,
        gae_lambda=0.95,
        learning_rate=2e-3,
        entropy_coef=0.01,
        seed=seed,
        **found,
    )
    family = FixedHorizon(problem.family, problem.horizon)
    fixed = dataclasses.replace(problem, family=family)
    learner = rl2.learner.Learner(rl2.config.check_config(config), Comm(), fixed)
    train(learner, config.max_iters)
    train_steps = family.steps

    curve: Curve = []
    adapting, evaluated = learner.actor(), learner.actor()
    adapting.reset(problem.num_agents)
    with closing(family.make_vec(problem.rows(slice(None)), stream(seed, "evaluation", 1))) as env:
        observation, reward, done = env.reset()[0], None, None
        for episode in range(num_episodes):
            evaluated.start_from(adapting.remembered(reward, done))
            spent = (family.steps - train_steps) / problem.num_agents
            curve.append((spent, evaluate_actor(problem, evaluated, settings.episodes, seed)))
            for _ in range(problem.horizon if episode + 1 < num_episodes else 0):
                action = adapting.act(observation, reward, done)
                observation, reward, _, done, _ = env.step(action)
    return outcome(
        curve[-1][1],
        train_steps=train_steps,
        new_agent_steps=curve[-1][0],
        policies=1,
        curve=curve,
        facts={"iterations": config.max_iters, "meta_episodes": config.max_iters * 80},
    )


def run_rmdp(problem: Problem, settings: Settings, seed: int, num_policies: int) -> Outcome:
    """k policies; an agent tries each once, those of large groups first, and keeps the best it has tried."""
    learner = make_rmdp("rmdp", problem, settings, seed, num_policies)
    train_steps = train(learner, learner.config.max_iters)["train/env_steps"]
    returns_by, steps_by = try_policies(learner.policies, problem, stream(seed, "evaluation", 1))
    sizes = np.bincount(learner.population.assignment.everyone(), minlength=num_policies)
    curve: Curve = []
    order, groups = np.argsort(-sizes, kind="stable"), None
    for some in range(1, num_policies + 1):
        best = order[returns_by[order[:some]].argmax(0)]
        if groups is None or (best != groups).any():
            groups = best
            returns = evaluate_actor(problem, learner.actor(policy_of=groups), settings.episodes, seed)
        curve.append((steps_by[order[:some]].sum(0).mean() if some > 1 else 0.0, returns))
    return outcome(
        returns,
        train_steps=train_steps,
        new_agent_steps=curve[-1][0],
        policies=num_policies,
        curve=curve,
        groups=groups,
        facts=rmdp_facts(learner.config),
    )


def run_single(problem: Problem, settings: Settings, seed: int, num_policies: int) -> Outcome:
    """r-MDP with one policy for all, which asks nothing of a new agent."""
    learner = make_rmdp("single", problem, settings, seed, num_policies)
    train_steps = train(learner, learner.config.max_iters)["train/env_steps"]
    returns = evaluate_actor(problem, learner.actor(), settings.episodes, seed)
    return outcome(
        returns,
        train_steps=train_steps,
        new_agent_steps=0.0,
        policies=num_policies,
        curve=[(0.0, returns)],
        groups=np.zeros(problem.num_agents, int),
        facts=rmdp_facts(learner.config),
    )


def run_per_agent(problem: Problem, settings: Settings, seed: int, num_policies: int) -> Outcome:
    """r-MDP with a policy for each agent; its training is what is spent on an agent."""
    learner = make_rmdp("per_agent", problem, settings, seed, num_policies)
    curve: Curve = []
    config = learner.config
    checks = set(np.linspace(0, config.max_iters, POINTS).astype(int))
    for i in range(config.max_iters):
        if i in checks:
            returns = evaluate_actor(problem, learner.actor(), settings.episodes, seed)
            curve.append((i * config.steps_per_policy, returns))
        train_steps = learner.train_iteration(i)["train/env_steps"]
    spent = train_steps / problem.num_agents
    curve.append((spent, evaluate_actor(problem, learner.actor(), settings.episodes, seed)))
    return outcome(
        curve[-1][1],
        train_steps=train_steps,
        new_agent_steps=spent,
        policies=num_policies,
        curve=curve,
        groups=learner.population.assignment.everyone(),
        facts=rmdp_facts(config),
    )


def make_rmdp(
    method: str, problem: Problem, settings: Settings, seed: int, num_policies: int
) -> rmdp.learner.Learner:
    """A learner of r-MDP with a method's own settings."""
    found = recipe(method, problem.environment, settings.effort)
    steps, alone = found["steps_per_policy"], method == "per_agent"
    config = dataclasses.replace(
        rmdp.config.Config.defaults({"environment": problem.environment}),
        num_agents=problem.num_agents,
        num_policies=num_policies,
        algorithm="random" if alone else "em",
        policy_network="separate" if alone else "shared",
        num_minibatches=next(m for m in range(steps // 128 or 1, 0, -1) if steps % m == 0),
        num_epochs=6,
        seed=seed,
        **{"warm_start_iters": found["max_iters"] // 4, **found},
    )
    return rmdp.learner.Learner(rmdp.config.check_config(config), Comm(), problem)


def rmdp_facts(config: rmdp.config.Config) -> dict[str, int]:
    """How long r-MDP trained."""
    steps = config.max_iters * config.steps_per_policy
    return {"iterations": config.max_iters, "steps_of_each_policy": steps}


def run_caml(problem: Problem, settings: Settings, seed: int, num_policies: int) -> Outcome:
    """Starts are clustered with half of the agents; each agent's is chosen and updated a few times."""
    found, n = recipe("caml", problem.environment, settings.effort), problem.num_agents
    k = min(num_policies, 10)
    support = np.sort(stream(seed, "assignment").permutation(n)[: -(-n // 2)])
    config = caml.config.check_config(caml.config.Config(num_medoids=k, seed=seed, **found))
    learner = caml.learner.Learner(config, Comm(), dataclasses.replace(problem, support=support))
    # At least one clustering, however short the training.
    train(learner, max(config.max_iters, config.pool_size // config.tasks_per_iteration))

    def returns(actor: Actor) -> np.ndarray:
        return evaluate_actor(problem, actor, settings.episodes, seed)

    start = learner.start()
    with closing(Adaptation(Start(start.policies, np.zeros(n, np.int64)), learner.problem, config)) as first:
        curve: Curve = [(0.0, returns(first.actor()))]
    with closing(Adaptation(start, learner.problem, config)) as adaptation:
        for update in range(UPDATES + 1):
            curve.append((adaptation.steps, returns(adaptation.actor())))
            if update < UPDATES:
                adaptation.update()
    trained_on = np.isin(np.arange(n), support).tolist()
    return outcome(
        curve[1 + COUNTED][1],
        train_steps=learner.env_steps,
        new_agent_steps=curve[1 + COUNTED][0],
        policies=k,
        curve=curve,
        groups=adaptation.index,
        facts={"iterations": config.max_iters, "trained_on": trained_on, "updates": UPDATES},
    )


def run_persim(problem: Problem, settings: Settings, seed: int, _: int) -> Outcome:
    """One logged episode of each agent, a simulator of each, and a planner on it."""
    found, n = recipe("persim", problem.environment, settings.effort), problem.num_agents
    known = problem.environment in SHIPPED
    config = persim.config.Config.defaults({"environment": problem.environment if known else "unknown"})
    config = dataclasses.replace(
        config,
        num_agents=n,
        num_factors=min(config.num_factors, n),
        max_iters=found["max_iters"],
        learn_reward=not known,
        seed=seed,
    )
    config = persim.config.check_config(config, with_data=False)
    data = log(problem, seed)
    logged = dataclasses.replace(problem, environment=config.environment, log=data)
    learner = persim.learner.Learner(config, Comm(), logged)
    train(learner, config.max_iters)

    planning: dict[str, Any] = {
        "horizon": found["horizon"],
        "num_candidates": found["num_candidates"],
        "seed": seed,
    }
    curve: Curve = []
    actor = learner.actor(**planning)
    if n > config.num_factors:  # as if an agent had been seen for a few steps only
        factor = from_steps(learner.simulator, *first_steps(learner.data, FEW))
        new = make_actor(config, problem.family, NewAgents(learner.simulator, factor), **planning)
        curve.append((FEW, evaluate_actor(problem, new, settings.planned, seed)))
    length = len(data) / n
    curve.append((length, evaluate_actor(problem, actor, settings.planned, seed)))
    who = "shipped behaviour policies" if known else "random actions"
    return outcome(
        curve[-1][1],
        train_steps=len(data),
        new_agent_steps=length,
        policies=0,
        curve=curve,
        facts={"logged_by": who, "planned_episodes": settings.planned, **found},
    )


def log(problem: Problem, seed: int) -> Transitions:
    """One episode of each agent under shipped behaviour policies, or random actions where none are shipped.

    Raises `UserError` where those that should be there are missing.
    """
    policy = behaviour.random_policy(problem.family)
    if problem.environment in SHIPPED:
        policy = behaviour.load(problem.family).behaviour(problem.rows(slice(None)), EPSILON)
    follows = Follows(policy, stream(seed, "environment"))
    rng = stream(seed, "environment", 1)
    return log_episodes(problem.family, problem.rows(slice(None)), follows, rng, problem.horizon)


def train(learner: Any, num_iterations: int) -> dict[str, float]:
    """Train; the metrics of the last iteration."""
    metrics: dict[str, float] = {}
    for i in range(num_iterations):
        metrics = learner.train_iteration(i)
    return metrics


Method = Callable[[Problem, Settings, int, int], Outcome]  # the last two: seed, number of policies
METHODS: dict[str, Method] = {
    "rl2": run_rl2,
    "persim": run_persim,
    "caml": run_caml,
    "per_agent": run_per_agent,
    "rmdp": run_rmdp,
    "single": run_single,
}
