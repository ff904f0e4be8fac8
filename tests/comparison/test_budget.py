"""Every method gets the same steps, and says how many it took."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from common.errors import UserError
from comparison import training
from comparison.config import PERSIM, Settings
from comparison.experiments import experiments_of
from comparison.methods import METHODS, serves
from comparison.training import Training, fitting, train
from envs import Problem, make_family

BUDGET = 12_000


class Counted(gymnasium.Env):
    """Five steps to go to a place of one's own; all steps of all environments are counted."""

    observation_space = Box(-np.inf, np.inf, (1,), np.float32)
    action_space = Discrete(2)
    steps = 0

    def __init__(self, place):
        self.place = place

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.elapsed = self.np_random.uniform(-1, 1), 0
        return np.array([self.at], np.float32), {}

    def step(self, action):
        type(self).steps += 1
        self.at, self.elapsed = self.at + 0.4 * action - 0.2, self.elapsed + 1
        return np.array([self.at], np.float32), -abs(self.at - self.place), False, self.elapsed == 5, {}


class Places:
    """Agents of two groups that are to be in different places."""

    max_episode_len = 5

    def sample(self, rng, n):
        return {"place": rng.uniform(-1, 1, n), "group": np.arange(n) % 2}

    def make(self, task):
        return Counted(float(task["place"]))


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """PerSim's iterations take no steps."""
    monkeypatch.setitem(PERSIM, "", {"max_iters": 2, "horizon": 3, "num_candidates": 4})


@pytest.fixture
def problem():
    family = make_family(Places)
    return Problem("mine:places", family, family.sample(np.random.default_rng(0), 6), 5)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_steps_of_the_table_are_those_that_environments_took(method, problem, monkeypatch):
    monkeypatch.setattr(training, "POINTS", 1)  # nobody looks on the way: that would take steps, too
    tests, evaluate = [0], training.evaluate_actor

    def counted(*arguments):
        before = Counted.steps
        returns = evaluate(*arguments)
        tests[0] += Counted.steps - before
        return returns

    monkeypatch.setattr(training, "evaluate_actor", counted)
    settings = Settings(budget=BUDGET, behaviour="random", episodes=2, num_policies=2)
    k = {"single": 1, "per_agent": 6}.get(method, 2)
    Counted.steps = 0
    made = METHODS[method](Training(problem, settings, 0, k))
    with_agents = (
        0 if method in ("single", "per_group", "per_agent", "persim") else made["curve"][-1]["steps"]
    )
    assert Counted.steps - tests[0] == pytest.approx(made["train_steps"] + 6 * with_agents)
    assert made["train_steps"] <= BUDGET
    if method != "persim":
        assert made["train_steps"] > 0.75 * BUDGET
    assert made["learning"][-1]["steps"] == made["train_steps"]


@pytest.mark.slow
def test_a_policy_trained_for_the_logs_counts(problem):
    settings = Settings(budget=BUDGET, behaviour="single", episodes=1, num_policies=2)
    made = METHODS["persim"](Training(problem, settings, 0, 1))
    assert 0.75 * BUDGET < made["train_steps"] <= BUDGET
    assert made["new_agent_steps"] == 5 and "one policy for all" in made["facts"]["logged_by"]


class Learner:
    """Takes 10 steps, then 7, 10, 7, ... in an iteration."""

    steps = 0

    def train_iteration(self, i):
        self.steps += 7 if i % 2 else 10
        return {"steps": float(self.steps)}


def test_training_goes_on_while_the_budget_lasts():
    seen = iter(range(100))
    found = train(Learner(), 3, lambda m: m["steps"], lambda: np.full((1, 1), next(seen)), 100, 10)
    iterations, steps, curve = found
    assert (iterations, steps) == (11, 95)  # after 85 and 95: ten more might have been too many
    assert [at for at, _ in curve] == [17, 27, 44, 51, 68, 78, 95][: len(curve)]
    assert all(at < 94 for at, _ in curve)
    assert train(Learner(), 3, lambda m: m["steps"], lambda: None)[:2] == (3, 27)
    assert [fitting(wanted, 20, 80) for wanted in (0, 20, 59, 1000)] == [20, 20, 40, 80]


def test_who_cannot_serve_says_why():
    def of(name, method, n=4, k=1, **settings):
        family = make_family(name)
        agents = family.sample(np.random.default_rng(0), n)
        return serves(method, Training(Problem(name, family, agents), Settings(**settings), 0, k))

    def groups_of(name, groups):
        return of(name, "per_group", k=groups)

    assert "categories" in of("bandit", "persim")
    assert "takes 20" in of("bandit", "rl2", budget=100)
    assert of("cart_pole", "caml", n=1) and of("particle", "persim", behaviour="shipped")
    assert "no parameter of one number an agent is called 'group'" in groups_of("cart_pole", 0)
    assert groups_of("particle", 1) == "all agents are of one group"
    assert groups_of("particle", 4) == "each agent is a group of its own" and not groups_of("particle", 3)
    for method in ("rl2", "caml", "rmdp", "single", "per_agent"):
        assert not of("bandit", method) and not of("tabular_mdp", method)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["bandit", "tabular_mdp", pytest.param("resource_gathering", marks=pytest.mark.nightly)]
)
def test_populations_of_other_environments(name):
    family = make_family(name)
    agents = family.sample(np.random.default_rng(0), 4)
    problem = Problem(name, family, agents)
    settings = Settings(budget=max(3000, 800 * problem.horizon), episodes=1, num_policies=2, budgets="")
    experiments, left_out = experiments_of(settings, problem)
    assert set(left_out) == (set() if name == "resource_gathering" else {"persim"})
    for method in ("single", "rmdp", "caml"):
        made = METHODS[method](Training(problem, settings, 0, 1 if method == "single" else 2))
        assert np.isfinite(made["returns"]).all() and len(made["returns"]) == 4
        assert 0 < made["train_steps"] <= settings.budget


def test_a_named_method_that_cannot_serve_is_refused():
    family = make_family("bandit")
    problem = Problem("bandit", family, family.sample(np.random.default_rng(0), 4))
    with pytest.raises(UserError, match="--methods persim: cannot serve bandit"):
        experiments_of(Settings(methods="persim,single"), problem)
