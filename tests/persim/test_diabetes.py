"""Patients: logs that are made, plans, and what is refused."""

import json

import numpy as np
import pytest

from envs import make_family
from envs.diabetes.physiology import basal_rate
from mpi_utils.comm import Comm
from persim.config import Config, check_config
from persim.learned_reward import LearnedReward
from persim.planning.planner import CrossEntropy, settings_of
from persim.policy import load_problem
from persim.problem import make_problem
from tests.helpers.launch import command
from tests.helpers.simglucose import needs_simglucose

pytestmark = needs_simglucose
TINY = ["--max_iters", "1", "--num_minibatches", "2", "--log_steps", "80"]


@pytest.mark.parametrize("environment", ["diabetes", "diabetes_relative"])
def test_a_day_of_each_patient_is_logged(environment):
    config = Config.defaults({"environment": environment})
    assert config.learn_reward and config.num_agents == 30
    problem = make_problem(config, Comm())
    log, patients = problem.log, problem.family.members()
    assert log.names[0] == "adolescent#001" and log.names[-1] == "child#010" and log.num_agents == 30
    np.testing.assert_array_equal(log.covariates["BW"], patients["BW"])
    assert np.bincount(log.agent).max() <= 288 and problem.horizon == 288
    basal = basal_rate(patients)[log.agent]
    times = problem.family.rates(log.action, basal) / basal
    assert 0.49 < times.min() and times.max() < 9.01 and 0.1 < (times > 2).mean() < 0.2
    assert abs(np.corrcoef(times, log.state[:, 22])[0, 1]) < 0.05  # from nothing that is seen


def test_doses_and_their_actions():
    basal = np.array([0.01, 0.02])
    for name in ("diabetes", "diabetes_relative"):
        family = make_family(name)
        rates = np.array([0.005, 0.1])
        np.testing.assert_allclose(family.rates(family.actions(rates, basal), basal), rates, rtol=1e-5)
        env = family.make_vec(family.members("adult"), np.random.default_rng(0))
        rest = family.resting_actions(env.reset()[0])
        np.testing.assert_allclose(family.rates(rest, env.basal), env.basal, rtol=1e-3)


def test_plans_begin_at_the_own_basal_rate():
    family = make_family("diabetes")
    env = family.make_vec(family.members("child"), np.random.default_rng(0))

    class Indifferent:
        def at(self, agents):
            return self

        def step(self, state, action):
            return state.expand(1, -1, action.shape[1], -1)

    seen = env.reset()[0]
    planner = CrossEntropy(LearnedReward(family), 10, 0, settings_of(family))
    states = np.concatenate([seen, np.zeros((10, 1))], axis=1)
    for _ in range(40):  # beyond the horizon
        actions = planner.plan(Indifferent(), np.arange(10), states, np.arange(10))
    times = family.rates(actions, env.basal) / env.basal
    assert 0.6 < np.median(times) < 1.7 and times.max() < 20  # an action of 0 is 7 to 19 times


@pytest.mark.mpi
@pytest.mark.slow
def test_train_and_evaluate(tmp_path):
    flags = ["--environment", "diabetes_relative", "--checkpoint_dir", tmp_path, "--model_name", "p", *TINY]
    done = command(1, "train", "persim", *flags)
    assert done.code == 0, done.output
    problem = load_problem(tmp_path / "p")
    assert problem.num_agents == 30 and problem.family.dose == "relative"
    evaluate = ["evaluate", tmp_path / "p", "--agents", "child#002,adult#001", "--horizon", "2"]
    evaluate += ["--num_candidates", "4", "--episodes", "2", "--json"]
    rows = []
    for ranks in (1, 2):
        done = command(ranks, *evaluate, tmp_path / f"{ranks}.json")
        assert done.code == 0 and "nothing here is medical advice" in done.output, done.output
        assert "in range (%):" in done.output and "child#002" in done.output
        rows.append(json.loads((tmp_path / f"{ranks}.json").read_text())["rows"])
    assert rows[0] == rows[1]  # whoever plays which episode
    returns = {r["agent"]: r["mean"] for r in rows[0] if r["metric"] == "return" and "agent" in r}
    assert set(returns) == {"child#002", "adult#001"} and all(np.isfinite(list(returns.values())))
    assert any(r["metric"] == "median_r2" and r["mean"] is not None for r in rows[0])


def test_what_cannot_be(tmp_path):
    for flags, said in (
        (["--dataset", "pure_eps_20"], "--dataset pure_eps_20: diabetes has pure and random; give one"),
        (["--learn_reward", "False"], "diabetes is planned with a learned reward only"),
    ):
        flags = ["--environment", "diabetes", "--checkpoint_dir", tmp_path / "none", *flags]
        done = command(1, "train", "persim", *flags)
        assert done.code == 2 and said in " ".join(done.output.split()), done.output
        assert not (tmp_path / "none").exists()
    check_config(Config.defaults({"environment": "diabetes_relative"}))
