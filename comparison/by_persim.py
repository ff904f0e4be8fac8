"""PerSim on a population: one logged trajectory of each agent, a simulator of each, a planner on it."""

import numpy as np
import torch

from common.errors import UserError
from common.runs.seeding import stream
from comparison.config import PERSIM, recipe
from comparison.problem import People, outcome, test
from mpi_utils.comm import Comm
from persim import new_agents
from persim.config import NETWORKS, Config, check_config
from persim.data import behaviour
from persim.data.transitions import Transitions
from persim.learned_reward import with_earned
from persim.learner import Learner
from persim.planning import planner
from persim.planning.lookup_table import tabulate

EPSILON = 0.2  # how often the behaviour policies act at random
FEW = 20  # steps of the curve's first point


def run(people: People, settings, seed: int) -> dict:
    """Log each agent once, learn all simulators together, plan on them in the agents' own worlds."""
    found = recipe(PERSIM, people.environment, "max_iters", settings.effort)
    known = people.environment in ("cart_pole", "mountain_car")
    data = log(people, seed)
    name = people.environment if known else "unknown"
    factors = min(NETWORKS[name]["num_factors"], people.n)
    config = Config(
        environment=name,
        num_agents=people.n,
        num_factors=factors,
        max_iters=found["max_iters"],
        learn_reward=not known,
        seed=seed,
    )
    config = check_config(config, with_data=False)
    learner = Learner(config, Comm(), with_earned(data) if config.learn_reward else data)
    for i in range(config.max_iters):
        learner.train_iteration(i)
    learner.measure_noise()

    acting = Acting(people, config, found, seed)
    lengths = np.bincount(data.agent, minlength=people.n)
    curve = []
    if people.n > factors:  # as if an agent had been seen for a few steps only
        curve.append((FEW, acting(New(learner.simulator, first_steps(learner.data, people.n)), settings)))
    table = tabulate(learner.simulator, acting.family, np.arange(people.n)) if known else learner.simulator
    curve.append((lengths.mean(), acting(table, settings)))
    who = "shipped behaviour policies" if shipped(people) else "random actions"
    facts = {"logged_by": who, "planned_episodes": settings.planned} | found
    return outcome(
        curve[-1][1],
        train_steps=len(data),
        new_agent_steps=lengths.mean(),
        policies=0,
        curve=curve,
        facts=facts,
    )


def shipped(people: People) -> bool:
    """Whether behaviour policies of this environment are shipped."""
    if people.environment not in ("cart_pole", "mountain_car"):
        return False
    try:
        behaviour.load(people.family)
    except UserError:
        return False
    return True


def log(people: People, seed: int) -> Transitions:
    """One episode of each agent under shipped behaviour policies, else random actions."""
    family, rng = people.family, stream(seed, "environment")
    if shipped(people):
        policy = behaviour.load(family).behaviour(people.parameters, EPSILON)
    else:
        policy = behaviour.random_policy(family)
    env, n = family.make_vec(people.parameters, stream(seed, "environment", 1)), people.n
    seen, running, rows = np.asarray(env.reset()[0], np.float32), np.ones(n, bool), []
    for t in range(people.horizon):
        action = policy(seen, rng)
        following, reward, terminated, truncated, infos = env.step(action)
        ended = terminated | truncated
        after = np.array(following, np.float32)
        if ended.any():
            after[ended] = np.stack(list(infos["final_obs"][ended]))
        agent = np.flatnonzero(running)
        rows.append((agent, np.full(len(agent), t), *(a[running] for a in (seen, action, reward, after))))
        seen, running = np.asarray(following, np.float32), running & ~ended
        if not running.any():
            break
    env.close()
    agent, time, state, action, reward, after = (np.concatenate(part) for part in zip(*rows, strict=True))
    order = np.lexsort((time, agent))
    states = [f"state_{d}" for d in range(state.shape[1])]
    return Transitions(
        names=[str(i) for i in range(n)],
        agent=agent[order],
        time=time[order],
        state=state[order].astype(np.float32),
        action=action[order].astype(np.int64),
        reward=reward[order].astype(np.float32),
        next_state=after[order].astype(np.float32),
        state_names=states,
        action_names=["action"],
    )


class Acting:
    """Plans for all agents in `test`'s episodes, by random shooting on a model of each."""

    def __init__(self, people: People, config, found: dict, seed: int):
        self.people, self.config, self.seed = people, config, seed
        self.family = Earned(people.family) if config.learn_reward else people.family
        authors = planner.AUTHORS.get(self.family.name, planner.Settings())
        changed = {name: found[name] for name in ("horizon", "num_candidates")}
        self.settings = planner.Settings(**vars(authors) | changed)

    def __call__(self, model, settings) -> np.ndarray:
        """Returns [n, E] of the first planned starts."""
        n, episodes = self.people.n, settings.planned
        plans = planner.make_planner(self.family, n * episodes, self.seed, self.settings)

        def act(observation, reward, running):
            action, rows = np.zeros(len(running), np.int64), np.flatnonzero(running)
            state = observation[rows].astype(np.float64)
            if self.config.learn_reward:
                state = np.concatenate([state, np.zeros((len(rows), 1))], axis=1)
            action[rows] = plans.plan(model, rows % n, state, rows)
            return action

        return test(self.people, act, episodes, self.seed)[0]


class Earned:
    """A family for the planner where rewards are learnt as one more state; no end is foreseen."""

    def __init__(self, family):
        self.name, self.action_space = "earned", family.action_space
        self.observation_space = family.observation_space

    def reward(self, state, action, next_state):
        return next_state[..., -1] - state[..., -1]

    def terminated(self, next_state):
        return torch.zeros(next_state.shape[:-1], dtype=torch.bool)


class New:
    """Models of agents whose factors come from a few of their steps."""

    def __init__(self, simulator, steps):
        self.simulator = simulator
        self.factor = new_agents.from_steps(simulator, *steps)

    def at(self, agents):
        return self.simulator.at(factor=self.factor[:, agents])


def first_steps(data: Transitions, n: int):
    """The first `FEW` steps of each agent, as `new_agents.from_steps` takes them."""
    d = data.state.shape[1]
    state, following = np.zeros((2, n, FEW, d), np.float32)
    action, counts = np.zeros((n, FEW), np.int64), np.zeros((n, FEW), bool)
    rows = np.flatnonzero(data.time < FEW)
    place = data.agent[rows], data.time[rows]
    state[place], following[place], action[place] = data.state[rows], data.next_state[rows], data.action[rows]
    counts[place] = True
    return state, action, following, counts
