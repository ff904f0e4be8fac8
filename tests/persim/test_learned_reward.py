"""Rewards learnt as one more state."""

import dataclasses

import numpy as np
import pytest
import torch

from envs import make_family
from mpi_utils.comm import Comm
from persim import evaluation
from persim.learned_reward import NAME, LearnedReward, with_reward
from persim.planning.planner import Settings
from persim.policy import Actor, play
from persim.testing import held_out_log
from persim.testing.prediction import NUM_STEPS, predict
from tests.persim.logged import read, transitions
from tests.persim.runs import configured, trained

TASTES = {f"p{i}": -1 + i / 10 for i in range(20)}


def table(names, steps, seed=0):
    """A log [csv text] of agents that each like a place of their own: reward 1 - (x - taste)**2."""
    rng, lines = np.random.default_rng(seed), ["agent,time,state_x,state_v,action,reward"]
    for name in names:
        x, v = rng.uniform(-1, 1, 2)
        for t in range(steps):
            action = int(rng.integers(3))
            lines.append(f"{name},{t},{x:.9g},{v:.9g},{action},{1 - (x - TASTES[name]) ** 2:.9g}")
            x, v = 0.95 * x + 0.1 * v, 0.9 * v + 0.3 * (action - 1)
    return "\n".join([*lines, ""])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def learner(folder):
    (folder / "log.csv").write_text(table(TASTES, 60))
    sizes = {"num_models": 2, "num_factors": 4, "state_features": 64, "max_iters": 40}
    return trained(
        configured(
            "unknown", dataset=str(folder / "log.csv"), action_kind="discrete", learn_reward=True, **sizes
        )
    )


def test_the_reward_of_a_step_is_the_change_of_the_last_state():
    data = transitions()
    extended = with_reward(data)
    assert extended.state_names == ["x", "v", NAME]
    assert extended.state[:, :2].tolist() == data.state.tolist() and not extended.state[:, 2].any()
    assert extended.next_state[:, 2].tolist() == [1, 1, 0, 0.5]
    assert extended.digest() != data.digest()


def test_a_family_with_learned_rewards_is_the_family_and_adds_up_its_rewards():
    family = make_family("mountain_car")
    learned, rng = LearnedReward(family), np.random.default_rng(0)
    state = learned.start(rng, 4)
    assert state.shape == (4, 3) and not state[:, 2].any() and learned.name == family.name
    gravity, action = {"gravity": np.full(4, 0.0025)}, np.array([0, 1, 2, 2])
    state[3, :2] = 0.49, 0.07  # arrives with this step
    following = learned.advance(state, action, gravity)
    np.testing.assert_array_equal(following[:, :2], family.advance(state[:, :2], action, gravity))
    assert following[:, 2].tolist() == [-1, -1, -1, 0]
    assert learned.reward(state, action, following).tolist() == [-1, -1, -1, 0]
    assert learned.terminated(torch.from_numpy(following)).tolist() == [False] * 3 + [True]
    seen = []
    learned.blind(lambda n: lambda s, rng: seen.append(s.shape))(4)(following, rng)
    assert seen == [(4, 2)]


@pytest.mark.slow
def test_rewards_of_each_agent_are_learnt_and_act_on_nothing(folder, learner):
    simulator = learner.simulator
    assert not simulator.state_net[0][:, :, 2].any()  # not even after training
    models = simulator.at([0, 19])
    state = torch.tensor([0.5, 0.2, 0.0]).expand(1, 2, 1, 3)
    action = torch.zeros(2, 1, dtype=torch.int64)
    once = models.step(state, action)
    later = models.step(state + torch.tensor([0, 0, 7.0]), action)
    torch.testing.assert_close(later - once, torch.tensor([0, 0, 7.0]).expand_as(once))
    wanted = torch.tensor([1 - 1.5**2, 1 - 0.4**2])  # of p0, who likes -1, and p19, who likes 0.9
    torch.testing.assert_close(once[:, :, 0, 2].mean(0), wanted, atol=0.05, rtol=0)


def test_the_return_of_a_window_is_predicted_for_steps_not_trained_on(folder, learner):
    (folder / "later.csv").write_text(table(["p0", "p10"], 60, seed=3))
    log = with_reward(read(folder / "later.csv"))
    task = held_out_log.windows(log, [[(0, NUM_STEPS)], [(59, 59 + NUM_STEPS)]])
    returns = predict(learner.simulator.at([0, 10]), task)[:, 0, -1, -1]
    true = [log.next_state[first : first + NUM_STEPS, 2].sum() for first in (0, 59)]
    np.testing.assert_allclose(returns, true, atol=0.05 * NUM_STEPS)
    assert abs(true[0] - true[1]) > 0.1 * NUM_STEPS  # so that one cannot pass for the other

    settings = evaluation.parse_settings(["--log", str(folder / "later.csv")], show=False)
    rows = evaluation.evaluate(dataclasses.asdict(learner.config), learner.state_dict(), settings, Comm())
    fits = [
        r["mean"] for r in rows if r["metric"] == "median_r2" and r["method"] == "persim" and "agent" in r
    ]
    assert len(fits) == 2 and min(fits) > 0.95
    (*_, drawn) = (r for r in rows if r["metric"] == "paths")
    assert len(drawn["true"][0][0]) == 2  # the figure shows states, not rewards


@pytest.mark.slow
def test_planning_by_learnt_rewards_keeps_the_pole_up():
    sizes = {"num_agents": 60, "num_models": 2, "state_features": 64, "max_iters": 30}
    config = configured("cart_pole", dataset="pure_eps_20", learn_reward=True, **sizes)
    simulator = trained(config).simulator
    family = type(make_family("cart_pole"))(max_episode_len=40)
    agents = {name: values[1:2] for name, values in family.test_agents.items()}
    settings = Settings(horizon=20, num_candidates=60, mask=True)
    actor = Actor(LearnedReward(family), simulator, [1], settings=settings)
    returns = play(LearnedReward(family), agents, actor, 2, 0, Comm())
    assert returns.mean() > 36  # random actions end after 22
