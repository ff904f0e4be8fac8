"""BCQ and CQL: right at the ends of episodes, and without traces."""

import dataclasses
import random
import sys
from functools import partial
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from common.errors import UserError
from persim.baselines import offline
from persim.baselines.offline import ALGORITHMS, ContinuousSettings, DiscreteSettings, train

SMALL = DiscreteSettings(hidden=(32,), batch_size=32, learning_rate=1e-2, target_interval=20)
FEW = ContinuousSettings(hidden=(16, 16), batch_size=32, actor_learning_rate=1e-2)
need_library = pytest.mark.skipif(find_spec("d3rlpy") is None, reason="needs extra [baselines]")
both = pytest.mark.parametrize("algorithm", ALGORITHMS)


def toy(space, ends=lambda next_state: next_state[..., 0] < -0.5):
    return SimpleNamespace(action_space=space, terminated=ends)


def rows(state, action, reward, next_state):
    """What training reads of transitions."""
    state, next_state, reward = (np.asarray(x, np.float32) for x in (state, next_state, reward))
    return SimpleNamespace(state=state, action=np.asarray(action), reward=reward, next_state=next_state)


def noise(rng, n, space):
    """n transitions without any rule."""
    continuous = isinstance(space, Box)
    action = (
        rng.uniform(-1, 1, (n, *space.shape)).astype(np.float32) if continuous else rng.integers(3, size=n)
    )
    return rows(rng.standard_normal((n, 4)), action, rng.standard_normal(n), rng.standard_normal((n, 4)))


SPACES = [(Discrete(3), SMALL), (Box(-1, 1, (2,), np.float32), FEW)]


@need_library
@both
def test_values_end_where_the_family_says_and_not_at_the_last_row(algorithm):
    # From 0, action 0 earns 1 and ends at -1, where staying would earn 5 for ever; action 1 earns 0.5 and
    # stays. Each row is a trajectory: a value that ended with it, or that went on at -1, prefers action 0.
    data = rows([[0], [0], [-1], [-1]], [0, 1, 0, 1], [1, 0.5, 5, 5], [[-1], [0], [-1], [-1]])

    def chosen(*ends):
        policy = train(algorithm, data, toy(Discrete(2), *ends), 250, 0, SMALL)
        return policy(np.zeros((1, 1), np.float32), None).tolist()

    assert chosen() == [1]
    assert chosen(lambda next_state: next_state[..., 0] > 9) == [0]
    assert chosen(lambda next_state: next_state[..., 0] < 9) == [0]


@need_library
@both
@pytest.mark.parametrize("low, high", [(-1, 1), (30, 1017)])
def test_continuous_actions_go_where_they_pay(algorithm, low, high):
    rng, space = np.random.default_rng(0), Box(low, high, (1,), np.float32)
    centre, half = (low + high) / 2, (high - low) / 2
    state, action = rng.standard_normal((2000, 1)), rng.uniform(-1, 1, (2000, 1)).astype(np.float32)
    told = (centre + half * action).astype(np.float32)
    data = rows(state, told, -4 * np.abs(action[:, 0] - 0.6), state)
    settings = dataclasses.replace(
        FEW,
        hidden=(32, 32),
        conservatism=0.5,
        critic_learning_rate=1e-2,
        divergence_weight=0.02,
        perturbation=0.2,
    )
    policy = train(algorithm, data, toy(space, lambda next_state: next_state[..., 0] < 99), 200, 0, settings)
    chosen = policy(rng.standard_normal((200, 1)).astype(np.float32), rng)
    assert chosen.shape == (200, 1) and chosen.dtype == np.float32
    assert np.abs((chosen - centre) / half - 0.6).mean() < 0.3


@need_library
@both
@pytest.mark.parametrize("space, settings", SPACES)
def test_policies_act_as_the_library_would(algorithm, space, settings, monkeypatch):
    rng = np.random.default_rng(0)
    data, states, kept = noise(rng, 300, space), rng.standard_normal((50, 4)).astype(np.float32), []
    d3rlpy, _ = offline.library()
    kind = "Discrete" if isinstance(space, Discrete) else ""
    config = getattr(d3rlpy.algos, f"{kind}{algorithm.upper()}Config")
    create = config.create
    monkeypatch.setattr(config, "create", lambda self, device: kept.append(create(self, device)) or kept[0])
    policy = train(algorithm, data, toy(space), 30, 0, settings)
    mean, scale = data.state.mean(0), data.state.std(0)
    # The library draws its candidates where ours are drawn.
    own = np.random.default_rng(1)
    monkeypatch.setattr(
        torch, "randn", lambda *shape, device: torch.from_numpy(own.standard_normal(shape, dtype=np.float32))
    )
    expected = kept[0].predict((states - mean) / scale)
    np.testing.assert_allclose(policy(states, np.random.default_rng(1)), expected, atol=1e-4)


@need_library
@both
@pytest.mark.parametrize("space, settings", SPACES)
def test_a_seed_makes_a_policy_and_leaves_no_trace(algorithm, space, settings, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    data, states = noise(np.random.default_rng(0), 300, space), np.random.default_rng(1).random((99, 4))
    before = [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]

    def actions(seed):
        policy = train(algorithm, data, toy(space), 20, seed, settings)
        return policy(states.astype(np.float32), np.random.default_rng(2))

    first = actions(0)
    torch.rand(3)
    torch.set_rng_state(torch.tensor(before[0], dtype=torch.uint8))
    np.testing.assert_array_equal(actions(0), first)
    assert (actions(1) != first).any()
    assert before == [torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()]
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "")


@need_library
def test_units_of_states_and_how_data_are_cut_do_not_matter():
    rng = np.random.default_rng(0)
    data, states = noise(rng, 300, Discrete(3)), rng.standard_normal((99, 4)).astype(np.float32)
    space = toy(Discrete(3), lambda next_state: next_state[..., 0] > 1e9)
    learn = partial(train, "cql", family=space, num_steps=30, seed=0, settings=SMALL)
    chosen = learn(data=data)(states, None)
    units, zero = np.array([1, 1e-4, 50, 1], np.float32), np.float32([0, 0, 3, 0])
    other = rows(data.state * units + zero, data.action, data.reward, data.next_state * units + zero)
    assert (learn(data=other)(states * units + zero, None) == chosen).mean() > 0.95
    names = ("state", "action", "reward", "next_state")
    parts = [rows(*(getattr(data, name)[part] for name in names)) for part in (slice(100), slice(100, None))]
    np.testing.assert_array_equal(learn(data=parts)(states, None), chosen)


@need_library
def test_a_coordinate_that_never_moves_does_no_harm():
    data = noise(np.random.default_rng(0), 100, Discrete(3))
    data.state[:, 2], data.next_state[:, 2] = 0.1, 0.1
    policy = train("bcq", data, toy(Discrete(3)), 5, 0, SMALL)
    assert policy(data.state, None).shape == (100,)


def test_mistakes_are_told_in_one_line(monkeypatch):
    data, family = noise(np.random.default_rng(0), 10, Discrete(3)), toy(Discrete(3))
    with pytest.raises(UserError, match="'dqn': choose one of bcq, cql"):
        train("dqn", data, family, 1, 0)
    nothing = noise(np.random.default_rng(0), 0, Discrete(3))
    with pytest.raises(UserError, match="no transitions"):
        train("bcq", nothing, family, 1, 0)
    monkeypatch.setitem(sys.modules, "d3rlpy", None)
    with pytest.raises(UserError, match=r"\[baselines\]") as caught:
        train("bcq", data, family, 1, 0)
    assert "\n" not in str(caught.value)
