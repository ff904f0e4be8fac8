"""What a policy would be worth, told from logs: returns in members, intervals, verdicts, the command."""

import dataclasses
import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from scipy import stats

from common.errors import UserError
from envs import make_family
from mpi_utils.comm import Comm
from persim.baselines import offline
from persim.data.trajectories import log_dynamics
from persim.data.transitions import Transitions
from persim.learned_reward import LearnedReward, with_reward
from persim.off_policy.episodes import LoggedEpisodes, actions_along, episodes_of
from persim.off_policy.importance import weighted_importance_sampling
from persim.off_policy.model_value import from_rows, in_rows, model_value
from persim.off_policy.support import Support
from persim.off_policy.verdict import Interval, in_words, interval, verdicts
from tests.helpers.launch import ROOT, command
from tests.persim.toys import Walk


def log(steps):
    """A log of Walk from rows (agent, time, x, action); the next x is x + action - 1."""
    agent, time, x, action = np.array(steps, float).T
    state, following = x[:, None], (x + action - 1)[:, None]
    reward = -abs(following[:, 0] - 2)
    names = [str(i) for i in range(int(agent.max()) + 1)]
    kinds = [agent.astype(int), time.astype(int), state.astype("f4"), action.astype(int)]
    return Transitions(names, *kinds, reward.astype("f4"), following.astype("f4"), ["x"], ["a"])


# Agent 0 walks to 4, an end; then, after a gap, two steps. Agent 1 stands once.
STEPS = [(0, 0, 2, 2), (0, 1, 3, 2), (0, 9, 0, 1), (0, 10, 0, 2), (1, 0, 1, 1)]


def test_episodes_of_a_log():
    found = episodes_of(log(STEPS), Walk(), 20, 5, 1)
    assert found.rows.tolist() == [[0, 2], [4, 0]] and found.lengths.tolist() == [[2, 2], [1, 0]]
    assert found.horizon.tolist() == [[20, 2], [1, 0]]  # one that has ended might have gone on
    assert found.returns.tolist() == [[-3, -3], [-1, 0]]
    assert episodes_of(log(STEPS), Walk(), 20, 1, 1).rows.tolist() == [[0], [4]]


def test_a_learned_reward_does_not_break_episodes():
    """It begins at 0 with each step, where the step before had ended with another number."""
    data = with_reward(log(STEPS))
    found = episodes_of(data, LearnedReward(Walk()), 20, 5, 1)
    assert found.lengths.tolist() == [[2, 2], [1, 0]] and found.returns.tolist() == [[-3, -3], [-1, 0]]


class Always:
    """Takes one action for each of n agents in turn, and remembers what it was shown."""

    def __init__(self, *actions):
        self.actions, self.shown = np.array(actions), []

    def reset(self, num):
        self.num = num

    def act(self, observation, reward=None, done=None, running=None):
        self.shown.append((observation.copy(), None if reward is None else reward.copy()))
        return np.resize(self.actions, self.num)


class Worlds:
    """Two members; in the second each move is twice as far."""

    factor = torch.zeros(2, 2, 1)

    def step(self, state, action):
        gain = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
        return state + gain * (action[..., None] - 1)


def test_returns_in_each_member_by_hand():
    """Agent 0 goes right: 0, 1, 2 in one world, 0, 2, 4 (an end) in the other; agent 1 left."""
    steps = [(0, 0, 0, 1), (0, 1, 0, 1), (1, 0, 1, 1)]
    data = log(steps)
    episodes = episodes_of(data, Walk(), 20, 5, 1)
    support = Support(log([(0, t, 0.1 * t, 2) for t in range(30)]), 1)
    found = model_value(Worlds(), Walk(), data, episodes, Always(2, 0), 1, support, Comm())
    assert found.returns[:, :, 0].tolist() == [[-1.0, -2.0], [-2.0, -3.0]]
    assert found.unlike[1] == 1  # nobody ever went left


def test_rows_and_back():
    values = np.arange(24).reshape(2, 3, 4)
    rows = in_rows(values)
    assert rows[:6].tolist() == [0, 4, 8, 12, 16, 20] and np.array_equal(from_rows(rows, (2, 3, 4)), values)


def test_what_is_like_a_log():
    rng = np.random.default_rng(0)
    data = log([(0, t, x, 2) for t, x in enumerate(rng.uniform(-1, 1, 2000))])
    support = Support(data, 1)
    own, far = rng.uniform(-1, 1, (2000, 1)), np.array([[3.0], [0.0]])
    assert support.lacks(own, np.full(2000, 2)).mean() < 0.05
    assert support.lacks(far, np.array([2, 0])).all(), "nobody was there, nor did that"


def test_an_interval_by_hand():
    """One member knows nothing of dynamics: Student's interval of three episodes, of one agent."""
    values = np.array([[[1.0, 2.0, 6.0]]])
    found = interval(values, np.ones((1, 3), bool))
    half = stats.t.ppf(0.95, 2 + 2) * np.sqrt(7 / 3)  # the prior's variance is the agent's own
    assert found.mean == 3 and (found.high - found.mean)[0] == pytest.approx(half)
    apart = interval(np.array([[[1.0, 1.0]], [[3.0, 3.0]]]), np.ones((1, 2), bool))
    assert (apart.high - apart.mean)[0] == pytest.approx(stats.t.ppf(0.95, 1) * np.sqrt(2 * 1.5))


