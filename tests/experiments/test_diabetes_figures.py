"""Pictures of a tiny protocol: the command, what is drawn where, and what is refused."""

import csv

import numpy as np
import pytest

from experiments import diabetes, diabetes_figures
from tests.helpers.launch import ROOT, command
from tests.helpers.simglucose import needs_simglucose

ROWS = [("feedback absolute, all patients", 1, 50), ("r-MDP absolute, k = 3", 3, 70)]
ROWS += [("RL², second day", 1, 80), ("RL²", 1, 75)]
ROWS += [("r-MDP absolute, k = 1", 1, 60), ("r-MDP absolute, age group", 3, 65), ("own basal rate", 30, 40)]


@pytest.fixture
def protocol(tmp_path):
    """A table of two cohorts, whose "clinic" rows are not drawn."""
    names = ["return", "return_worst", "in_range", "in_range_worst"]
    with open(tmp_path / "protocol.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "start", "patients", "policies", *names])
        for start in ("normal", "clinic"):
            for cohort in ("adult", "all"):
                for method, policies, value in ROWS:
                    writer.writerow([method, start, cohort, policies, *(value + i for i in range(4))])
    return tmp_path / "protocol.csv"


def test_lines_and_stars(protocol, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(diabetes_figures.plots, "save", lambda drawn, path, **_: kept.append(drawn))
    diabetes_figures.draw_policies(diabetes_figures.read_protocol(protocol), tmp_path / "x.png")
    (drawn,) = kept
    panels = drawn.axes
    assert [axes.get_title() for axes in panels] == ["all patients", "adults", "", ""]
    lines = {line.get_label(): line for line in panels[0].lines if not line.get_label().startswith("_")}
    expected = {"feedback absolute", "r-MDP absolute", "r-MDP absolute, by age", "RL², second day"}
    assert set(lines) == expected
    np.testing.assert_array_equal(lines["RL², second day"].get_xydata(), [[1, 82]])
    np.testing.assert_array_equal(lines["r-MDP absolute"].get_xydata(), [[1, 62], [3, 72]])
    np.testing.assert_array_equal(lines["r-MDP absolute, by age"].get_xydata(), [[3, 67]])


@needs_simglucose
def test_the_command(protocol, tmp_path):
    module, flags = "experiments.diabetes_figures", ["--protocol", protocol, "--out", tmp_path / "new"]
    for wrong, said in (
        (["--actors", "nobody"], "--actors 'nobody': give TITLE=FOLDER or one of basal-bolus"),
        (["--patient", "child#011"], "--patient child#011: give one of adolescent#001 to child#010"),
        (["--sharing", "x=checkpoints/none"], "checkpoints/none: no such run folder"),
        (["--protocol", diabetes.GAINS], "is no table of the protocol"),
        (["--protocol", tmp_path / "none"], "is no table of the protocol"),
    ):
        done = command(1, module, *flags, *wrong)
        assert done.code == 2 and said in " ".join(done.output.split()), done.output
        assert not (tmp_path / "new").exists()
    run = ROOT / "checkpoints/examples/rmdp_diabetes_k3"
    done = command(1, module, *flags, "--sharing", f"three policies={run}")
    assert done.code == 0 and "nothing here is medical advice" in done.output
    for name in ("policies", "day", "sharing"):
        assert (tmp_path / f"new/{name}.png").read_bytes().startswith(b"\x89PNG")


@needs_simglucose
def test_a_day_ends_where_it_fails():
    tuned = diabetes.read_gains(diabetes.GAINS, "published")
    names = ["own basal rate", "feedback absolute, all patients"]
    for name, (start, actor) in diabetes_figures.actors_of(names, tuned, "published", 5000).items():
        for row in (22, 3):
            day = diabetes_figures.play_day(actor, start, "published", row, 5000)
            assert day["failed"] == (len(day["glucose"]) < 288), name
            assert not day["failed"] or not 40 < day["glucose"][-1] < 600
            assert set(day["eaten"]) <= {0, 40, 80, 60} and len(day["given"]) == len(day["eaten"])
