"""PerSim and its baselines in one table: experiments, their sharing, and what the table says."""

import dataclasses
import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from common.errors import UserError
from envs import make_family
from experiments import persim_baselines
from mpi_utils.comm import Comm
from persim.baselines import synthetic, tables
from persim.baselines.morel import Settings, train_ensemble
from persim.baselines.protocol import Budgets, Case, acted, run
from persim.data.behaviour import random_policy
from persim.data.trajectories import log_dynamics
from persim.planning.planner import Settings as Planning
from persim.planning.true_dynamics import TrueModel
from tests.helpers.launch import command

SMALL = Budgets(
    cadm_steps=5, pets_steps=5, candidates=20, cadm_candidates=5, pets_candidates=5, pets_particles=5,
    planned_episodes=2, cadm_episodes=1, episodes=3, trajectories=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def case():
    family = make_family("mountain_car", max_episode_len=30)
    family.name = "mountain_car"
    tested = {"gravity": np.array([0.0001, 0.0025])}
    agents = {"gravity": np.linspace(1e-4, 3e-3, 6)}
    data = log_dynamics(family, agents, random_policy(family), np.random.default_rng(0))
    return Case(family, data, tested, SMALL, seed=1, test_seed=2)


def test_agents_are_cut_out_of_transitions(case):
    data = case.data.of([4, 1])
    assert data.names == ["4", "1"] and (np.unique(data.agent) == [0, 1]).all()
    for new, old in enumerate([4, 1]):
        for name in ("state", "action", "reward", "next_state", "time"):
            own, whole = getattr(data, name), getattr(case.data, name)
            np.testing.assert_array_equal(own[data.agent == new], whole[case.data.agent == old])
        assert data.covariates["gravity"][new] == case.data.covariates["gravity"][old]


def test_imagined_trajectories_are_those_of_the_simulator_and_of_its_agent(case):
    # In the place of simulators the true dynamics: imagined steps must then be true ones, of the right agent.
    model = TrueModel(case.family, case.tested)
    planning = Planning(horizon=5, num_candidates=10)
    made = synthetic.imagine(case.family, model, np.arange(2), 3, planning, np.random.default_rng(0), 1)
    assert [len(own.names) for own in made] == [3, 3]
    for i, own in enumerate(made):
        agents = {name: np.full(len(own), values[i]) for name, values in case.tested.items()}
        expected = case.family.advance(own.state.astype(float), own.action, agents)
        np.testing.assert_allclose(own.next_state, expected, atol=1e-6)
        assert (own.time[own.agent == 0] == np.arange((own.agent == 0).sum())).all()


def test_all_policies_start_alike_and_serve_their_own_agent(case):
    seen = []

    def still(name):
        def policy(state, rng):
            seen.append((name, state.copy()))
            return np.ones(len(state), int)

        return policy

    rows = acted(case, [still("light"), still("heavy")])
    first = {}
    for name, state in seen:
        first.setdefault(name, state)
    np.testing.assert_array_equal(first["light"], first["heavy"])
    assert [row["agent"] for row in rows] == ["0.0001", "0.0025"]
    assert [row["value"] for row in rows] == [-30, -30]


def test_true_dynamics_beat_a_context_that_has_learnt_nothing(case):
    best, worse = (run(method, case) for method in ("true_model", "cadm"))
    assert {row["metric"] for row in worse} == {"rmse", "median_r2", "return"}
    assert {row["metric"] for row in best} == {"return"}
    assert len(best) == 2 and len(worse) == 6
    assert all(np.isfinite(row["value"]) for row in best + worse)


def test_planners_look_as_far_as_the_budget_says(case):
    near = dataclasses.replace(case, budgets=dataclasses.replace(SMALL, horizon=7))
    assert (case.planning(20).horizon, near.planning(20).horizon) == (50, 7)


def test_flags_of_training_and_the_horizon_reach_persim(tmp_path):
    words = ["--runs", "r", "--out", "o", "--horizon", "7", "--train", "--max_iters 2", "--method", "persim"]
    words = persim_baselines.persim_words(persim_baselines.parse_settings(words, Comm()))
    assert "--horizon 7" in words[words.index("--evaluate") + 1]
    assert words[-2:] == ["--max_iters", "2"]


def test_sizes_of_persim_s_networks_are_those_of_morel_s_members():
    words = ["--runs", "r", "--out", "o", "--num_agents", "6", "--method", "cadm"]
    settings = persim_baselines.parse_settings(
        [*words, "--train", "--state_features 8 --state_layers 2"], Comm()
    )
    case = persim_baselines.make_data("cart_pole", "random", 0, settings)
    model = train_ensemble(case.data, case.family, Settings(model_iters=1, networks=case.networks), 0)
    assert [tuple(weight.shape[1:]) for weight in model.hidden] == [(4 + 1, 8), (8 + 1, 8)]


def rows(**values):
    """A row for each method and repeat: values {method: [one for each repeat]}."""
    shared = {"environment": "cart_pole", "dataset": "pure", "agent": "a", "metric": "return"}
    return [
        shared | {"method": method, "repeat": i, "value": value}
        for method, own in values.items()
        for i, value in enumerate(own)
    ]


def test_the_best_is_bold_with_its_deviation_over_repeats():
    report = {"budgets": {"episodes": 3}, "rows": rows(persim=[1.0, 3.0], bcq_p=[4.0, 4.0])}
    text = tables.as_markdown(report)
    assert "| pure | persim | 2 ± 1.4 | 2 |" in text
    assert "| pure | bcq_p | **4 ± 0** | **4** |" in text
    assert "episodes 3" in text and "Seeds: 0, 1 (persim, bcq_p)." in text


def test_small_errors_are_the_best_ones():
    report = {"budgets": {}, "rows": [row | {"metric": "rmse"} for row in rows(persim=[0.1], cadm=[0.2])]}
    assert "| pure | persim | **0.1** | **0.1** |" in tables.as_markdown(report)


def test_true_dynamics_are_no_rival():
    bound = [row | {"dataset": "none"} for row in rows(true_model=[9.0])]
    text = tables.as_markdown({"budgets": {}, "rows": [*bound, *rows(persim=[1.0])]})
    assert "| none | true_model | 9 | 9 |" in text and "**1**" in text


def test_how_often_one_is_better_is_counted_where_both_were_tried():
    report = {"budgets": {}, "rows": rows(persim=[2.0], bcq_p=[1.0])}
    agents = len({row["agent"] for row in report["rows"]})
    elsewhere = [row | {"dataset": "random"} for row in rows(persim=[5.0])]
    text = tables.as_markdown(report | {"rows": report["rows"] + elsewhere})
    assert f"| persim |  | {agents} of {agents} |" in text and f"| bcq_p | 0 of {agents} |  |" in text


def test_the_paper_s_claims_are_counted_cell_by_cell():
    def table(**values):
        """Two agents, one dataset: values {method: for each agent, of two repeats}."""
        return [
            row | {"agent": agent, "dataset": "none" if row["method"] == "true_model" else "pure"}
            for at, agent in enumerate(("a", "b"))
            for row in rows(**{method: own[at] for method, own in values.items()})
        ]

    returns = table(
        true_model=[[-100.0], [-200.0]],
        persim=[[-100.0, -106.0], [-190.0, -190.0]],
        cadm=[[-90.0, -90.0], [-195.0, -195.0]],
        cql_p=[[-99.0, -99.0], [-500.0, -500.0]],
    )
    rmse = table(persim=[[0.1, 0.3], [1.0]], cadm=[[1.0], [0.5]], cadm_pets=[[0.8], [9.0]])
    r2 = table(persim=[[0.9], [0.8]], cadm=[[-1.0, 0.5], [0.3]])
    report = returns + [r | {"metric": "rmse"} for r in rmse] + [r | {"metric": "median_r2"} for r in r2]
    text = tables.as_markdown({"budgets": {}, "rows": report})
    for line in (
        "PerSim's RMSE is lower than CaDM's in 1 of 2 cases; "
        "that of the better CaDM is 0.5 to 4 times as high.",
        "Median R² is below zero in 0 of 2 (persim), 1 of 2 (cadm) cases; PerSim's lowest is 0.8.",
        "PerSim returns most in 1 of 2 cases, within 5% of that in 1.",
        "It returns -3.0% to +5.0% beside planning on the true dynamics.",
        "More than that, by over 5%, returns agent a: cadm (pure).",
        "More than that, by over 5%, returns agent b: no method.",
    ):
        assert f"- {line}\n" in text, line
    assert "in numbers" not in tables.as_markdown({"budgets": {}, "rows": returns})
    apart = [row | {"dataset": "random"} if row["method"] != "persim" else row for row in report]
    text = tables.as_markdown({"budgets": {}, "rows": apart})
    assert "PerSim returns most in 2 of 2 cases" in text and "PerSim's RMSE" not in text


def test_true_dynamics_do_not_dwarf_the_methods_in_the_figure():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    for bound, top, told in ((4.0, 5.0, []), (9.0, 3.0 + 0.3 * 4.0, ["9"])):
        figure, panel = plt.subplots()
        panel.set_ylim(-2, 5)
        own = {"true_model": {"a": [bound]}, "persim": {"a": [2.0, 4.0]}, "cadm": {"a": [-1.0]}}
        tables.fit_to_methods(panel, own)
        assert panel.get_ylim()[1] == pytest.approx(top)
        assert [text.get_text().strip() for text in panel.texts] == told
        plt.close(figure)


def test_a_table_under_its_old_names_is_read(tmp_path):
    old = [row | {"environment": "half_cheetah"} for row in rows(persim=[1.0])]
    (tmp_path / tables.OLD_FILE).write_text(json.dumps({"budgets": {"episodes": 3}, "rows": old}))
    report = tables.read(tmp_path)
    assert report["rows"] == [row | {"environment": "half_cheetah_body"} for row in old]
    tables.write(tmp_path, report)
    assert tables.find(tmp_path) == tmp_path / tables.FILE and tables.read(tmp_path) == report


def test_a_damaged_table_is_refused(tmp_path):
    for content in ("{", "[]", '{"budgets": {}, "rows": []}', '{"budgets": {}, "rows": [{"agent": 1}]}'):
        (tmp_path / tables.FILE).write_text(content)
        with pytest.raises(UserError, match="not a table of baselines"):
            tables.read(tmp_path)


FLAGS = (
    "--num_agents 6 --repeat 0 1 --environment cart_pole --dataset random --method true_model cadm "
    "--cadm_steps 3 --candidates 5 --cadm_candidates 3 --planned_episodes 1 --cadm_episodes 1 "
    "--trajectories 3"
).split()


@pytest.mark.mpi
def test_the_command_shares_experiments_goes_on_and_is_plotted(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for one rank as for two: sums depend on threads
    out = tmp_path / "out"
    words = ["experiments.persim_baselines", "--runs", tmp_path / "runs", "--out", out, *FLAGS]
    assert command(1, *words, "--method", "dreams").code == 2
    result = command(2, *words)
    assert result.code == 0, result.output
    assert "3 of 3 experiments" in result.output
    cells = sorted(path.parent.name for path in out.glob("cells/*/result.json"))
    assert cells == ["cart_pole__none__true_model__0"] + [
        f"cart_pole__random__cadm__{repeat}" for repeat in range(2)
    ]
    before = {path: path.read_bytes() for path in out.glob("*.*")}
    (out / "cells" / cells[1] / "result.json").unlink()
    result = command(1, *words)
    assert result.code == 0 and f"{cells[1]} in" in result.output, result.output
    assert not any(f"{cell} in" in result.output for cell in (cells[0], cells[2])), "done twice"
    assert {path: path.read_bytes() for path in out.glob("*.*")} == before, (
        "a cell depends on more than its seed"
    )
    part = [*map(str, words[1:]), "--repeat", "1", "--method", "cadm"]
    settings = persim_baselines.parse_settings(part, Comm())
    persim_baselines.write(persim_baselines.grid(settings, Comm()), settings)
    assert {path: path.read_bytes() for path in out.glob("*.*")} == before, "a part takes away the rest"
    result = command(1, *words[:-2], "--trajectories", "4")
    assert result.code == 2 and "other budgets (trajectories: 3 -> 4)" in result.output
    result = command(1, *words, "--train", "--max_iters many")
    assert result.code == 2 and "--max_iters" in result.output, result.output
    result = command(1, *words, "--repeat", "-1")
    assert result.code == 2 and "--repeat -1" in result.output, result.output
    (out / "config.json").unlink()  # a table alone, as another machine has it, also knows its budgets
    result = command(1, *words, "--trajectories", "4")
    assert result.code == 2 and "other budgets (trajectories: 3 -> 4)" in result.output
    result = command(1, "experiments.persim_baselines", "--show", out)
    assert result.code == 0 and (out / "baselines.png").stat().st_size > 10_000, result.output
    assert "true_model" in result.output
    assert json.loads((out / tables.FILE).read_text())["budgets"]["trajectories"] == 3


@pytest.mark.skipif(find_spec("d3rlpy") is not None, reason="d3rlpy is there")
def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["persim_baselines"])
    with pytest.raises(UserError, match="d3rlpy"):
        persim_baselines.parse_settings(["--runs", "r", "--out", "o"], Comm())
