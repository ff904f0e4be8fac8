"""The 30 patients, new ones between them, and populations of them that cannot be."""

import importlib.metadata

import numpy as np
import pytest

from envs import Population, make_family
from envs.diabetes import Diabetes
from envs.diabetes.patients import NAMES, PHYSIOLOGY, between, check_patients, choose, read_patients
from envs.diabetes.physiology import basal_rate
from envs.parameters import EnvError
from envs.populate import main as populate
from tests.helpers.simglucose import needs_simglucose


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(EnvError, match=r"run pip install --no-deps simglucose==0\.2\.2$"):
        Diabetes().members()


def test_a_package_without_its_files_is_told(monkeypatch, tmp_path):
    class Empty:
        version = "9"

        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Empty())
    with pytest.raises(EnvError, match="vpatient_params.csv of simglucose 9 cannot be read"):
        read_patients()
    (tmp_path / "simglucose/params").mkdir(parents=True)
    (tmp_path / "simglucose/params/vpatient_params.csv").write_text("Name,BW\nadult#001,70\n")
    (tmp_path / "simglucose/params/Quest.csv").write_text("Name,CR\nadult#001,10\n")
    with pytest.raises(EnvError, match="simglucose 9 lacks a parameter or a patient"):
        read_patients()


@needs_simglucose
def test_members_by_group_and_by_name():
    names, everyone = read_patients()
    assert names[0] == "adolescent#001" and names[10] == "adult#001" and names[29] == "child#010"
    assert everyone["group"].tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert everyone["BW"].min() > 20 and everyone["BW"].max() < 120
    np.testing.assert_array_equal(choose("adult")["BW"], everyone["BW"][10:20])
    some = choose(["child#003", "adult#001"])
    assert some["TDI"].tolist() == everyone["TDI"][[22, 10]].tolist()
    basal = basal_rate(everyone)
    assert basal.min() == pytest.approx(0.0048, abs=5e-5) and basal.max() == pytest.approx(0.0287, abs=5e-5)
    for wrong in ("adult#01", "adult#011", "teen", ""):
        with pytest.raises(EnvError, match="no parameters of a patient"):
            choose(wrong)


@needs_simglucose
def test_new_patients_lie_between_two_of_one_group():
    known, n = choose("all"), 2000
    drawn = between(known, np.random.default_rng(0), n)
    assert np.bincount(drawn["group"]).tolist() == pytest.approx([n / 3] * 3, rel=0.1)
    for name in PHYSIOLOGY:
        for group in range(3):
            ours, theirs = (p[name][p["group"] == group] for p in (drawn, known))
            assert ours.min() >= theirs.min() * (1 - 1e-12) and ours.max() <= theirs.max() * (1 + 1e-12)
    assert len(np.unique(drawn["BW"])) > 0.85 * n  # a tenth has the same patient twice
    check_patients("here", drawn)
    two = {name: values[[3, 7]] for name, values in known.items()}
    mixed = between(two, np.random.default_rng(1), 50)
    weight = np.log(mixed["BW"] / two["BW"][0]) / np.log(two["BW"][1] / two["BW"][0])
    np.testing.assert_allclose(mixed["Ib"], two["Ib"][0] * (two["Ib"][1] / two["Ib"][0]) ** weight)
    assert weight.min() >= -1e-9 and weight.max() <= 1 + 1e-9 and ((weight > 0.01) & (weight < 0.99)).any()
    alone = between(choose("child#002"), np.random.default_rng(1), 3)
    np.testing.assert_allclose(alone["Gb"], choose("child#002")["Gb"].repeat(3))


@needs_simglucose
@pytest.mark.parametrize(
    "flags, size",
    [
        (["--members", "all"], 30),
        (["--members", "adult,child#001"], 11),
        (["--num_agents", "200", "--seed", "3"], 200),
    ],
)
def test_population_files(tmp_path, capsys, flags, size):
    path = tmp_path / "patients.npz"
    populate(["diabetes", *flags, "--out", str(path)])
    assert f"diabetes: {size} tasks" in capsys.readouterr().out
    agents = make_family("diabetes").check(Population.load(path).parameters)
    assert set(agents) == set(NAMES) and len(agents["BW"]) == size


@needs_simglucose
def test_population_flags_that_cannot_be(tmp_path):
    out = ["--out", str(tmp_path / "x.npz")]
    with pytest.raises(EnvError, match="cart_pole has no agents by name"):
        populate(["cart_pole", "--members", "all", *out])
    with pytest.raises(EnvError, match="'adults'"):
        populate(["diabetes", "--members", "adults", *out])
    with pytest.raises(EnvError, match="--table and --members"):
        populate(["diabetes", "--members", "all", "--table", "t.csv", *out])


@needs_simglucose
@pytest.mark.parametrize(
    "change, text",
    [
        ({"BW": [70, -1]}, "BW of task 1 is -1"),
        ({"Gb": [7.8, 8.1]}, "Gb of task 0 is 7.8; it must be in mg/dl"),
        ({"group": [0.5, 1]}, "group must be whole numbers"),
        ({"group": [1, 3]}, "group must be whole numbers"),
        ({"kmin": [1.0, 0.01]}, "kmin of task 0 is 1; it must be at most kmax"),
        ({"b": [0.5, 1.0]}, "b of task 1 is 1; it must be below 1"),
        ({"EGPb": [2.0, 0.9]}, "EGPb of task 1 is 0.9; it must be above 1"),
        ({"Ib": [np.nan, 1]}, "'Ib' of task 0 is not finite"),
        ({"Ib": None}, "parameters are"),
    ],
)
def test_patients_that_cannot_be(change, text):
    parameters = {**choose(["adult#001", "adult#002"])}
    for name, values in change.items():
        if values is None:
            del parameters[name]
        else:
            parameters[name] = np.array(values)
    with pytest.raises(EnvError, match=text):
        make_family("diabetes").check(parameters)
