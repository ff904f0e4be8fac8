"""What each method makes of a population: it trains on a problem, and its actors are evaluated."""

import dataclasses
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

import caml
import caml.config
import caml.learner
import persim.config
import persim.learner
import rl2.config
import rl2.learner
import rmdp.config
import rmdp.learner
from caml.fewshot import Adaptation, Start
from caml.problem import support_of
from common.errors import UserError
from common.protocols import Actor
from common.runs.seeding import stream
from comparison.config import PATIENTS, recipe
from comparison.problem import GROUP, Curve, Evaluated, Exploring, outcome
from comparison.training import ITERATIONS, POINTS, Training, fitting, train
from envs.one_hot import as_vectors
from mpi_utils.comm import Comm
from persim.data import behaviour
from persim.data.trajectories import Follows, log_episodes
from persim.data.transitions import Transitions
from persim.new_agents import NewAgents, first_steps, from_steps
from persim.policy import make_actor
from rl2.fixed_horizon import FixedHorizon
from rmdp.own_dynamics import SURVEY_INTERVAL, try_policies
from rmdp.problem import shares_dynamics

Outcome = dict[str, Any]
UPDATES = 5  # of CAML on a new agent, after its start was chosen, that the curve shows
ALGORITHMS: dict[str, Any] = {"per_agent": "random", "per_group": "given"}  # of r-MDP's code; em elsewhere
COUNTED = 1  # of them, as in the paper, that the table counts
EPSILON = 0.2  # how often behaviour policies act at random
FEW = 20  # steps of the first point of PerSim's curve
SMALL_MEMORY: dict[str, Any] = {  # RL²'s settings, where its defaults are for the paper's bandits and MDPs
    "num_features": 64,
    "num_epochs": 4,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "learning_rate": 2e-3,
    "entropy_coef": 0.01,
}
FORMULAS = ("cart_pole", "mountain_car")  # environments with rewards that planning knows
SHIPPED = (*FORMULAS, *persim.config.PATIENTS)  # those with behaviour policies


WITHOUT_GROUPS = {  # why, by the number of groups
    0: f"its agents have no groups: no parameter of one number an agent is called {GROUP!r}",
    1: "all agents are of one group",
}


