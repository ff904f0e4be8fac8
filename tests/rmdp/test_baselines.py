"""What agents with dynamics of their own are shown beside; one policy for all, or one each, by themselves."""

import dataclasses

import numpy as np
import pytest

import rmdp
from common.rollout import play
from common.runs import checkpoint
from envs import Population, Problem, make_family
from envs.examples import point_family
from mpi_utils.comm import Comm
from rmdp import evaluation
from rmdp.learner import Learner
from rmdp.problem import make_problem
from rmdp.reference import random_returns
from tests.helpers import runs
from tests.helpers.launch import command

POINTS = "envs.examples:point_family"


def problem():
    family = make_family(point_family)
    return Problem(POINTS, family, {"target": np.float32([-0.5, 0.0, 0.5])})


def test_random_actions_walk_at_random():
    """A point's steps are uniform in -.2 to .2: the mean square of its place after t steps is .04 t / 3."""
    returns = random_returns(problem(), 300, 0, Comm())
    assert returns.shape == (3, 300)
    rng = np.random.default_rng(5)
    place = rng.uniform(-0.2, 0.2, (20000, 10)).cumsum(1)
    expected = [-np.abs(place - target).sum(1).mean() for target in (-0.5, 0.0, 0.5)]
    np.testing.assert_allclose(returns.mean(1), expected, atol=0.25)


def test_rows_of_baselines_follow_those_of_the_run(capsys):
    config = runs.settings("rmdp", "--environment", "cart_pole", "--max_iters", "3")
    learner = Learner(config, Comm(), make_problem(config, Comm()))
    for i in range(3):
        learner.train_iteration(i)
    stored, state = dataclasses.asdict(config), learner.state_dict()

    def rows(*flags):
        settings = evaluation.parse_settings(["--episodes", "2", *flags], show=False)
        return evaluation.evaluate(stored, state, settings, Comm())

    plain, whole = rows("--baselines", "none"), rows("--one_policy_share", "0.5")
    assert whole[: len(plain)] == plain and all(r["method"] == "em" for r in plain)
    added = {(r["method"], r["metric"]): r for r in whole[len(plain) :]}
    assert set(added) == {
        (method, metric)
        for method in ("random_actions", "one_policy")
        for metric in ("social_welfare", "worst_decile")
    }
    trained = added["one_policy", "social_welfare"]
    # Half of the run's steps, in whole iterations of one policy.
    assert trained["env_steps"] == 64 * round(state["env_steps"] / 2 / 64)
    assert added["random_actions", "social_welfare"]["env_steps"] == 0
    assert added["one_policy", "worst_decile"]["mean"] <= trained["mean"]
    evaluation.show(whole)
    assert "(50% of the run's)" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("environment", ["cart_pole", POINTS])
@pytest.mark.parametrize("k", [1, 4])
def test_one_policy_for_all_and_one_each_by_themselves(environment, k, tmp_path):
    """Trained on a population file, evaluated, exported, and loaded: all four commands know them."""
    family = make_family(point_family if ":" in environment else environment)
    agents = family.sample(np.random.default_rng(7), 4)
    Population(environment, agents).save(tmp_path / "agents.npz")
    named = ["--environment", environment] if ":" in environment else []
    flags = [*runs.flags("rmdp", tmp_path, "run"), "--environment", environment, "--num_agents", 4]
    flags += ["--population", tmp_path / "agents.npz", "--num_policies", k, "--max_iters", 3]
    own = "--algorithm random --policy_network separate --warm_start_iters 50".split()
    each = own if k == 4 else []
    done = command(1, "train", *flags, *each)
    assert done.code == 0, done.output
    out = tmp_path / "policies"
    done = command(1, "evaluate", tmp_path / "run", *named, "--episodes", 2, "--export", out)
    assert done.code == 0 and "random_actions" in done.output, done.output
    assert ("\none_policy " in done.output) == (k > 1)
    assert len(list(out.glob("policy_*.pt"))) == k

    actor = rmdp.load(tmp_path / "run", environment=environment)
    assert sorted(actor.policy_of) == ([0, 0, 0, 0] if k == 1 else [0, 1, 2, 3])
    state = checkpoint.open_run(tmp_path / "run", "rmdp")[1]
    assert all(np.array_equal(values, agents[name]) for name, values in state["agents"].items())
    loaded = rmdp.load_problem(tmp_path / "run", environment)
    env = loaded.make_vec(np.arange(4), np.random.default_rng(0))
    assert np.isfinite(play(env, actor, loaded.horizon).returns).all()
