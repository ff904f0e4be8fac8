"""The protocol's shares by hand, its controllers, its published rows, and how gains are chosen."""

import csv
import json
import sys

import numpy as np
import pytest

import evaluate
import train
from common.errors import UserError
from common.rollout import Episodes
from envs.diabetes import EDGES, NOTE, Diabetes
from envs.diabetes.physiology import basal_rate
from envs.populate import main as populate
from experiments import diabetes, diabetes_tuning
from experiments.diabetes import measure, play_days, repeated
from experiments.diabetes_controllers import BasalBolus, ConstantRate, Feedback, estimated, own_basal
from mpi_utils.comm import Comm
from tests.helpers.launch import ROOT
from tests.helpers.simglucose import needs_simglucose


@needs_simglucose
def test_shares_of_a_day_by_hand():
    """An adult who fails after two of four steps, and a child in all bands."""
    family = Diabetes(max_episode_len=4)
    env = family.make_vec(family.members(["adult#001", "child#001"]), np.random.default_rng(0))
    readings = ([100.0, 30.0], [54.0, 70.0, 180.0, 251.0])
    env.above = np.stack([(np.array(own) > EDGES).sum(1) for own in readings], axis=1)
    env.elapsed, env.total = np.array([2, 4]), np.array([0.2, 0.4])
    days = Episodes(np.array([-14.0, 3.0]), env.elapsed, env.measures())
    adult, child, everyone = measure(days, np.array([1, 2]))
    assert adult["patients"] == "adult" and child["patients"] == "child" and everyone["days"] == 1
    assert (adult["in_range"], adult["in_range_whole"], adult["failed"]) == (50, 25, 100)
    assert (adult["to 54"], adult["54-70"], adult["return"]) == (50, 0, -14)
    assert [child[band] for band in ("to 54", "54-70", "in_range", "180-250", "over 250")] == [25] * 3 + [
        0,
        25,
    ]
    assert child["failed"] == 0 and everyone["return"] == -5.5 and everyone["return_worst"] == -14
    assert everyone["in_range"] == 37.5 and everyone["in_range_sd"] == 12.5 and everyone["insulin"] == 1.5


def observation(readings, grams=0.0):
    """[1, 25] of the last 12 readings."""
    pairs = np.zeros((12, 2))
    pairs[:, 0] = 2 * (np.broadcast_to(readings, 12) - 39) / 561 - 1
    return np.append(pairs.ravel(), grams / 120)[None]


def test_basal_bolus_by_hand():
    """TDI 50: basal 24 U a day, 10 g/U, 36 mg/dl per U."""
    actor = BasalBolus({"TDI": np.array([50.0])})
    actor.reset(1)
    basal = 24 / 1440
    assert actor.act(observation(200), None, None)[0, 0] == pytest.approx(basal)
    dose = actor.act(observation(176, grams=40), None, None)[0, 0]
    assert dose == pytest.approx(basal + (40 / 10 + 36 / 36) / 5)
    for _ in range(34):
        actor.act(observation(200), None, None)
    dose = actor.act(observation(176, grams=40), None, None)[0, 0]
    assert dose == pytest.approx(basal + 4 / 5), "no correction within three hours of a meal"
    actor.act(observation(200), None, np.array([True]))
    assert actor.act(observation(149, grams=10), None, None)[0, 0] == pytest.approx(basal + 1 / 5)


def test_grams_are_misjudged_by_the_published_formula():
    found = estimated(np.array([40.0, 80.0, 60.0, 10.0]), np.array([7, 12, 19, 3]))
    breakfast = 40 + 3.56 - 2.8 - 1.28
    lunch = 80 + 3.56 - 5.6 - 5.12 + 6.77 - 6.4
    dinner = 60 + 3.56 - 4.2 - 2.88 + 18.01 - 15
    snack = 10 + 3.56 - 0.7 - 0.08 - 0.49 - 0.6
    np.testing.assert_allclose(found, [breakfast, lunch, dinner, snack])