def run_rl2(training: Training) -> Outcome:
    """One policy with a memory: meta-episodes of agents of the population, then a few episodes with each."""
    problem, seed = training.problem, training.seed
    found = recipe("rl2", problem.environment)
    num_episodes, usual = found["episodes"], found["max_iters"]
    length = num_episodes * problem.horizon
    config = rl2.config.Config.defaults({"environment": problem.environment})
    batch, most = found.get("batch", 20), found.get("meta_episodes", 80)
    least = batch * config.meta_episodes_per_start
    num_total = fitting(training.budget // (ITERATIONS * length), least, most) if training.budget else most
    iterations = training.iterations(num_total * length, usual)
    config = dataclasses.replace(
        config,
        **({} if problem.environment in PATIENTS else SMALL_MEMORY),
        meta_episode_len=length,
        episodes=0,  # all episodes last as long
        meta_episodes_per_policy_update=num_total,
        meta_episodes_per_learner_batch=batch,
        max_iters=iterations,
        seed=seed,
    )
    family, tested = (FixedHorizon(problem.family, problem.horizon) for _ in range(2))
    fixed = dataclasses.replace(problem, family=family)
    learner = rl2.learner.Learner(rl2.config.check_config(config), Comm(), fixed)
    shown = np.unique(np.geomspace(1, num_episodes, POINTS).round()) - 1

    def adapt(episodes: np.ndarray, num_tests: int = 0) -> Curve:
        """Returns by the steps of an agent so far, before some of the `episodes` of a meta-episode."""
        tested.steps, curve = 0, []
        adapting, evaluated = learner.actor(), learner.actor()
        adapting.reset(problem.num_agents)
        with closing(tested.make_vec(problem.rows(slice(None)), stream(seed, "evaluation", 1))) as env:
            observation, reward, done = env.reset()[0], None, None
            for episode in range(num_episodes):
                if episode in episodes:
                    evaluated.start_from(adapting.remembered(reward, done))
                    spent = tested.steps / problem.num_agents
                    curve.append((spent, training.test(evaluated, num_tests)))
                for _ in range(problem.horizon if episode + 1 < num_episodes else 0):
                    action = adapting.act(observation, reward, done)
                    observation, reward, _, done, _ = env.step(action)
        return curve

    iterations, steps, learning = train(
        learner,
        iterations,
        lambda _: family.steps,  # those that were taken: an episode that ended early waits for the others
        lambda: adapt(shown[-1:], 1)[0][1],
        training.budget or 0,
        num_total * length,
    )
    training.keep("rl2", config, iterations, learner)
    curve = adapt(shown)
    return outcome(
        curve[-1][1],
        train_steps=steps,
        new_agent_steps=curve[-1][0],
        policies=1,
        curve=curve,
        learning=[*learning, (steps, curve[-1][1])],
        facts={"iterations": iterations, "meta_episodes": iterations * num_total},
    )


def run_rmdp(training: Training) -> Outcome:
    """k policies; an agent tries each once, those of large groups first, and keeps the best it has tried."""
    training, k = with_vectors(training), training.num_policies
    learner, steps, learning = train_rmdp("rmdp", training)
    returns_by, steps_by = try_policies(
        learner.policies, training.problem, stream(training.seed, "evaluation", 1)
    )
    sizes = np.bincount(learner.population.assignment.everyone(), minlength=k)
    curve: Curve = []
    order, groups = np.argsort(-sizes, kind="stable"), None
    for some in range(1, k + 1):
        best = order[returns_by[order[:some]].argmax(0)]
        if groups is None or (best != groups).any():
            groups = best
            tested = training.test(learner.actor(policy_of=groups))
        curve.append((steps_by[order[:some]].sum(0).mean() if some > 1 else 0.0, tested))
    return outcome(
        tested,
        train_steps=steps,
        new_agent_steps=curve[-1][0],
        policies=k,
        curve=curve,
        learning=[*learning, (steps, tested)],
        groups=groups,
        facts=rmdp_facts(learner.config),
    )


def run_single(training: Training) -> Outcome:
    """r-MDP with one policy for all, which asks nothing of a new agent."""
    return run_assigned("single", training)


def run_per_group(training: Training) -> Outcome:
    """r-MDP with a policy for each group; a new agent's is known with its group."""
    return run_assigned("per_group", training)


def run_assigned(method: str, training: Training) -> Outcome:
    """r-MDP with policies that agents have from the start, so that nothing is asked of a new one."""
    training = with_vectors(training)
    learner, steps, learning = train_rmdp(method, training)
    tested = training.test(learner.actor())
    return outcome(
        tested,
        train_steps=steps,
        new_agent_steps=0.0,
        policies=training.num_policies,
        curve=[(0.0, tested)],
        learning=[*learning, (steps, tested)],
        groups=learner.population.assignment.everyone(),
        facts=rmdp_facts(learner.config),
    )


def run_per_agent(training: Training) -> Outcome:
    """r-MDP with a policy for each agent; its training is what is spent on an agent."""
    training, n = with_vectors(training), training.problem.num_agents
    learner, steps, learning = train_rmdp("per_agent", training)
    learning = [*learning, (steps, training.test(learner.actor()))]
    return outcome(
        learning[-1][1],
        train_steps=steps,
        new_agent_steps=steps / n,
        policies=n,
        curve=[(spent / n, tested) for spent, tested in learning],
        learning=learning,
        groups=learner.population.assignment.everyone(),
        facts=rmdp_facts(learner.config),
    )


def with_vectors(training: Training) -> Training:
    """The same with observations that policies of r-MDP can take."""
    family = as_vectors(training.problem.family)
    return dataclasses.replace(training, problem=dataclasses.replace(training.problem, family=family))


def train_rmdp(method: str, training: Training) -> tuple[rmdp.learner.Learner, int, Curve]:
    """A trained learner of r-MDP with a method's own settings; its steps and its learning curve."""
    config = rmdp_config(method, training)
    learner = rmdp.learner.Learner(config, Comm(), training.problem)
    iterations, steps, learning = train(
        learner,
        config.max_iters,
        lambda metrics: metrics["train/env_steps"],
        lambda: training.test(learner.actor(), 1),
    )
    training.keep("rmdp", config, iterations, learner)
    return learner, steps, learning


def rmdp_config(method: str, training: Training) -> rmdp.config.Config:
    """The settings with which a method of r-MDP's code spends the budget: smaller batches if it is small."""
    problem, budget, k = training.problem, training.budget, training.num_policies
    found, alone = recipe(method, problem.environment), method == "per_agent"
    algorithm = ALGORITHMS.get(method, "em")
    defaults = rmdp.config.Config.defaults({"environment": problem.environment})
    usual, num_envs = found["max_iters"], found["envs_per_policy"]
    each = found["steps_per_policy"] // num_envs  # steps of an environment in an iteration
    if not shares_dynamics(problem):
        each = max(each, problem.horizon)  # begin anew in each iteration, and are to see whole episodes
    while (
        budget is not None
        and num_envs > defaults.envs_per_start
        and k * num_envs * each * ITERATIONS > budget
    ):
        num_envs //= 2
    steps, minibatch = num_envs * each, found.get("minibatch", 128)
    iterations = training.iterations(k * steps, usual)
    surveyed = not shares_dynamics(problem) and 1 < k and algorithm == "em"
    while budget is not None and surveyed and iterations > 1:
        surveys = iterations // SURVEY_INTERVAL - (iterations // 4) // SURVEY_INTERVAL + 1
        if (iterations * steps + surveys * problem.num_agents * problem.horizon) * k <= budget:
            break
        iterations -= 1
    config = dataclasses.replace(
        defaults,
        num_agents=problem.num_agents,
        num_policies=k,
        population=training.settings.population,
        max_episode_len=0 if problem.horizon == problem.family.max_episode_len else problem.horizon,
        algorithm=algorithm,
        assign_by=GROUP if algorithm == "given" else "",
        policy_network="separate" if alone else defaults.policy_network,
        max_iters=iterations,
        warm_start_iters=iterations // 4,
        steps_per_policy=steps,
        envs_per_policy=num_envs,
        num_minibatches=next(m for m in range(steps // minibatch or 1, 0, -1) if steps % m == 0),
        num_epochs=found.get("num_epochs", 6),
        seed=training.seed,
    )
    return rmdp.config.check_config(config)


def rmdp_facts(config: rmdp.config.Config) -> dict[str, int]:
    """How long r-MDP trained."""
    steps = config.max_iters * config.steps_per_policy
    return {"iterations": config.max_iters, "steps_of_each_policy": steps}


def run_caml(training: Training) -> Outcome:
    """Starts are clustered with half of the agents; each agent's is chosen and updated a few times."""
    problem, n = training.problem, training.problem.num_agents
    config, most = caml_config(training)
    learner = caml.learner.Learner(config, Comm(), problem)

    def look() -> Evaluated | None:
        if not len(learner.medoids["agent"]):
            return None
        with closing(Adaptation(learner.start(), learner.problem, config)) as adaptation:
            adaptation.update()
        return training.test(adaptation.actor(), 1)

    iterations, steps, learning = train(
        learner,
        config.max_iters,
        lambda metrics: metrics["train/env_steps"],
        look,
        training.budget or 0,
        most,
    )
    training.keep("caml", config, iterations, learner)
    start = learner.start()
    with closing(Adaptation(Start(start.policies, np.zeros(n, np.int64)), learner.problem, config)) as first:
        curve: Curve = [(0.0, training.test(first.actor()))]
    with closing(Adaptation(start, learner.problem, config)) as adaptation:
        for update in range(UPDATES + 1):
            curve.append((adaptation.steps, training.test(adaptation.actor())))
            if update < UPDATES:
                adaptation.update()
    spent, tested = curve[1 + COUNTED]
    support = np.isin(np.arange(n), support_of(learner.problem)).tolist()
    return outcome(
        tested,
        train_steps=steps,
        new_agent_steps=spent,
        policies=config.num_medoids,
        curve=curve,
        learning=[*learning, (steps, tested)],
        groups=adaptation.index,
        facts={"iterations": iterations, "trained_on": support, "updates": UPDATES},
    )


def caml_config(training: Training) -> tuple[caml.config.Config, int]:
    """CAML's settings, and the most steps of an iteration: fewer agents at once if the budget is small."""
    problem, budget, n = training.problem, training.budget, training.problem.num_agents
    found = recipe("caml", problem.environment)
    usual, updates = found["max_iters"], found["updates_per_task"]
    num_rollouts, num_tasks = caml.config.Config.num_rollouts, caml.config.Config.tasks_per_iteration
    each = (updates + 2) * num_rollouts * problem.horizon  # K episodes to choose, before and after updates
    while budget is not None and num_tasks > 6 and num_tasks * each * ITERATIONS > budget:
        num_tasks //= 2
    training.iterations(2 * num_tasks * each, usual)  # a clustering takes two
    config = dataclasses.replace(
        caml.config.Config.defaults({"environment": problem.environment}),
        num_groups=1,
        num_variants=n,
        num_support=n // 2,
        split="random",
        max_episode_len=problem.horizon,
        tasks_per_iteration=num_tasks,
        pool_size=2 * num_tasks,
        num_medoids=min(training.num_policies, num_rollouts, 2 * num_tasks),
        max_iters=training.iterations(num_tasks * each, usual),
        updates_per_task=updates,
        seed=training.seed,
    )
    return caml.config.check_config(config), num_tasks * each


def run_persim(training: Training) -> Outcome:
    """One logged episode of each agent, a simulator of each, and a planner on it."""
    problem, seed, n = training.problem, training.seed, training.problem.num_agents
    found, known = recipe("persim", problem.environment), problem.environment in SHIPPED
    data, log_steps, who = make_log(training)
    config = persim.config.Config.defaults({"environment": problem.environment if known else "unknown"})
    config = dataclasses.replace(
        config,
        num_agents=n,
        num_factors=min(config.num_factors, n),
        max_iters=training.settings.simulator_iters or found["max_iters"],
        learn_reward=problem.environment not in FORMULAS,
        seed=seed,
    )
    if training.folder:
        config = dataclasses.replace(config, dataset=f"{training.folder}/log.npz")
        Path(training.folder).mkdir(parents=True, exist_ok=True)
        data.save(config.dataset)
    config = persim.config.check_config(config, with_data=False)
    logged = dataclasses.replace(problem, environment=config.environment, log=data)
    learner = persim.learner.Learner(config, Comm(), logged)
    for i in range(config.max_iters):  # takes no steps
        learner.train_iteration(i)
    training.keep("persim", config, config.max_iters, learner)

    planning: dict[str, Any] = {
        "horizon": found["horizon"],
        "num_candidates": found["num_candidates"],
        "seed": seed,
    }
    curve: Curve = []
    planned = training.settings.planned
    if n > config.num_factors:  # as if an agent had been seen for a few steps only
        factor = from_steps(learner.simulator, *first_steps(learner.data, FEW))
        new = make_actor(config, problem.family, NewAgents(learner.simulator, factor), **planning)
        curve.append((FEW, training.test(new, planned)))
    actor = make_actor(config, problem.family, learner.simulator, **planning)
    curve.append((len(data) / n, training.test(actor, planned)))
    return outcome(
        curve[-1][1],
        train_steps=log_steps,
        new_agent_steps=len(data) / n,
        policies=0,
        curve=curve,
        learning=[(log_steps, curve[-1][1])],
        facts={"logged_by": who, "planned_episodes": planned, **found},
    )


def make_log(training: Training) -> tuple[Transitions, int, str]:
    """One episode of each agent, the steps that it took, those of training who acts included, and who acts.

    Raises `UserError` where policies that should be there are missing.
    """
    problem, seed, behaviour_of = training.problem, training.seed, training.settings.behaviour
    if behaviour_of == "auto":
        behaviour_of = "shipped" if problem.environment in SHIPPED else "single"
    agents, rng = problem.rows(slice(None)), stream(seed, "environment")
    steps = 0
    actor: Actor = Follows(behaviour.random_policy(problem.family), rng)
    who = "random actions"
    if behaviour_of == "shipped":
        shipped = behaviour.load(problem.family)
        who, actor = shipped.about, Follows(shipped.behaviour(agents, EPSILON), rng)
    elif behaviour_of == "single":
        who = "one policy for all, a fifth of its actions random"
        training = dataclasses.replace(training, num_policies=1, folder="")
        settings, budget = training.settings, training.budget
        if budget is not None:
            left = budget - problem.num_agents * problem.horizon
            training = dataclasses.replace(training, settings=dataclasses.replace(settings, budget=left))
        learner, steps, _ = train_rmdp("single", with_vectors(training))
        actor = Exploring(learner.actor(), problem.family.action_space, EPSILON, rng)
    data = log_episodes(problem.family, agents, actor, stream(seed, "environment", 1), problem.horizon)
    return data, steps + len(data), who


def serves(method: str, training: Training) -> str:
    """Why a method cannot serve the population, in a line; "" if it can."""
    problem, n = training.problem, training.problem.num_agents
    if method == "persim":
        if isinstance(problem.family.observation_space, Discrete):
            return "its simulators predict numbers, and observations are categories here"
        if training.settings.behaviour == "shipped" and problem.environment not in SHIPPED:
            return f"--behaviour shipped: policies come with {', '.join(SHIPPED)} only; give another"
    if method == "per_group" and not 1 < training.num_policies < n:
        return WITHOUT_GROUPS.get(training.num_policies, "each agent is a group of its own")
    if method == "caml" and n < 2:
        return "it trains on one half of the agents, and there is one"
    try:
        if method == "caml":
            caml_config(training)
        elif method in ("rmdp", "single", "per_group", "per_agent"):
            rmdp_config(method, with_vectors(training))
        elif method == "rl2":
            length = recipe("rl2", problem.environment)["episodes"] * problem.horizon
            training.iterations(20 * length, 1)
        elif method == "persim":
            training.iterations(n * problem.horizon, 1)
    except UserError as error:
        return str(error)
    return ""


Method = Callable[[Training], Outcome]
METHODS: dict[str, Method] = {
    "rl2": run_rl2,
    "persim": run_persim,
    "caml": run_caml,
    "per_agent": run_per_agent,
    "rmdp": run_rmdp,
    "per_group": run_per_group,
    "single": run_single,
}
