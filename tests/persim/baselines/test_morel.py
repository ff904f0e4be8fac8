"""MOReL: where the pessimistic MDP halts and what that costs, and the policy that is taken out of PPO."""

import dataclasses
import random
import sys

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from common.errors import UserError
from common.rollout import to_space
from envs import make_family
from persim.baselines import morel
from persim.baselines.morel import Greedy, Settings
from persim.baselines.pessimistic import Pessimism, PessimisticMDP, disagreement, predict
from persim.data.behaviour import random_policy
from persim.data.trajectories import log_dynamics, trajectories

TINY = Settings(num_models=2, model_iters=2, num_steps=1, features=(8,))


class Line:
    """x' = x + a - 1 earns x'; it ends beyond 3."""

    name, action_space, max_episode_len = "line", Discrete(3), 9
    observation_space = Box(-np.inf, np.inf, (1,), np.float32)

    def reward(self, state, action, next_state):
        return next_state[..., 0]

    def terminated(self, next_state):
        return next_state[..., 0] > 3


class Torn:
    """Two members that agree up to |x| = 2, and differ by |x| - 2 beyond; `lost` is where both say nan."""

    def __init__(self, lost=np.inf):
        self.lost = lost

    def step(self, state, action):
        known = state + (action - 1.0)[..., None]
        known[known == self.lost] = torch.nan
        return torch.cat([known, known + (state.abs() - 2).clamp_min(0)])


class Apart:
    """Member m adds m to the state, or what it has in `move` [M]."""

    def __init__(self, *moves):
        self.moves = torch.tensor(moves, dtype=torch.float32)[:, None, None, None]

    def step(self, state, action):
        return state + self.moves


def mdp_at(x, model, num_envs=1, threshold=0.5, horizon=9, spread=0.0, states=None):
    """A pessimistic MDP whose trajectories start at x, with gamma 0.9."""
    starts = np.array([[x]], np.float32)
    states = starts if states is None else np.array(states, np.float32)[:, None]
    pessimism = Pessimism(threshold, penalty=-7.0, gamma=0.9, horizon=horizon, spread=spread)
    mdp = PessimisticMDP(Line(), model, starts, states, pessimism, num_envs, np.random.default_rng(0))
    mdp.reset()
    return mdp


def steps(mdp, *actions):
    """What each of some actions of all episodes gives: rewards, terminated, truncated, states reached."""
    for action in actions:
        reward, terminated, truncated, reached = mdp.step(np.full(mdp.num_envs, action))
        yield reward.tolist(), terminated.tolist(), truncated.tolist(), reached[:, 0].tolist()


# --- the pessimistic MDP


def test_disagreement_is_the_largest_distance_of_two_members():
    following = torch.tensor([[[0.0, 0.0], [1e3, 1.0]], [[3.0, 4.0], [1e3, 1.001]], [[3.0, 0.0], [1e3, 1.0]]])
    np.testing.assert_allclose(disagreement(following), [5.0, 0.001], rtol=1e-3)


def test_where_members_agree_steps_are_theirs_and_pay_the_family_s_rewards():
    mdp = mdp_at(0.0, Torn())
    (first, second) = steps(mdp, 2, 2)
    assert first == ([pytest.approx(0.1)], [False], [False], [1.0])
    assert second == ([pytest.approx(0.2)], [False], [False], [2.0])


def test_where_members_disagree_the_episode_halts_once_and_for_all():
    mdp = mdp_at(-2.0, Torn())
    agreed, halted, anew = steps(mdp, 0, 1, 1)
    assert agreed[1] == [False] and agreed[3] == [-3.0]
    assert halted[:3] == ([-7.0], [True], [False])
    assert anew == ([pytest.approx(-0.2)], [False], [False], [-2.0]) and mdp.state[0, 0] == -2.0


def test_the_threshold_itself_is_known_and_halting_goes_before_ending():
    known, halted = (next(steps(mdp_at(3.0, Torn(), threshold=t), 2)) for t in (1.0, 0.99))
    assert known[0][0] in (np.float32(0.4), np.float32(0.5)) and known[1] == [True]  # 4, or 5 by the other
    assert halted[:3] == ([-7.0], [True], [False])


def test_what_is_no_number_halts():
    assert next(steps(mdp_at(0.0, Torn(lost=1.0)), 2))[:3] == ([-7.0], [True], [False])


