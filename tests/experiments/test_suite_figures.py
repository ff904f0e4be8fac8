"""Pictures of the suite are of what the run does; what has no picture is refused."""

import sys

import numpy as np
import pytest

import rl2
from common.errors import UserError
from experiments import suite_figures
from experiments.suite_figures import play
from mpi_utils.comm import Comm

GRID = "checkpoints/examples/grid_navi"


def draw(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["suite_figures", *map(str, words)])
    suite_figures.main(Comm())


def test_a_walk_begins_in_the_corner_and_ends_on_the_goal():
    family = rl2.load_problem(GRID).family
    env = family.make_vec({"goal": np.array([12, 20])}, rng=np.random.default_rng(0))
    at = play(rl2.load(GRID), env, 45, lambda _, cell: np.array(cell))
    assert at.shape == (46, 2)
    assert (at[[0, 15, 30]] == 0).all()  # each episode's start
    assert (at[[29, 44]] == [12, 20]).all()  # known from the second episode on


def test_pictures_are_written(tmp_path, monkeypatch, capsys):
    draw(monkeypatch, GRID, "--out", tmp_path / "walks.svg", "--tasks", 12)
    assert (tmp_path / "walks.svg").read_text().count("<use") > 45  # a marker for each place
    assert capsys.readouterr().out.strip().endswith("walks.svg")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([GRID, "--tasks", 5], "no goal of grid_navi"),
        (["checkpoints/examples/bandit_n10_k5"], "was trained in bandit"),
        ([GRID, "--tasks", "nan"], "finite"),
        ([GRID, "--out", "a.txt"], "--out a.txt"),
    ],
)
def test_what_has_no_picture(words, message, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=message):
        draw(monkeypatch, "--out", tmp_path / "a.png", *words)
