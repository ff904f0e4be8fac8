"""States of several observations: by hand, in logs, in simulators, in what acts."""

import dataclasses

import numpy as np
import pytest
import torch

from common.errors import UserError
from envs import make_family
from mpi_utils.comm import Comm
from persim import evaluation
from persim.config import Config
from persim.history import History, Remembers, change, of_log, with_history
from persim.learned_reward import LearnedReward, with_reward
from persim.partial import Hidden, hide, planned, states_along
from persim.planning.planner import Settings
from persim.policy import Actor
from persim.simulator import Simulator
from tests.persim.logged import transitions
from tests.persim.runs import configured, trained

THREE = History(3, 1, 1, num_actions=2, action_size=0, inertia=[1])


def test_a_state_by_hand():
    """Seen 1, 3, 6, 10: differences 2, 3, 4 and of these 1, 1; actions 0, 1, 1 in between."""
    seen, actions = np.array([[[1.0], [3], [6], [10]]]), np.array([[0, 1, 1]])
    states = THREE.along(seen, actions)[0]
    assert states[0].tolist() == [1, 0, 0, 0.5, 0.5, 0.5, 0.5]
    assert states[2].tolist() == [6, 3, 1, 0, 1, 1, 0]
    assert states[3].tolist() == [10, 4, 1, 0, 1, 0, 1]
    assert THREE.foreseen(states[2]).tolist() == [9]
    assert change(THREE, states[2], states[3]).tolist() == [1]
    assert THREE.names(["x"], ["action"]) == [
        "x",
        "x, difference 1",
        "x, difference 2",
        "action is 0, 1 before",
        "action is 1, 1 before",
        "action is 0, 2 before",
        "action is 1, 2 before",
    ]
    tensor = THREE.follow(torch.from_numpy(states[None, 2]), torch.tensor([[10.0]]).double(), np.array([1]))
    assert tensor[0].tolist() == states[3].tolist()


def test_steps_with_a_whole_history_are_those_of_a_log_without_gaps():
    rng = np.random.default_rng(0)
    state = rng.normal(size=(9, 2)).astype(np.float32)
    data = transitions(
        names=["ann"],
        agent=np.zeros(8, int),
        time=np.array([0, 1, 2, 3, 9, 10, 11, 20]),
        state=state[:8],
        next_state=state[1:],
        action=rng.integers(0, 3, 8),
        reward=np.arange(8, dtype=np.float32),
        covariates=None,
    )
    history = History(3, 3, 2, 3, 0, [0, 0])
    found = with_history(with_reward(data), history)
    assert found.reward.tolist() == [2, 3, 6] and found.time.tolist() == [2, 3, 11]
    whole = np.concatenate([state, np.zeros((9, 1))], axis=1)
    for first, rows in ((0, [0, 1]), (4, [2])):
        states = history.along(whole[None, first : first + 5], data.action[None, first : first + 4])[0]
        np.testing.assert_allclose(found.state[rows], states[2 : 2 + len(rows)], atol=1e-6)
    assert found.next_state[:, 2].tolist() == [2, 3, 6] and not found.state[:, 2].any()
    assert (found.next_state[0, [0, 1, 3, 4]] == found.state[1, [0, 1, 3, 4]]).all()


def test_what_moves_smoothly_is_foreseen_to_move_on_and_noise_to_stay():
    t = np.arange(200)
    noise = np.random.default_rng(0).normal(size=200)
    state = np.stack([np.sin(0.1 * t), noise], axis=1).astype(np.float32)
    data = transitions(
        names=["ann"],
        agent=np.zeros(199, int),
        time=t[:-1],
        state=state[:-1],
        next_state=state[1:],
        action=np.zeros(199, int),
        reward=np.zeros(199, np.float32),
        covariates=None,
    )
    history = of_log(data, 2, 2, 1)
    assert history.inertia == [1, 0] and of_log(data, 1, 2, 1) is None