@pytest.mark.parametrize("of_members", [0.0, 3.0])
def test_intervals_hold_what_they_promise(of_members):
    """Of agents whose members are off as the truth is, and whose starts differ, nine in ten are covered."""
    rng, n, M, K = np.random.default_rng(1), 2000, 5, 8
    true = rng.normal(size=n)
    values = true[None, :, None] + rng.normal(size=(1, n, K)) * 4 + rng.normal(size=(M, n, K))
    worlds = rng.normal(size=(M + 1, n)) * of_members
    values = values + (worlds[:M] - worlds[M])[:, :, None]
    found = interval(values, np.ones((n, K), bool))
    covered = ((found.low <= true) & (true <= found.high)).mean()
    assert 0.87 < covered < 0.95


def test_verdicts():
    gain = Interval(np.zeros(4), np.array([1.0, -2, -1, 1]), np.array([2.0, -1, 1, 2]))
    assert verdicts(gain, np.array([0, 0, 0, 0.9])) == ["better", "worse", "unknown", "unknown"]
    assert in_words("unknown", (-1, 1), 0.125) == (
        "do not deploy: the difference reaches from -1 to +1; the policy goes where the log has no data in "
        "12.5 % of the steps"
    )


class Trial:
    def __init__(self, data, seen=1):
        self.log, self.family, self.seen = data, Walk(), seen
        self.episodes: LoggedEpisodes = episodes_of(data, Walk(), 20, 50, 1)


def test_importance_of_episodes_that_follow_the_policy():
    """Actions 0 and 2 are as likely; one step each: the value is the mean of the episodes that went right."""
    steps = [(0, 5 * t, 0, 2 * (t % 2)) for t in range(40)]
    trial = Trial(log(steps))
    actions = np.full((1, 40, 2), 2)
    value, effective = weighted_importance_sampling(trial, actions, np.zeros((1, 1)))
    assert value[0] == pytest.approx(-1) and effective[0] == pytest.approx(20, rel=0.01)
    never, none = weighted_importance_sampling(trial, np.ones((1, 40, 2)), np.zeros((1, 1)))
    assert np.isnan(never[0]) and np.isnan(none[0])


def test_a_policy_along_a_log_sees_what_was_logged():
    trial, actor = Trial(log(STEPS)), Always(2, 0)
    actions = actions_along(trial.log, trial.episodes, actor, 1)
    assert actions.shape == (2, 2, 3) and (actions[0] == 2).all() and (actions[1] == 0).all()
    (first, none), (second, reward), (third, _) = actor.shown
    assert first[:, 0].tolist()[:3] == [2, 1, 0] and none is None
    assert second[0, 0] == 3 and reward[0] == -1 and third[0, 0] == 4


RUN = "checkpoints/examples/persim_mountain_car_random"


@pytest.mark.mpi
def test_the_command_judges_a_policy_of_ones_own_at_any_number_of_ranks(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    rows = []
    make_log(tmp_path / "later.npz")
    (tmp_path / "mine.py").write_text(MINE)
    for ranks in (1, 2):
        out = tmp_path / f"{ranks}.json"
        more = [
            "--policy",
            "mine:rocking",
            "--log",
            tmp_path / "later.npz",
            "--json",
            out,
            "--importance",
            True,
        ]
        more += ["--plot", tmp_path / f"{ranks}.png"]
        done = command(ranks, "evaluate", RUN, *more, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
        assert done.code == 0, done.output
        rows.append(json.loads(out.read_text())["rows"])
    assert "2 better" in done.output and "better than what was logged" in done.output, done.output
    for one, two in zip(*rows, strict=True):
        assert one["metric"] == two["metric"] and (one["mean"] or 0) == pytest.approx(
            two["mean"] or 0, rel=1e-5
        )
    value = {r["agent"]: r for r in rows[0] if r["metric"] == "value" and "agent" in r}
    assert value["0"]["low"] < value["0"]["mean"] < value["0"]["high"] < -30 and value["0"]["mean"] > -80


MINE = """
import numpy as np

class Rocking:
    "Pushes the way that the car moves."
    def reset(self, num): pass
    def act(self, observation, reward=None, done=None, running=None):
        return np.where(observation[:, 1] < 0, 0, 2)

def rocking(names):
    return Rocking()
"""


def make_log(path):
    """The two lightest cars, three episodes each: half of the actions push the way that the car moves."""
    family, agents = make_family("mountain_car"), {"gravity": np.repeat([0.0001, 0.0005], 3)}

    def half(state, rng):
        return np.where(
            rng.random(len(state)) < 0.5, np.where(state[:, 1] < 0, 0, 2), rng.integers(3, size=len(state))
        )

    made = log_dynamics(family, agents, half, np.random.default_rng(0))
    agent, episode = np.divmod(made.agent, 3)
    time = made.time + 600 * episode
    dataclasses.replace(made, names=["0", "1"], agent=agent, time=time, covariates=None).save(path)


def test_importance_needs_choices():
    trial = Trial(log(STEPS))
    trial.log = type("Log", (), {"discrete": False})()
    with pytest.raises(UserError, match="needs discrete actions"):
        weighted_importance_sampling(trial, np.zeros((2, 2, 3)), np.zeros((2, 1)))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("d3rlpy") is None, reason="needs extra [baselines]")
def test_fitted_q_of_a_walk_by_hand():
    """From 0, right four times: -1, 0, -1, -2 and an end. The log's actions are random."""
    rng, steps, time = np.random.default_rng(0), [], 0
    for _ in range(300):
        x = 0
        for _ in range(6):
            action = int(rng.integers(3))
            steps.append((0, time, x, action))
            x, time = x + action - 1, time + 1
            if x > 3:
                break
        time += 5
    trial = Trial(log(steps))
    trial.episodes = episodes_of(trial.log, Walk(), 6, 400, 1)
    actions = np.full((1, 300, int(trial.episodes.lengths.max()) + 1), 2)
    value = offline.fitted_q(trial, actions, np.zeros((1, 1)), 800, seed=0)
    assert value[0] == pytest.approx(-4, abs=0.5)