def test_a_predicted_end_is_an_end_without_penalty():
    mdp = mdp_at(3.0, Apart(1.0, 1.0))
    assert next(steps(mdp, 1)) == ([pytest.approx(0.4)], [True], [False], [4.0])


def test_the_time_limit_cuts_and_does_not_end():
    mdp = mdp_at(0.0, Torn(), horizon=3)
    rows = list(steps(mdp, 1, 1, 1, 1))
    assert [row[1:3] for row in rows] == [([False], [False])] * 2 + [([False], [True])] + [([False], [False])]
    both = mdp_at(-3.0, Torn(), horizon=1)
    assert next(steps(both, 1))[1:3] == ([True], [False])


def test_an_episode_keeps_its_member_and_all_members_play():
    mdp = mdp_at(0.0, Apart(0.0, 0.1, 0.2), num_envs=300)
    first, second = steps(mdp, 1, 1)
    np.testing.assert_allclose(second[3], 2 * np.array(first[3]), rtol=1e-6)
    for move in (0.0, 0.1, 0.2):
        assert 60 < np.isclose(first[3], move).sum() < 140


def test_starts_are_those_of_trajectories_or_spread_over_the_data():
    states = np.linspace(-1, 1, 5)
    assert set(mdp_at(0.25, Torn(), 200, states=states).state[:, 0]) == {0.25}
    assert set(mdp_at(0.25, Torn(), 200, spread=1.0, states=states).state[:, 0]) == set(states)
    half = mdp_at(0.25, Torn(), 200, spread=0.5, states=states).state[:, 0]
    assert 70 < (half == 0.25).sum() < 130


def logged(num_agents=6, name="cart_pole"):
    family = make_family(name)
    rng = np.random.default_rng(0)
    agents = {name: np.full(num_agents, value) for name, value in family.default.items()}
    return family, log_dynamics(family, agents, random_policy(family), rng)


def test_threshold_and_penalty_follow_from_the_data():
    family, data = logged()
    data = dataclasses.replace(data, reward=np.where(data.time == 3, 0.25, data.reward))
    model = morel.train_ensemble(data, family, TINY, 0)
    apart = disagreement(predict(model, data.state, data.action))
    mdp = morel.make_mdp(model, data, family, dataclasses.replace(TINY, threshold=2.0, offset=3.0), 0)
    assert mdp.settings.threshold == pytest.approx(2 * apart.max()) and apart.max() > 0
    assert mdp.settings.penalty == -3.0 and mdp.settings.horizon == 200
    np.testing.assert_array_equal(mdp.starts, data.state[data.time == 0])
    costly = dataclasses.replace(data, reward=data.reward - 2)
    assert morel.make_mdp(model, costly, family, TINY, 0).settings.penalty == -1.75 - TINY.offset


# --- the policy


def model_of(space):
    """A PPO with random weights, whose observations are states standardised by a mean and a scale."""
    from persim.baselines import ppo

    family, states = Line(), np.zeros((1, 4), np.float32)
    family.action_space, family.observation_space = space, Box(-np.inf, np.inf, (4,), np.float32)
    pessimism = Pessimism(1.0, -1.0, 0.9, 9, 0.0)
    mdp = PessimisticMDP(family, None, states, states, pessimism, 64, np.random.default_rng(0))
    mean, scale = np.array([0.5, -3.0, 100.0, 0.0]), np.array([1.0, 0.01, 20.0, 5.0])
    env = ppo.Standardised(mdp, mean, scale)
    with ppo.generators_kept():
        model = ppo.make_model(env, Settings(), seed=0)
        with torch.no_grad():
            for parameter in model.policy.parameters():
                parameter.normal_(0, 0.7)
    return model, env, ppo


@pytest.mark.parametrize(
    "space", [Discrete(3), Box(np.float32([-1, 0]), np.float32([1, 2]))], ids=["discrete", "box"]
)
def test_a_policy_acts_as_the_network_that_was_trained(space):
    pytest.importorskip("stable_baselines3")
    model, env, ppo = model_of(space)
    state = np.random.default_rng(1).normal(env.mean, env.scale, (200, 4)).astype(np.float32)
    wanted = to_space(model.predict(env.observe(state), deterministic=True)[0], space)
    policy = Greedy(space, ppo.fold(ppo.layers_of(model), env.mean, env.scale))
    action = policy(state, None)
    np.testing.assert_allclose(action, wanted, atol=1e-3)
    assert action.dtype == (np.int64 if isinstance(space, Discrete) else np.float32)
    assert action.shape == (200, *space.shape) and len(np.unique(wanted)) > 1


