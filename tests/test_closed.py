"""Environments are closed after use: in training, evaluation and comparison, and where one of them fails."""

import dataclasses

import numpy as np
import pytest

import caml.config
import caml.evaluation
import caml.learner
import caml.problem
import rl2.config
import rl2.evaluation
import rl2.learner
import rl2.problem
import rmdp.config
import rmdp.evaluation
import rmdp.learner
import rmdp.problem
from comparison import methods
from comparison.config import CAML, PERSIM, RL2, RMDP, Settings
from comparison.training import Training
from envs import EnvError, Problem, make_family
from envs.examples import CartPoles
from mpi_utils.comm import Comm

ENVIRONMENT = "tests.test_closed:poles"


class Poles(CartPoles):
    """Counts its environments that are open; they fail after `last` steps of all."""

    max_episode_len = 40
    open, made, steps, last = 0, 0, 0, 10**9

    def make(self, task):
        env = super().make(task)
        step, close = env.step, env.close
        Poles.open += 1
        Poles.made += 1

        def counted(action):
            Poles.steps += 1
            if Poles.steps > Poles.last:
                raise ValueError("no more")
            return step(action)

        def closed():
            Poles.open -= 1
            close()

        env.step, env.close = counted, closed
        return env


def poles():
    """A factory for `make_family`."""
    return Poles()


@pytest.fixture(autouse=True)
def count():
    Poles.open, Poles.made, Poles.steps, Poles.last = 0, 0, 0, 10**9
    yield
    assert Poles.open == 0 and Poles.made > 3


SMALL = {
    rl2: {"meta_episode_len": 20, "meta_episodes_per_policy_update": 4, "meta_episodes_per_learner_batch": 2},
    rmdp: {"num_agents": 4, "num_policies": 2, "steps_per_policy": 64, "num_minibatches": 2, "max_iters": 2},
    caml: {"num_groups": 2, "num_variants": 2, "num_support": 2, "tasks_per_iteration": 2, "pool_size": 2}
    | {"num_rollouts": 2, "num_medoids": 1, "max_episode_len": 20},
}


def learner_of(system):
    defaults = getattr(system.config.Config, "defaults", lambda given: system.config.Config())
    config = dataclasses.replace(
        defaults({"environment": ENVIRONMENT}), environment=ENVIRONMENT, num_features=8, **SMALL[system]
    )
    config = system.config.check_config(config)
    return system.learner.Learner(config, Comm(), system.problem.make_problem(config, Comm()))


@pytest.mark.parametrize("system", SMALL)
def test_training_and_evaluation_close_what_they_open(system):
    learner = learner_of(system)
    for i in range(2):
        learner.train_iteration(i)
        assert Poles.open == 0
    flags = {rl2: ["--instances", "3"], rmdp: ["--episodes", "1"]}
    flags[caml] = ["--repeats", "1", "--updates", "1", "--baselines", "reptile"]
    words = [*flags[system], "--environment", ENVIRONMENT]
    settings = system.evaluation.parse_settings(words, show=False)
    state = learner.state_dict()
    assert system.evaluation.evaluate(dataclasses.asdict(learner.config), state, settings, Comm())


@pytest.mark.parametrize("system", SMALL)
def test_an_error_leaves_nothing_open(system):
    learner = learner_of(system)
    Poles.last = Poles.steps + 30
    with pytest.raises(EnvError, match="ValueError: no more"):
        learner.train_iteration(0)


@pytest.mark.slow
def test_a_comparison_closes_what_it_opens(monkeypatch):
    family = make_family(poles)
    problem = Problem(ENVIRONMENT, family, family.sample(np.random.default_rng(0), 3), 20)
    for system, small in {"rl2": RL2, "rmdp": RMDP, "caml": CAML, "persim": PERSIM}.items():
        monkeypatch.setitem(small, "", {**small[""], "max_iters": 1})
        settings = Settings(budget_rule="recipe", behaviour="random", episodes=1)
        methods.METHODS[system](Training(problem, settings, 0, 2))
        assert Poles.open == 0
