"""Walls that a log shows, and windows beyond what it shows."""

import dataclasses

import numpy as np
import torch

from persim.limits import Wall, free, limits_of, stop, walls_in, walls_of
from persim.planning.lookup_table import Lookup
from persim.simulator import Simulator
from persim.testing import report, trust
from persim.testing.prediction import NUM_STEPS, PredictionTask
from tests.persim.logged import transitions


def log(next_state):
    """A log of one agent with these next states [N, 2]."""
    next_state = np.asarray(next_state, np.float32)
    n = len(next_state)
    return transitions(
        names=["ann"],
        agent=np.zeros(n, int),
        time=np.arange(n),
        state=np.roll(next_state, 1, axis=0),
        next_state=next_state,
        action=np.zeros(n, int),
        reward=np.zeros(n, np.float32),
        covariates=None,
    )


def test_a_wall_is_where_many_states_stop():
    rng = np.random.default_rng(0)
    state = np.stack([rng.uniform(-1, 1, 200), rng.normal(size=200)], axis=1)
    assert walls_of(log(state)) == []
    state[:20] = [-1, 0]
    (wall,) = walls_of(log(state))
    assert wall == Wall(0, -1, [-1.0, 0.0]) and free(log(state), [wall]).sum() == 180
    state[:20, 1] = rng.normal(size=20)  # nothing stops the other coordinate
    assert walls_of(log(state)) == [Wall(0, -1, [-1.0, None])]
    assert walls_of(log(state.round(1) * [2, 1])) == []  # rounded numbers are as frequent next to the end
    assert walls_in({"limits": limits_of(log(state), [wall])}) == [wall] and walls_in({}) == []


def test_states_stop_at_walls():
    walls = [Wall(0, -1, [-1.0, 0.0]), Wall(1, 1, [None, 2.0])]
    state = torch.tensor([[-1.5, -3.0], [-0.9, 1.0], [0.5, 7.0]])
    assert stop(walls, state).tolist() == [[-1, 0], [torch.tensor(-0.9).item(), 1], [0.5, 2]]
    assert stop([], state) is state


def test_simulators_and_their_tables_stop_at_walls():
    walls = [dataclasses.asdict(Wall(0, -1, [-1.0, 0.0]))]
    made = Simulator(2, 3, 2, state_size=2, num_actions=3, state_layers=(4,), walls=walls)
    made.draw([np.random.default_rng(i) for i in range(2)])
    state, action = torch.tensor([[[[-5.0, 0.3], [0.5, 0.3]]]]), torch.tensor([[1, 2]])
    low, high = np.float32([-6, -1]), np.float32([1, 1])
    tables = Lookup(made, np.array([1]), low, high, 3, (256, 128))
    plain = Simulator(**(made.sizes | {"walls": []}))
    plain.load_state_dict(made.state_dict())
    free_step = plain.at([1]).step(state, action)
    for models in (made.at([1]), tables.at(np.array([1]))):
        after = models.step(state, action)
        torch.testing.assert_close(after, stop(made.walls, free_step), rtol=1e-2, atol=1e-2)
        assert after[:, 0, 0].tolist() == [[-1, 0]] * 2


def windows(states):
    """A task of one agent with these windows [C, 2] of states that stay as they are."""
    states = np.asarray(states, float)[None, :, None].repeat(NUM_STEPS + 1, axis=2)
    shape = states.shape[:2]
    return PredictionTask({}, states, np.zeros((*shape, NUM_STEPS), int), np.ones((*shape, NUM_STEPS), bool))


DATA = {
    "state_names": ["x", "v", "(earned)"],
    "limits": {"low": [-1, 0, -9], "high": [1, 10, 9], "walls": []},
}


def test_windows_beyond_the_range_of_training_are_named():
    task = windows([[0, 5, 0], [1.1, 5, 0], [0, 16, 50], [0, 5, 50]])
    ramp = np.linspace(0, 1, NUM_STEPS)[None, None, :, None]
    predicted = task.states[:, :, 1:] + ramp * [0.5, 0, 0]
    variance = np.zeros_like(predicted)
    variance[0, 3, :, 1] = 0.01
    found = trust.judge(task, predicted, variance, DATA)
    assert found.outside.tolist() == [[False, True, True, False]]  # the second by its prediction alone
    assert found.flagged.tolist() == [[False, True, True, True]]
    np.testing.assert_allclose(found.beyond[0, 2], [-0.25, 0.6], atol=1e-6)
    assert trust.judge(task, predicted, variance, {"state_names": ["x"]}) is None
    moved = np.square(ramp * 0.5 - 0.25).sum()
    np.testing.assert_allclose(found.disagreement[0, 3], NUM_STEPS * 0.01 / moved)

    seen = [array[..., :2] for array in (predicted, variance)]
    shown = dataclasses.replace(task, states=task.states[..., :2])
    begins = np.array([[0, 51, 102, 153]])
    rng = np.random.default_rng(0)
    shown.states[:] += rng.normal(size=shown.states.shape) / 100
    rows = trust.rows(report.Rows("log", "persim"), ["ann"], found, [], shown, *seen, begins)
    by_name = {(r["metric"], r.get("agent", r.get("state"))): r for r in rows}
    assert by_name["flagged", "ann"]["begins"] == [51, 102, 153]
    assert by_name["flagged", None]["mean"] == 0.75 and by_name["out_of_range", None]["mean"] == 0.5
    assert by_name["state_out_of_range", "v"]["mean"] == 0.25
    assert abs(by_name["state_out_of_range", "v"]["spans"] - 0.6) < 1e-6
    assert by_name["median_r2_trusted", None]["windows"] == 1
    assert by_name["flagged_of_bad", None]["mean"] == 0.75 and by_name["flagged_of_good", None]["n"] == 0
    np.testing.assert_allclose(by_name["spread", "ann"]["mean"], np.sqrt(0.01 / 8))


def test_what_is_told_of_them(capsys):
    rows = [
        {"method": "persim", "metric": "flagged", "mean": 0.25, "n": 8},
        {"method": "persim", "metric": "flagged", "mean": 0.5, "n": 4, "agent": "ann"},
        {"method": "persim", "metric": "out_of_range", "mean": 0.125, "n": 8},
        {"method": "persim", "metric": "state_out_of_range", "mean": 0.125, "state": "spin", "spans": 2.0},
        {"method": "persim", "metric": "median_r2_at_walls", "mean": 0.5, "windows": 3},
    ]
    report.show(rows)
    assert capsys.readouterr().out.splitlines() == [
        "persim: 25 % of 8 windows are not to be trusted, 12.5 % leave the range of training",
        "  spin: in 12.5 %, by up to 2 times what training spanned",
        "  most of agents ann 50 %",
        "persim: median R2 of 3 windows at walls: 0.5",
    ]


def test_windows_at_walls_are_counted_apart():
    task = windows([[-1, 0], [0.5, 0]])
    assert trust.touching(task, [Wall(0, -1, [-1.0, 0.0])]).tolist() == [[True, False]]
    assert not trust.touching(task, []).any()