def test_feedback_by_hand():
    gains, unit = np.array([[1.0, 0.02, 0.5, 0.1]]), np.array([0.01])
    actor = Feedback(gains, unit)
    actor.reset(1)
    steady = actor.act(observation(170)[:, :-1], None, None)[0, 0]
    assert steady == pytest.approx(0.01 * (1 + 0.02 * 50))
    rising = observation(np.append(np.full(9, 140.0), [150, 160, 170]))[:, :-1]
    own = 5 * 1.0  # 1 unit above the base for five minutes
    assert actor.act(rising, None, None)[0, 0] == pytest.approx(0.01 * (2 + 0.5 * 2 - 0.1 * own))
    assert actor.act(observation(60)[:, :-1], None, None)[0, 0] == 0, "never below zero"
    with pytest.raises(ValueError, match="gains of 1 patients for 2"):
        actor.reset(2)
    with pytest.raises(ValueError, match="rates of 1 patients for 3"):
        ConstantRate(unit).reset(3)


@needs_simglucose
def test_the_published_rows_of_basal_bolus_come_back():
    """Time in range within 1 point for adults and adolescents, and its deviation; 40 days of each patient."""
    family = Diabetes(meals="fixed", start="clinic", **BasalBolus.settings)
    patients = family.members(["adult", "adolescent"])
    actor = BasalBolus(repeated(patients, 40), first_minute=23 * 60)
    adult, adolescent, _ = measure(play_days(family, patients, actor, 40, seed=1), patients["group"])
    assert adult["in_range"] == pytest.approx(71.02, abs=1) and adult["in_range_sd"] == pytest.approx(
        11.3, abs=1
    )
    assert adolescent["in_range"] == pytest.approx(71.43, abs=1) and adolescent["failed"] < 0.5
    assert adult["54-70"] == pytest.approx(0.64, abs=0.4) and adult["over 250"] == pytest.approx(
        3.85, abs=0.7
    )
    assert adolescent["180-250"] == pytest.approx(19.64, abs=1)


@needs_simglucose
def test_by_patient_too():
    """Each adolescent within 1 point: 1,500 days there, 300 here."""
    theirs = [97.83, 62.31, 56.45, 61.45, 67.33, 87.04, 65.42, 68.58, 72.90, 74.97]
    family = Diabetes(meals="fixed", start="clinic", **BasalBolus.settings)
    patients = family.members("adolescent")
    actor = BasalBolus(repeated(patients, 300), first_minute=23 * 60)
    days = play_days(family, patients, actor, 300, seed=3)
    ours = days.measures["in range (%)"].reshape(300, 10).mean(0)
    assert np.abs(ours - theirs).max() < 1


@needs_simglucose
def test_own_basal_rates_keep_patients_at_rest_without_meals():
    family = Diabetes(meals=[], **ConstantRate.settings)
    patients = family.members()
    days = play_days(family, patients, own_basal(patients), 1, seed=0)
    everyone = measure(days, patients["group"])[-1]
    assert everyone["failed"] == 0 and everyone["in_range"] > 97
    np.testing.assert_allclose(days.measures["insulin (U)"], 1440 * basal_rate(patients), rtol=1e-3)


def test_best_sets_of_a_small_table():
    value = np.array([[5.0, 0, 4, 0], [5, 0, 4, 0], [0, 5, 4, 0], [0, 5, 4, 0]])
    assert diabetes_tuning.best_set(value, 1).tolist() == [2]
    assert sorted(diabetes_tuning.best_set(value, 2).tolist()) == [0, 1], "greedy begins with 2 and exchanges"
    sets = diabetes_tuning.sets_of(
        np.repeat(value, 3, axis=1), np.arange(48.0).reshape(12, 4), np.arange(4) % 3
    )
    assert sets["all patients"] == {"gains": [[24, 25, 26, 27]], "policy_of": [0] * 4}
    assert sets["each patient"]["policy_of"] == [0, 1, 2, 3] and len(sets["age group"]["gains"]) == 3


