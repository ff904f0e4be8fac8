"""Tables of experiments.caml_study, and the bound on the last reward."""

import functools
import json

import numpy as np
import pytest

from caml import evaluation
from caml.config import Config
from common.errors import UserError
from envs import make_family
from experiments import caml_study, caml_tables
from mpi_utils.comm import Comm

SHOTS = [
    dict(zip(caml_study.SHOT_COLUMNS, [seed, method, metric, u, base + seed + u, 1_500_000], strict=True))
    for method, base in (("caml", 5.0), ("random", 0.0), ("same_agent", 10.0))
    for metric in ("last_reward", "return")
    for u in (0, 1)
    for seed in (1, 3)
]


def test_intervals_by_hand():
    # 1 and 3: mean 2, standard error 1, the quantile of one degree of freedom is 12.706.
    assert caml_tables.interval([1.0, 3.0], 3) == "2.000 ± 12.706"
    assert caml_tables.interval([10.0, 30.0], 1) == "20.0 ± 127.1"
    assert caml_tables.interval([4.0], 3) == "4.000 ± -"


def test_tables_hold_means_over_seeds():
    lines = [["a", s, u, 0.5 * s, 1.0, -u - s, -0.1] for s in (1, 2) for u in (0, 10)]
    study = [dict(zip(caml_study.STUDY_COLUMNS, line, strict=True)) for line in lines]
    text = caml_tables.markdown(study, SHOTS)
    assert "| a | 0.75 (min 0.50) | 0.75 (min 0.50) | 1.00 | -1.500 | -11.500 | -0.100 |" in text
    assert "| caml | 7.000 ± 12.706 | 8.000 ± 12.706 | 1.50 million |" in text
    assert "| same agent | 1.00 | 1.00 |" in text and "| caml | 0.50 | 0.50 |" in text
    pooled = caml_tables.pooled(SHOTS)
    first = next(r for r in pooled if (r["method"], r["metric"], r["update"]) == ("caml", "return", 1))
    assert (first["mean"], first["se"], first["n"]) == (8.0, 1.0, 2)


def test_the_bound_on_the_last_reward():
    moves = make_family("particle").sample(np.random.default_rng(0), 1)["moves"]
    moves[0] = [[-1, 0], [1, 0], [0, -1], [0, 1]]  # (0.485, 0.485) is the nearest
    assert caml_study.best_last_rewards(moves)[0] == pytest.approx(-2 * (0.75 - 0.485) ** 2)
    moves[0, 1] = 0.75 / 0.97
    assert caml_study.best_last_rewards(moves)[0] == pytest.approx(0, abs=1e-6)


def test_no_play_passes_the_bound():
    family = make_family("particle")
    types = family.sample(np.random.default_rng(1), 50)
    bound, rng = caml_study.best_last_rewards(types["moves"]), np.random.default_rng(2)
    env = family.make_vec(types)
    env.reset()
    towards = (types["moves"].sum(-1) > 0).argsort(1)[:, 2:]  # the two actions that go right or up
    for _ in range(100):
        reward = env.step(towards[np.arange(50), rng.integers(2, size=50)])[1]
    assert (reward <= bound + 1e-6).all() and (reward > bound - 0.5).any()


@pytest.mark.slow
def test_the_command_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    flags = ["--runs", str(tmp_path / "runs"), "--seeds", "3", "--max_iters", "2", "--baselines", "random"]
    monkeypatch.setattr(evaluation, "CHECKPOINTS", (0, 1))
    small = {"num_groups": 2, "num_variants": 2, "num_support": 2, "num_medoids": 2, "max_episode_len": 10}
    small |= {"tasks_per_iteration": 4, "pool_size": 4}
    monkeypatch.setattr(caml_study, "Config", functools.partial(Config, **small))
    monkeypatch.setattr(caml_study, "STUDIES", {"released": {"maps": "released"}})
    monkeypatch.setattr(caml_study, "VARIANTS", {"caml, no entropy bonus": {"entropy_coef": 0.0}})
    monkeypatch.setattr("sys.argv", ["caml_study", str(tmp_path / "out"), *flags])
    caml_study.main(Comm())
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert first.keys() == {"study.csv", "few_shot.csv", "tables.md", "figure.png"}
    assert b"\n3,caml," in first["few_shot.csv"] and b'"caml, halving"' in first["few_shot.csv"]
    assert first["study.csv"].startswith(b"population,seed,update,adjusted_rand_index,attainable_index")
    assert "training" in capsys.readouterr().out
    stored = next((tmp_path / "runs" / "studies").glob("*.json"))
    assert json.loads(stored.read_bytes())["config"]["maps"] == "released"
    caml_study.main(Comm())
    again = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    out = capsys.readouterr().out
    assert again == first and "training" not in out and "study:" not in out


@pytest.mark.parametrize("arguments", [[], ["out"], ["--runs", "x"], "out --runs x --baselines no".split()])
def test_commands_that_cannot_be_meant_are_refused(arguments):
    with pytest.raises(UserError) as caught:
        caml_study.parse(arguments, Comm())
    assert "\n" not in str(caught.value)
