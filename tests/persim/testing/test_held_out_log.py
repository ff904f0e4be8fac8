"""Predictions held against a log: windows, agents known and new, and what is refused."""

import dataclasses
import functools
import re

import numpy as np
import pytest

from common.errors import UserError
from common.runs import checkpoint, run_folder
from mpi_utils.comm import Comm
from persim import evaluation
from persim.testing import report
from persim.testing.held_out_log import spans, windows
from tests.helpers.launch import mpirun
from tests.persim.logged import transitions
from tests.persim.runs import configured
from tests.persim.runs import trained as train

# x grows by a * (action - 1), v by its agent's pull: two factors say it all.
PULLS = {f"p{i}": -1 + i / 10 for i in range(20)} | {"new": 0.7, "short": 0.1}


def table(names, start, steps, seed=0, actions=3):
    """A log [csv text] of the agents `names`, `steps` each, in dynamics of known factors."""
    rng, lines = np.random.default_rng(seed), ["agent,time,state_x,state_v,action,reward"]
    for name in names:
        x, v = rng.normal(size=2)
        for t in range(steps if name != "short" else 4):
            action = int(rng.integers(actions))
            lines.append(f"{name},{start + t},{x:.9g},{v:.9g},{action},0")
            x, v = x + 0.1 * (action - 1), v + 0.1 * PULLS[name] - 0.05 * v
    return "\n".join([*lines, ""])


@functools.cache
def trained(folder, pooled=False):
    (folder / "log.csv").write_text(table([f"p{i}" for i in range(20)], 0, 60))
    sizes = {"num_models": 2, "num_factors": 3, "state_features": 64, "max_iters": 20}
    config = configured(
        "unknown", dataset=str(folder / "log.csv"), action_kind="discrete", pooled=pooled, **sizes
    )
    return dataclasses.asdict(config), train(config).state_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


def rows_of(folder, log, *flags, pooled=False):
    (folder / "held.csv").write_text(log)
    stored, state = trained(folder, pooled)
    settings = evaluation.parse_settings(["--log", str(folder / "held.csv"), *flags], show=False)
    return evaluation.evaluate(stored, state, settings, Comm())


def fits(rows, method):
    return {
        r["agent"]: r["mean"]
        for r in rows
        if r["metric"] == "median_r2" and r["method"] == method and "agent" in r
    }


def test_known_and_new_agents_are_predicted_on_steps_that_nobody_trained_on(folder, capsys):
    rows = rows_of(folder, table(["p3", "new", "p17"], 100, 80, seed=1))
    known, new = fits(rows, "persim"), fits(rows, "from_steps")
    assert list(known) == ["p3", "p17"] and list(new) == ["new"]
    assert min(*known.values(), *new.values()) > 0.9
    assert all(abs(value) < 1e-9 for value in fits(rows, "mean").values())
    report.show(rows)
    shown = capsys.readouterr().out
    assert "p17" in shown and "from_steps" in shown and "new" in shown
    evaluation.plot(rows, folder / "figure.png", "held out")
    assert (folder / "figure.png").stat().st_size > 10_000


@pytest.mark.slow
def test_without_factors_agents_that_differ_are_predicted_worse(folder):
    log = table(["p0", "p19"], 100, 60, seed=1)
    own, pooled = fits(rows_of(folder, log), "persim"), fits(rows_of(folder, log, pooled=True), "pooled")
    assert all(own[name] > pooled[name] + 0.05 for name in ("p0", "p19"))


def test_windows_follow_one_another_and_never_cross_a_gap_or_a_jump():
    time = np.array([*range(60), *range(70, 75), 3])
    state = np.stack([np.arange(66.0), np.zeros(66)], axis=1).astype(np.float32)
    following = state + np.array([1, 0], np.float32)
    following[62] += 5  # the state jumps after row 62
    data = transitions(
        agent=np.array([0] * 65 + [1]),
        time=time,
        state=state,
        next_state=following,
        action=np.arange(66) % 3,
        reward=np.zeros(66, np.float32),
    )
    assert spans(data, 0, 0) == [(0, 51), (51, 60), (60, 63), (63, 65)]
    assert spans(data, 0, 20) == [(20, 60), (60, 63), (63, 65)]
    assert spans(data, 1, 0) == []  # one step
    assert spans(data, 0, 70) == []
    task = windows(data, [[(0, 51), (51, 60)], [(60, 63)]])
    assert task.counts.sum(2).tolist() == [[51, 9], [3, 0]]
    assert task.states[0, 0, :, 0].tolist() == [*range(51), 51]
    assert task.states[1, 0, :4, 0].tolist() == [60, 61, 62, 68]
    assert task.actions[0, 1, :9].tolist() == [t % 3 for t in range(51, 60)]


@pytest.mark.parametrize(
    "log, text",
    [
        (table(["p1"], 0, 9).replace("state_v", "state_w"), "has the state columns x, w, the run has x, v"),
        (
            table(["p1"], 0, 9).replace("action", "action_torque"),
            "has the action columns torque, the",
        ),
        (table(["p1"], 0, 30, actions=4), "action 3 is outside 0 to 2, which the run knows"),
        (table(["short"], 0, 4), "no agent has 2 steps in a row to be predicted"),
        ("agent,time\n", "held.csv:1:"),
    ],
)
def test_logs_that_cannot_be_used_are_refused_in_one_line(folder, log, text):
    with pytest.raises(UserError) as error:
        rows_of(folder, log)
    assert text in str(error.value) and "\n" not in str(error.value)