@needs_simglucose
def test_candidates_play_the_same_days():
    gains = np.array([[0.01, 1e-4, 0, 0], [0.02, 0, 0, 0], [0.01, 1e-4, 0, 0]])
    value = diabetes_tuning.returns("published", "absolute", gains, 1, 0)
    assert value.shape == (30, 3)
    np.testing.assert_array_equal(value[:, 0], value[:, 2])
    assert np.abs(value[:, 0] - value[:, 1]).min() > 0
    np.testing.assert_array_equal(
        diabetes_tuning.returns("published", "absolute", gains[1:], 1, 0), value[:, 1:]
    )


@needs_simglucose
@pytest.mark.slow
def test_both_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(diabetes_tuning, "NUM_POLICIES", (3,))
    monkeypatch.setattr(diabetes_tuning, "RATES", np.array([0.01, 0.02]))
    gains, out = tmp_path / "new/gains.json", tmp_path / "other/table"
    flags = ["--out", str(gains), "--candidates", "12", "--days", "1", "--more", "1"]
    monkeypatch.setattr(sys, "argv", ["tuning", *flags])
    diabetes_tuning.main(Comm())
    assert set(json.loads(gains.read_text())["published"]["feedback"]) == {"absolute", "relative"}
    monkeypatch.setattr(sys, "argv", ["table", "--gains", str(gains), "--days", "1", "--out", str(out)])
    diabetes.main(Comm())
    printed = capsys.readouterr().out
    assert "nothing here is medical advice" in printed and "Stomach emptying: published" in printed
    assert (
        "| published: G2P2C, one each | 10 | 254 |" in printed
        and "feedback relative, 3 groups | 3 |" in printed
    )
    assert out.with_suffix(".md").read_text() in printed
    assert len(out.with_suffix(".csv").read_text().splitlines()) == 1 + 4 * (2 + 3 + 1 + 2 * 4)


def test_missing_gains_are_told_with_the_command(tmp_path):
    with pytest.raises(UserError, match="python -m experiments.diabetes_tuning --absorption corrected --out"):
        diabetes.read_gains(tmp_path / "none.json", "corrected")


@needs_simglucose
@pytest.mark.slow
def test_trained_runs_stand_in_the_table(tmp_path, monkeypatch, capsys):
    """The run's own doses are used, each patient has the policy it is assigned to, and others are refused."""
    everyone, adults = tmp_path / "all.npz", tmp_path / "adults.npz"
    populate(["diabetes_relative", "--members", "all", "--out", str(everyone)])
    populate(["diabetes_relative", "--members", "adult", "--out", str(adults)])
    sizes = "--num_policies 2 --max_iters 1 --warm_start_iters 0 --steps_per_policy 64 --envs_per_policy 8"
    for name, agents, count in (("all", everyone, 30), ("adults", adults, 10)):
        words = f"train rmdp --environment diabetes_relative --num_agents {count} {sizes} --num_minibatches 4"
        words += f" --population {agents} --checkpoint_dir {tmp_path} --model_name {name}"
        monkeypatch.setattr(sys, "argv", words.split())
        train.main(Comm())
    flags = ["--episodes", "1", "--baselines", "none"]
    monkeypatch.setattr(sys, "argv", ["evaluate", str(tmp_path / "all"), *flags])
    evaluate.main(Comm())
    assert NOTE in capsys.readouterr().out
    policies, start, actor = diabetes.load_run(str(tmp_path / "all"))
    assert (policies, start, actor.settings["dose"]) == (2, "normal", "relative")
    folders = f"{tmp_path}/all,{tmp_path}/all"
    words = f"table --days 1 --out {tmp_path}/table --runs {tmp_path}/all".split()
    monkeypatch.setattr(sys, "argv", [*words, f"r-MDP, k = 2={folders}"])
    monkeypatch.setattr(diabetes, "controllers", lambda *_: {})
    diabetes.main(Comm())
    one, seeds = (list(csv.DictReader((tmp_path / "table.csv").open(newline="")))[i] for i in (11, 15))
    assert (one["method"], seeds["method"], seeds["policies"]) == ("all", "r-MDP, k = 2", "2")
    assert one["return_seed_sd"] == "" and seeds["return_seed_sd"] == "0"
    assert [one[name] for name in ("return", "in_range")] == [seeds[name] for name in ("return", "in_range")]
    assert "| r-MDP, k = 2 | 2 | " in (text := (tmp_path / "table.md").read_text()) and " ± 0 |" in text
    family = diabetes.family_of(actor, start, "published", 0.0)
    assert family.action_space.shape == (1,) and family.start == "normal"
    days = play_days(family, family.members(), actor, 2, seed=0)
    assert days.returns.shape == (60,) and (days.measures["insulin (U)"] > 0).all()
    with pytest.raises(UserError, match="its population is not the 30 patients"):
        diabetes.load_run(str(tmp_path / "adults"))
    with pytest.raises(UserError, match="was trained in cart_pole, not with diabetes patients"):
        diabetes.load_run(str(ROOT / "checkpoints/examples/persim_cart_pole_pure"))