@pytest.mark.parametrize("actions", [{"num_actions": 2}, {"action_size": 2}])
def test_a_simulator_predicts_what_is_seen_and_knows_the_rest(actions):
    history = History(3, 2, 2, actions.get("num_actions", 0), actions.get("action_size", 0), [1, 0])
    made = Simulator(
        2,
        3,
        2,
        state_size=history.state_size,
        state_layers=(5,),
        history=dataclasses.asdict(history),
        **actions,
    )
    made.draw([np.random.default_rng(i) for i in range(2)])
    rng = np.random.default_rng(0)
    state = torch.from_numpy(rng.normal(size=(2, 1, 4, history.state_size)).astype(np.float32))
    action = torch.from_numpy(rng.integers(0, 2, (1, 4)) if made.num_actions else rng.random((1, 4, 2), "f4"))
    after = made.at([1]).step(state, action)
    assert after.shape == state.shape
    agent = torch.ones(2, 4, dtype=torch.long)
    found = made(agent, state[:, 0], action.expand(2, *action.shape[1:])) * made.target_scale
    seen = history.foreseen(state[:, 0]) + found
    torch.testing.assert_close(after[:, 0, :, :2], seen)
    torch.testing.assert_close(after[:, 0, :, 2:4], seen - state[:, 0, :, :2])
    assert (after[:, 0, :, -2:] == state[:, 0, :, 6:8]).all()
    assert Simulator(**made.sizes).history == history


def test_hidden_states_are_neither_seen_nor_needed():
    config = configured("cart_pole", hide="velocity,angular_velocity")
    family = hide(make_family("cart_pole"), config)
    assert family.state_names == ("position", "angle") and family.observation_space.shape == (2,)
    whole = np.array([[1.0, 2, 3, 4]])
    assert family.as_state(whole).tolist() == [[1, 3]] == family.as_state(family.as_state(whole)).tolist()
    assert LearnedReward(family).as_state(whole).tolist() == [[1, 3, 0]]
    assert family.terminated(np.array([[0, 0.3], [0, 0.1]])).tolist() == [True, False]
    for hidden, said in (
        ("speed", "no state 'speed'; there are position, velocity"),
        ("position,velocity", "leaves no state"),
    ):
        with pytest.raises(UserError, match=said):
            hide(make_family("mountain_car"), configured(hide=hidden))


def test_an_actor_remembers_what_it_saw_and_did():
    config = configured("cart_pole", hide="velocity,angular_velocity", history=2)
    history = History(2, 2, 2, 2, 0, [1, 1])
    family = planned(config, make_family("cart_pole"), history)
    assert isinstance(family, Remembers) and isinstance(family.family, Hidden)
    told = []

    class Watches:
        def at(self, agents):
            return self

        def step(self, state, action):
            told.append(state[0, :, 0].double().numpy())
            return state

    actor = Actor(family, Watches(), [0], settings=Settings(horizon=1, num_candidates=3))
    actor.reset(2)
    seen = np.random.default_rng(0).normal(size=(2, 4, 4)) / 100
    actions = [actor.act(seen[:, t], done=np.array([False, t == 2])) for t in range(4)]
    expected = states_along(family, seen, np.stack(actions, axis=1)[:, :3])
    for t in range(4):
        np.testing.assert_allclose(told[t][0], expected[0, t], atol=1e-6)
    assert told[2][1, 2:4].tolist() == [0, 0]  # its episode ended


PULLS = {f"p{i}": 0.02 + i / 200 for i in range(20)}


def oscillators(start, steps, seed, names=PULLS):
    """A log [csv text] of positions alone; springs differ, and actions push."""
    rng, lines = np.random.default_rng(seed), ["agent,time,state_x,action,reward"]
    for name in names:
        x, v = rng.normal(size=2) * [1, 0.2]
        for t in range(steps):
            action = int(rng.integers(3))
            if t % 40 != 39 or name != "p3":
                lines.append(f"{name},{start + t},{x:.9g},{action},0")
            x, v = x + v, v - PULLS[name] * x + 0.05 * (action - 1)
    return "\n".join([*lines, ""])


@pytest.mark.slow
def test_positions_alone_say_how_they_move_on(tmp_path):
    (tmp_path / "log.csv").write_text(oscillators(0, 80, 0))
    (tmp_path / "later.csv").write_text(oscillators(500, 100, 1))
    fits = {}
    for length in (1, 2):
        config = configured(
            "unknown",
            dataset=str(tmp_path / "log.csv"),
            action_kind="discrete",
            history=length,
            num_models=2,
            num_factors=3,
            state_features=64,
            max_iters=20,
        )
        state = trained(config).state_dict()
        settings = evaluation.parse_settings(["--log", str(tmp_path / "later.csv")], show=False)
        rows = evaluation.evaluate(dataclasses.asdict(config), state, settings, Comm())
        fits[length] = [r["mean"] for r in rows if r["metric"] == "median_r2" and r["method"] == "persim"][0]
        (drawn, *_) = (r for r in rows if r["metric"] == "paths")
        assert np.shape(drawn["true"][0])[1] == 1
    assert fits[2] > 0.95 and fits[1] < 0.5


def test_settings_of_before_have_no_history():
    assert Config.defaults({}).history == 1 and Simulator(1, 2, 2, 3, 2).history is None