def test_a_run_of_unknown_dynamics_asks_for_a_log(folder):
    stored, state = trained(folder)
    with pytest.raises(UserError, match="give --log"):
        evaluation.evaluate(stored, state, evaluation.parse_settings([], show=False), Comm())


def test_known_and_new_agents_are_told_and_names_that_are_spelled_otherwise(folder, capsys):
    log = table(["p3", "new", "p17"], 100, 60).replace("new", "P-04")
    rows = rows_of(folder, log)
    assert list(fits(rows, "from_steps")) == ["P-04"]
    *_, told, warning = capsys.readouterr().out.splitlines()
    assert told.endswith("held.csv: 2 agents that the run knows, 1 new (P-04)")
    assert warning.startswith("warning: ") and "'P-04' is 'p4' there" in warning


def test_agents_of_the_log_are_chosen_by_name(folder):
    log = table(["p3", "new", "p17"], 100, 60)
    rows = rows_of(folder, log, "--agents", "new, p17")
    assert list(fits(rows, "persim")) == ["p17"] and list(fits(rows, "from_steps")) == ["new"]
    with pytest.raises(UserError, match="held.csv has no agent 'p18'; did you mean 'p17'?"):
        rows_of(folder, log, "--agents", "p17,p18")


@pytest.mark.parametrize("flags", [["--log", "x.csv", "--episodes", "3"], ["--columns", "agent=who"]])
def test_flags_that_do_not_apply_are_refused(flags):
    with pytest.raises(UserError, match="does not apply with|has an effect only with"):
        evaluation.parse_settings(flags, show=False)


def doses(names, minute, whole, meals=True):
    """A log [csv text] of whole or half doses every five minutes, in columns of other names."""
    rng, lines = np.random.default_rng(0), ["row,who,when,level,meal,dose"]
    for name in names:
        level = 10.0
        for t in range(30):
            dose, meal = int(rng.integers(3)) if whole else rng.integers(5) / 2, meals * int(rng.integers(2))
            clock = f"2024-03-01 {(minute + 5 * t) // 60:02d}:{(minute + 5 * t) % 60:02d}:00"
            lines.append(f"{len(lines)},{name},{clock},{level:.6g},{meal},{dose}")
            level += 0.2 * meal - 0.1 * dose
    return "\n".join([*lines, ""])


def test_a_held_out_log_is_read_as_the_run_was(tmp_path, capsys):
    (tmp_path / "log.csv").write_text(doses(["a", "b"], 0, whole=False))
    columns = "agent=who,time=when,state=level+meal,action=dose,reward=none"
    sizes = {"num_models": 1, "num_factors": 1, "state_features": 8, "max_iters": 1, "num_minibatches": 2}
    config = configured("unknown", dataset=str(tmp_path / "log.csv"), columns=columns, **sizes)
    learner = train(config)
    stored, state = dataclasses.asdict(config), learner.state_dict()
    assert learner.data.step == (300, "s") and not learner.data.discrete
    # Whole doses, no meals, another header: none of it is refused, and doses stay quantities.
    later = doses(["a"], 200, whole=True, meals=False)
    for text, more in (
        (later, []),
        (later.replace("who", "Who"), ["--columns", columns.replace("who", "Who")]),
    ):
        (tmp_path / "later.csv").write_text(text)
        settings = evaluation.parse_settings(["--log", str(tmp_path / "later.csv"), *more], show=False)
        assert list(fits(evaluation.evaluate(stored, state, settings, Comm()), "persim")) == ["a"]
    assert "categories" not in capsys.readouterr().out


def test_categories_of_a_held_out_log_are_the_runs(tmp_path):
    def worded(text):
        return re.sub(r",(\d),0\n", lambda found: f",{'abc'[int(found[1])]},0\n", text)

    (tmp_path / "log.csv").write_text(worded(table(["p0", "p9"], 0, 60)))
    sizes = {"num_models": 1, "num_factors": 2, "state_features": 8, "max_iters": 1, "num_minibatches": 2}
    config = configured("unknown", dataset=str(tmp_path / "log.csv"), **sizes)
    stored, state = dataclasses.asdict(config), train(config).state_dict()
    (tmp_path / "later.csv").write_text(worded(table(["p0"], 100, 60, actions=3)).replace(",a,", ",b,"))
    settings = evaluation.parse_settings(["--log", str(tmp_path / "later.csv")], show=False)
    found = fits(evaluation.evaluate(stored, state, settings, Comm()), "persim")
    numbered = {**state, "data": {**state["data"], "action_labels": None}}
    (tmp_path / "later.csv").write_text(table(["p0"], 100, 60, actions=3).replace(",0,0\n", ",1,0\n"))
    assert found == fits(evaluation.evaluate(stored, numbered, settings, Comm()), "persim")
    with pytest.raises(UserError, match="action is '1'; the run knows a, b, c"):
        evaluation.evaluate(stored, state, settings, Comm())


@pytest.mark.mpi
def test_the_command_line(folder):
    stored, state = trained(folder)
    run_folder.write_config(folder / "unknown", {"system": "persim"} | stored)
    checkpoint.save(folder / "unknown", stored["max_iters"], state)
    (folder / "later.csv").write_text(table(["p5"], 60, 60, seed=2))
    done = mpirun(2, "-m", "evaluate", folder / "unknown", "--log", folder / "later.csv")
    assert done.code == 0 and "p5" in done.output, done.output
    assert (folder / "unknown" / "evaluation.png").stat().st_size > 10_000
