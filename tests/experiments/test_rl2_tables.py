"""The tables of RL²: every cell has a recipe, the command goes on, tables come from what is stored."""

import csv
import subprocess
import sys

import pytest
import torch

from common.errors import UserError
from common.runs import checkpoint
from experiments import rl2_recipes, rl2_tables
from experiments.rl2_recipes import Cell
from mpi_utils.comm import Comm
from tests.helpers.launch import ROOT

TINY = {
    "environment": "bandit",
    "num_actions": 2,
    "num_features": 8,
    "precision": "float32",
    "warm_start": "gittins",
    "warm_start_iters": 1,
    "meta_episodes_per_policy_update": 12,
    "meta_episodes_per_learner_batch": 6,
    "max_iters": 2,
}
PAPER = {"RL²": 6.7, "Gittins": 6.6}


@pytest.fixture
def small(monkeypatch):
    """Three cells of five and six pulls, two of them with two seeds."""
    cells = [Cell(f"n{n}", TINY | {"meta_episode_len": n}, 20, paper=PAPER) for n in (5, 6)]
    compared = [Cell(name, TINY | {"meta_episode_len": 5}, 20, (0, 1), False) for name in ("lstm", "gru")]
    compared[1].flags["architecture"] = "gru"
    monkeypatch.setattr(rl2_tables, "TABLES", {"bandits": lambda: cells, "architectures": lambda: compared})
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(folder, name="bandits", *flags):
    where = ["--runs", str(folder / "runs"), "--table", str(folder / "out")]
    rl2_tables.make_table([name, *where, *flags], Comm())


def rows_of(folder, name="bandits"):
    with open(folder / "out" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_cell_has_a_recipe_that_train_accepts(tmp_path):
    names = {name: [cell.name for cell in cells()] for name, cells in rl2_recipes.TABLES.items()}
    assert names["bandits"] == [f"n{n}_k{k}" for n in (10, 100, 500) for k in (5, 10, 50)]
    assert names["mdps"] == ["n10", "n10_warm", "n25", "n50", "n75", "n100"]
    for name, cells in rl2_recipes.TABLES.items():
        for cell in cells():
            config = rl2_tables.config_of(cell, 1, name, str(tmp_path), Comm())
            assert config.seed == 1 and (
                config.iterations >= config.warm_start_iters or "warm_start" not in cell.flags
            )
    sizes = [(c.flags["meta_episode_len"], c.flags["num_actions"]) for c in rl2_recipes.bandits()]
    assert [f"n{n}_k{k}" for n, k in sizes] == names["bandits"]
    assert not list(tmp_path.iterdir())


def test_in_parts_and_on_from_where_it_stopped(small, tmp_path, capsys):
    make(tmp_path, "bandits", "--cells", "n6")
    first = rows_of(tmp_path)
    assert {row["cell"] for row in first} == {"n6"} and {"rl2", "gittins"} <= {row["method"] for row in first}
    assert (
        next(row for row in first if row["method"] == "rl2")["training"] == "imitation of Gittins, then PPO"
    )
    assert "Not trained yet: n5." in (tmp_path / "out" / "bandits.md").read_text()
    saved = checkpoint.newest_valid(tmp_path / "runs" / "bandits_n6")[0]
    stamp = saved.stat().st_mtime_ns
    capsys.readouterr()
    make(tmp_path)
    told = capsys.readouterr().out
    assert "training" in told and "bandits_n6" not in told and saved.stat().st_mtime_ns == stamp
    both = rows_of(tmp_path)
    assert both[len(both) - len(first) :] == first and {row["cell"] for row in both} == {"n5", "n6"}
    make(tmp_path, "bandits", "--cells", "n5")  # the other's rows stay, though it is not asked for
    assert rows_of(tmp_path) == both and "training" not in capsys.readouterr().out


def test_the_table_is_made_from_what_is_stored(small, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    lines = [
        ["n5", 0, "rl2", 6.123, 0.02, 20, "PPO", 2_500_000, 1.25, "2 x Abacus"],
        *(["n5", 0, name, mean, 0.3, 20] for name, mean in (("gittins", 6.5), ("ucb1", 6.4), ("oracle", 9))),
    ]
    with open(out / "bandits.csv", "w", newline="") as file:
        csv.writer(file).writerows([rl2_tables.COLUMNS, *lines])
    text = rl2_tables.markdown("bandits", out)
    returns = "| n5 | **6.12 ± 0.02** | 6.7 | 6.6 | gittins 6.5 ± 0.3 | ucb1 6.4 ± 0.3 | 2.89 |"
    assert (
        f"{returns} PPO | 2.5 | 1.2 |" in text
        and "Processors: 2 x Abacus." in text
        and "Not trained yet: n6." in text
    )


def test_over_seeds_after_equal_steps_and_minutes(small, tmp_path):
    make(tmp_path, "architectures")
    rows = rows_of(tmp_path, "architectures")
    assert [(row["cell"], row["seed"], row["method"]) for row in rows] == [
        (cell, seed, "rl2") for cell in ("lstm", "gru") for seed in "01"
    ]
    text = (tmp_path / "out" / "architectures.md").read_text()
    assert "| lstm | " in text and "| gru | " in text and "equal" not in text
    curve = [{"return": str(value), "minutes": str(value)} for value in range(1, 21)]
    assert rl2_tables.at_minutes(curve, 5) == 3 and rl2_tables.at_minutes(curve, 20) == 15.5


def test_shipped_models_are_evaluated_and_not_trained(tmp_path, capsys):
    make(tmp_path, "bandits", "--cells", "n10_k5", "--shipped", "True", "--instances", "30")
    assert "training" not in capsys.readouterr().out
    own = next(row for row in rows_of(tmp_path) if row["method"] == "rl2")
    assert own["env_steps"] == "14400000" and own["training"] == "PPO" and own["n"] == "30"
    make(tmp_path, "bandits", "--cells", "n10_k5", "--shipped", "True", "--instances", "30")
    assert next(row for row in rows_of(tmp_path) if row["method"] == "rl2") == own


BAD = {
    "no table": ([], "one of bandits"),
    "unknown table": (["bandit", "--runs", "r", "--table", "t"], "one of bandits"),
    "unknown cell": (["mdps", "--runs", "r", "--table", "t", "--cells", "n10,n11"], "--cells n11: .*n25"),
    "no folder": (["mdps", "--runs", "r"], "--table: missing"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_is_one_line(mistake, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words, named = BAD[mistake]
    with pytest.raises(UserError, match=named) as error:
        rl2_tables.make_table(words, Comm())
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_ends_with_code_2_at_a_cell_that_is_none(tmp_path):
    where = ["--runs", tmp_path / "runs", "--table", tmp_path / "out"]
    command = [sys.executable, "-m", "experiments.rl2_tables", "bandits", *where, "--cells", "n7_k7"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1 and "--cells n7_k7" in ended.stderr
