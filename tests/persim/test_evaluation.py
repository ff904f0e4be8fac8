"""The evaluation of a run: its rows, the same at any number of ranks, its figure and its refusals."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from common.errors import UserError
from common.runs import checkpoint, run_folder
from mpi_utils.comm import Comm
from persim import evaluation
from persim.testing import report
from tests.helpers.launch import mpirun
from tests.persim.runs import configured
from tests.persim.runs import trained as train

SMALL = {"num_agents": 40, "num_models": 2, "state_features": 32, "max_iters": 4}
QUICK, PLANS = "--trajectories 8 --unseen 3".split(), "--episodes 1 --horizon 5 --candidates 20".split()


@functools.cache
def trained(pooled=False):
    config = configured("cart_pole", dataset="pure_eps_20", pooled=pooled, **SMALL)
    return dataclasses.asdict(config), train(config).state_dict()


def rows_of(*flags, pooled=False):
    stored, state = trained(pooled)
    words = [*QUICK, *([] if "--episodes" in flags else PLANS), *flags]
    return evaluation.evaluate(stored, state, evaluation.parse_settings(words, show=False), Comm())


def of(rows, metric, method="persim"):
    return {r["agent"]: r for r in rows if r["metric"] == metric and r["method"] == method and "agent" in r}


@pytest.mark.slow
def test_every_test_agent_has_its_rows_and_the_file_is_strict_json(tmp_path):
    rows = rows_of()
    agents = ["2, 0.5", "10, 0.5", "18, 0.5", "10, 0.85", "10, 0.15"]
    for metric in ("median_r2", "rmse", "return"):
        assert list(of(rows, metric)) == agents
        assert {row["dataset"] for row in of(rows, metric).values()} == {"pure_eps_20"}
    first = rows[0]
    assert (first["metric"], first["n"]) == ("median_r2", 5) and "agent" not in first
    fits = [row["mean"] for row in of(rows, "median_r2").values()]
    assert first["mean"] == pytest.approx(np.mean(fits))
    for agent in agents:
        assert of(rows, "median_r2", "mean")[agent]["mean"] == pytest.approx(0, abs=1e-9)
        assert of(rows, "median_r2", "upper_bound")[agent]["mean"] < 1
        assert 1 <= of(rows, "return")[agent]["mean"] <= 200
        assert of(rows, "return", "true_model")[agent]["n"] == 1
    unseen = {r["method"]: r for r in rows if r["metric"] == "unseen_median_r2"}
    assert unseen.keys() == {"from_covariates", "from_steps"} and unseen["from_steps"]["n"] == 3
    json.dumps(rows, allow_nan=False)
    evaluation.plot(rows, tmp_path / "figure.png", evaluation.title("run", evaluation.Settings()))
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_a_pooled_run_has_no_factors_to_read(capsys):
    rows = rows_of("--episodes", "0", pooled=True)
    assert {row["metric"] for row in rows} == {"median_r2", "rmse", "paths"}
    assert rows[0]["method"] == "pooled"
    report.show(rows)
    assert "10, 0.15" in capsys.readouterr().out


def test_a_linear_readout_finds_a_covariate_in_mixed_factors():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(50, 3))
    factors = hidden @ rng.normal(size=(3, 3)) + 2.0
    np.testing.assert_allclose(report.linear_readout(factors, hidden[:, 1]), hidden[:, 1], atol=1e-9)


def test_agents_can_be_named():
    rows = rows_of("--episodes", "0", "--unseen", "0", "--agents", "7, 1")
    covariates = trained()[1]["data"]["covariates"]
    expected = [f"{covariates['force'][i]:.4g}, {covariates['length'][i]:.4g}" for i in (7, 1)]
    assert list(of(rows, "median_r2")) == expected


@pytest.mark.parametrize(
    "flags, text",
    [
        (["--trajectories", "0"], "--trajectories 0: must be greater than 0"),
        (["--episodes", "-1"], "--episodes -1: must be 0 or more"),
        (["--agents", "nobody"], "--agents nobody: pure_eps_20 has no agent 'nobody'; correct it"),
    ],
)
def test_mistakes_are_refused_in_one_line(flags, text):
    with pytest.raises(Exception) as error:
        rows_of(*flags)
    assert str(error.value) == text and isinstance(error.value, UserError)


def test_a_log_without_covariates_has_nothing_to_be_tested_in():
    stored, state = trained()
    state = state | {"data": state["data"] | {"covariates": {}}}
    settings = evaluation.parse_settings([*QUICK, *PLANS], show=False)
    with pytest.raises(UserError, match="its covariates in the log"):
        evaluation.evaluate(stored | {"dataset": "log.csv"}, state, settings, Comm())


@pytest.mark.mpi
def test_the_command_line_at_two_and_three_ranks(tmp_path):
    folder = ["--checkpoint_dir", str(tmp_path), "--model_name", "agents"]
    sizes = [f"--{name}={value}" for name, value in (SMALL | {"max_iters": 2}).items()]
    done = mpirun(2, "-m", "train", "persim", "--environment", "cart_pole", *sizes, *folder)
    assert done.code == 0, done.output
    step, state = checkpoint.load(checkpoint.newest_valid(tmp_path / "agents")[0])
    stored = run_folder.read_config(tmp_path / "agents") | {"iteration": step}
    flags = [*QUICK, *PLANS, "--upper_bound=False"]
    alone = evaluation.evaluate(stored, state, evaluation.parse_settings(flags, show=False), Comm())
    done = mpirun(3, "-m", "evaluate", tmp_path / "agents", *flags, "--json", tmp_path / "rows.json")
    assert done.code == 0, done.output
    # Ranks share episodes, not sums, so that not even the last digit differs.
    assert json.loads((tmp_path / "rows.json").read_text())["rows"] == json.loads(json.dumps(alone))
