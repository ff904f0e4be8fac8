"""Certificates: bounds by hand, and a bound that lies below the true share in 95 % of draws."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import binom

from common.errors import UserError
from envs import Problem, make_family
from mpi_utils.comm import Comm
from rmdp import certificate, evaluation
from rmdp.config import Config, check_config
from rmdp.fair_walks import walk_utilities
from rmdp.learner import Learner
from rmdp.problem import make_problem
from tests.helpers.launch import command
from tests.rmdp.test_evaluation import Tours
from tests.rmdp.test_own_dynamics import FLAGS, TINY

WALKS = "UUUULLDDDDRR URRDLL ULDR"  # of 12, 6 and 4 steps: `Tours` goes on where it was


def settings(*flags):
    return evaluation.parse_settings(["--episodes", "1", *map(str, flags)], show=False)


def certify_walks(*flags):
    config = dataclasses.replace(
        Config.defaults({"environment": "resource_gathering"}), num_agents=25, num_policies=3
    )
    problem = make_problem(config, Comm())
    return certificate.certify(config, problem, Tours(WALKS.split()), settings(*flags), Comm())


def test_the_bound_is_clopper_and_pearsons():
    for covered, tried in ((1, 1), (19, 20), (500, 1000), (1000, 1000)):
        bound = certificate.lower_bound(covered, tried)
        # With this share, as many or more are covered in just 5 % of draws.
        assert binom.sf(covered - 1, tried, bound) == pytest.approx(0.05, rel=1e-6)
    assert certificate.lower_bound(0, 20) == 0
    assert certificate.lower_bound(1000, 1000) == pytest.approx(0.05 ** (1 / 1000))


def test_fresh_agents_on_the_grid_get_their_best_walk():
    found = certify_walks("--certify", 400, "--epsilon", 0.05)
    cell = found.agents["cell"]
    np.testing.assert_allclose(found.utility, walk_utilities(WALKS)[cell], atol=1e-6)
    assert set(cell) == set(range(25)) and np.array_equal(found.covered, walk_utilities(WALKS)[cell] >= 0.95)
    assert found.policy_of[cell == 0][0] == 0 and set(found.policy_of[cell == 21]) == {2}


def test_whatever_the_true_share_the_bound_lies_below_it_in_95_percent_of_draws():
    """Exactly: the chance, by the binomial, of a count whose bound is at most the share."""
    for tried in (20, 100, 1000):
        bounds = np.array([certificate.lower_bound(covered, tried) for covered in range(tried + 1)])
        for share in np.linspace(0.01, 0.99, 99):
            assert binom.pmf(np.arange(tried + 1), tried, share)[bounds <= share].sum() >= 0.95 - 1e-9


def test_on_the_grid_the_bound_lies_below_the_true_share():
    """200 certificates of fresh agents of the grid; of its 25 cells it is known who is covered.

    As often as the binomial says, within what has a chance of 1 in 1000.
    """
    true, tried = (walk_utilities(WALKS) >= 0.95 - 1e-6).mean(), 100
    flags = ("--certify", tried, "--epsilon", 0.05, "--seed")
    bounds = np.array([certify_walks(*flags, seed).lower_bound for seed in range(200)])
    possible = np.array([certificate.lower_bound(covered, tried) for covered in range(tried + 1)])
    chance = binom.pmf(np.arange(tried + 1), tried, true)[possible <= true].sum()
    assert binom.ppf(0.001, 200, chance) <= (bounds <= true).sum() <= binom.ppf(0.999, 200, chance)
    assert true - 0.2 < bounds.mean() < true  # and not by saying nothing


def test_the_same_agents_whatever_the_policies_and_none_of_training():
    config = dataclasses.replace(TINY, environment="particle")
    problem = make_problem(config, Comm())
    learner = Learner(config, Comm(), problem)
    found = certificate.certify(
        config, problem, learner.policies, settings("--certify", 9, "--trials", 2), Comm()
    )
    assert len(found.utility) == 9 and found.utility.max() <= 1
    noise = found.agents["moves"][abs(found.agents["moves"]) < 1]
    assert len(noise) == 9 * 4 and not np.isin(noise, problem.agents["moves"]).any()
    again = certificate.certify(config, problem, learner.policies, settings("--certify", 9), Comm())
    np.testing.assert_array_equal(found.agents["moves"], again.agents["moves"])
    np.testing.assert_array_equal(found.policy_of, again.policy_of)  # a particle has no chance in it


def test_words_rows_figure_and_card(tmp_path, capsys):
    config = check_config(dataclasses.replace(TINY, environment="cart_pole", num_agents=4))
    learner = Learner(config, Comm(), make_problem(config, Comm()))
    flags = settings("--certify", 12, "--baselines", "none", "--export", tmp_path / "policies")
    rows = evaluation.evaluate(dataclasses.asdict(config), learner.state_dict(), flags, Comm())
    share = next(r for r in rows if r["metric"] == "certified_share")
    assert (
        share["n"] == 12 and share["covered"] == 12 * share["mean"] and share["lower_bound"] <= share["mean"]
    )
    evaluation.show(rows)
    said = capsys.readouterr().out
    assert f"certificate: {share['covered']} of 12 fresh agents get 90% of its own best" in said
    assert "force: mean" in said and "newcomer_utility" not in said
    evaluation.plot(rows, tmp_path / "newcomers.png", "twelve")
    assert (tmp_path / "newcomers.png").read_bytes().startswith(b"\x89PNG")
    assert "fresh agents get 90% of its own best" in (tmp_path / "policies" / "policy_0.md").read_text()


def test_one_parameter_is_drawn_too(tmp_path):
    config = dataclasses.replace(
        Config.defaults({"environment": "resource_gathering"}), num_agents=25, num_policies=3
    )
    rows = certificate.rows(config, certify_walks("--certify", 30))
    welfare = {"metric": "social_welfare", "mean": 1.0}
    evaluation.plot([welfare, *rows], tmp_path / "cells.png", "thirty")
    assert (tmp_path / "cells.png").exists()


def test_mistakes_are_told_in_one_line(tmp_path):
    family = make_family("mountain_car")
    problem = Problem("mountain_car", family, family.sample(np.random.default_rng(0), 3))
    with pytest.raises(UserError, match="--reference: mountain_car states no best return"):
        certificate.certify(TINY, problem, None, settings("--certify", 5), Comm())
    for wrong in (["--certify", "-1"], ["--epsilon", "0.2"], ["--certify", "5", "--epsilon", "2"]):
        with pytest.raises(UserError):
            settings(*wrong)
    where = ["--checkpoint_dir", str(tmp_path), "--environment", "mountain_car"]
    done = command(1, "train", "rmdp", *FLAGS, *where, "--max_iters", "1")
    assert done.code == 0, done.output
    done = command(1, "evaluate", tmp_path / "rmdp", "--certify", "5", "--reference", tmp_path / "none")
    assert done.code == 2 and len(done.output.strip().splitlines()) == 1, done.output