def test_a_cut_reaches_ppo_with_its_last_state_and_an_end_as_an_end():
    pytest.importorskip("stable_baselines3")
    from persim.baselines.ppo import Standardised

    env = Standardised(mdp_at(1.0, Torn(), horizon=2), np.array([1.0]), np.array([0.5]))
    assert env.reset().tolist() == [[0.0]]
    assert env.step(np.array([2]))[2:] == ([False], [{}])
    observation, _, over, (info,) = env.step(np.array([1]))
    assert observation.tolist() == [[0.0]] and over.tolist() == [True]
    assert info["terminal_observation"].tolist() == [2.0] and info["TimeLimit.truncated"]
    env = Standardised(mdp_at(-3.0, Torn()), np.zeros(1), np.ones(1))
    env.reset()
    _, reward, over, (info,) = env.step(np.array([1]))
    assert reward.tolist() == [-7.0] and over.tolist() == [True] and not info["TimeLimit.truncated"]


def test_ppo_goes_where_it_pays_as_far_as_members_agree():
    ppo = pytest.importorskip("persim.baselines.ppo", reason="needs stable-baselines3")
    settings = Settings(num_steps=16_384, num_epochs=5, gamma=0.9, features=(16,))
    for threshold, lowest, highest in [(0.1, 1, 2), (np.inf, 8, 8)]:
        mdp = mdp_at(0.0, Torn(), 64, threshold, states=np.linspace(-2, 2, 5), spread=0.5)
        mdp.family.terminated = lambda state: state[..., 0] != state[..., 0]
        policy = Greedy(Discrete(3), ppo.learn(mdp, np.zeros(1), np.ones(1), settings, 0))
        x = np.zeros((1, 1), np.float32)
        for _ in range(8):
            x += policy(x)[:, None] - 1
        assert lowest <= x[0, 0] <= highest


def states_of_generators():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cart_pole", "half_cheetah_body"])
def test_the_same_seed_gives_the_same_policy_and_leaves_no_trace(name, monkeypatch, tmp_path, capfd):
    pytest.importorskip("stable_baselines3")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    family, data = logged(name=name, num_agents=2)
    if name == "half_cheetah_body":  # of a size for tests
        monkeypatch.setattr(morel, "check_config", small)
    before = states_of_generators()
    policies = [morel.train(data, family, TINY, seed) for seed in (0, 0, 1)]
    assert states_of_generators() == before
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "")
    first, second, other = ([array for layer in policy.layers for array in layer] for policy in policies)
    for a, b, c in zip(first, second, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    agents = {name: np.full(3, value) for name, value in family.default.items()}
    played = trajectories(family, agents, policies[0], np.random.default_rng(0), 5)
    assert played.actions.shape[:2] == (3, 5) and np.isfinite(played.returns()).all()


def small(config, **options):
    from persim.config import check_config

    sizes = {"state_features": 8, "action_features": 8, "batch_size": 16, "num_minibatches": 2}
    return dataclasses.replace(check_config(config, **options), **sizes)


# --- refusals


@pytest.mark.parametrize(
    "wrong", [{"num_models": 1}, {"num_steps": 0}, {"gamma": 1.0}, {"spread": 1.5}, {"threshold": 0.0}]
)
def test_settings_that_cannot_work_are_refused_in_one_line(wrong):
    family, data = logged(1)
    with pytest.raises(UserError, match=f"^--{next(iter(wrong))} [^\n]*$"):
        morel.train(data, family, dataclasses.replace(TINY, **wrong), 0)


def test_without_stable_baselines3_the_extra_is_named(monkeypatch):
    family, data = logged(1)
    monkeypatch.delitem(sys.modules, "persim.baselines.ppo", raising=False)
    monkeypatch.delattr("persim.baselines.ppo", raising=False)
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(UserError, match=r"^stable-baselines3 is missing; pip install '.*\[behaviour\]'$"):
        morel.train(data, family, TINY, 0)