@needs_simglucose
def test_a_memory_s_second_day(tmp_path, monkeypatch):
    """RL² stands in the table twice, and knows more on the second day; only chosen patients count."""
    populate(["diabetes_reading", "--members", "adult,child", "--out", str(tmp_path / "some.npz")])
    words = "train rl2 --environment diabetes_reading --meta_episode_len 300 --meta_episodes_per_start 1"
    words += " --num_features 8 --meta_episodes_per_policy_update 2 --max_iters 1"
    words += " --meta_episodes_per_learner_batch 2"
    words += f" --population {tmp_path}/some.npz --checkpoint_dir {tmp_path} --model_name memory"
    monkeypatch.setattr(sys, "argv", words.split())
    train.main(Comm())
    words = f"table --days 2 --members adolescent#002,child --out {tmp_path}/table --runs {tmp_path}/memory"
    monkeypatch.setattr(sys, "argv", words.split())
    monkeypatch.setattr(diabetes, "controllers", lambda *_: {})
    diabetes.main(Comm())
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["start"] == "normal"]
    cohorts = ["adolescent", "child", "all"]
    assert [row["patients"] for row in rows] == 2 * cohorts
    assert [row["method"] for row in rows] == 3 * ["memory"] + 3 * ["memory, second day"]
    assert all(one["return"] != two["return"] for one, two in zip(rows[:3], rows[3:], strict=True))


@needs_simglucose
def test_policies_by_group_serve_patients_they_have_not_seen():
    patients = Diabetes().members()
    some = Diabetes().members(["child#003", "adult#002", "adolescent#009"])
    serving = diabetes.alike("run", some, patients, "group")
    assert [int(some["group"][i]) for i in serving] == patients["group"].tolist()
    with pytest.raises(UserError, match="no agent of its population has group of 0"):
        diabetes.alike("run", Diabetes().members(["child", "adult"]), patients, "group")


def test_rows_of_seeds(monkeypatch):
    rows = [
        [{"patients": "all", "days": 3, "return": 100.0 + seed, "failed": 2.0 * seed}] for seed in (0, 1, 2)
    ]
    assert diabetes.over_seeds(rows) == [
        {"patients": "all", "days": 3, "return": 101.0, "failed": 2.0, "return_seed_sd": 1.0}
    ]
    assert diabetes.over_seeds(rows[:1]) == rows[0]
    assert diabetes.titled("runs/k3") == ("k3", ["runs/k3"])
    assert diabetes.titled("r-MDP, k = 3=a,b") == ("r-MDP, k = 3", ["a", "b"])
    monkeypatch.setattr(diabetes, "load_run", lambda folder: (len(folder), "normal", None))
    with pytest.raises(UserError, match="--runs both: runs of 1 and 2 policies; give seeds of one setting"):
        diabetes.load_runs("both", ["a", "bb"])
