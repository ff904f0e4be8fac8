import itertools

import numpy as np
import pytest

from envs import make_family
from rl2.baselines import make_baseline
from rl2.planning import expectation, optimistic_expectation, value_iteration
from rl2.rollout import play_meta_episodes


def brute_force(transition, reward, horizon):
    """Best values [S] over all policies; transition [S, A, S'], reward [S, A]."""
    num_states, num_actions = reward.shape
    best, rules = np.full(num_states, -np.inf), list(itertools.product(range(num_actions), repeat=num_states))
    states = np.arange(num_states)
    for policy in itertools.product(rules, repeat=horizon):
        value = np.zeros(num_states)
        for rule in reversed(policy):
            value = reward[states, rule] + transition[states, rule] @ value
        best = np.maximum(best, value)
    return best


def two_state_mdps(n):
    rng = np.random.default_rng(3)
    transition = rng.dirichlet(np.ones(2), size=(n, 2, 2)).astype(np.float32)
    return transition, rng.normal(1, 1, (n, 2, 2)).astype(np.float32)


def test_value_iteration_against_all_policies():
    transition, reward = two_state_mdps(5)
    q = value_iteration(np.moveaxis(reward, 0, -1), expectation(np.moveaxis(transition, 0, -1)), 4)
    for i in range(5):
        np.testing.assert_allclose(q[0, :, :, i].max(1), brute_force(transition[i], reward[i], 4), rtol=1e-5)


def test_optimistic_expectation_by_hand():
    transition = np.array([0.2, 0.3, 0.5], np.float32).reshape(1, 1, 3, 1)
    value = np.array([[1.0], [3.0], [2.0]], np.float32)
    for radius, expected in (
        (0.0, 0.2 * 1 + 0.3 * 3 + 0.5 * 2),
        (0.2, 0.1 * 1 + 0.4 * 3 + 0.5 * 2),  # .1 from the worst state to the best
        (0.8, 0.7 * 3 + 0.3 * 2),  # the worst is empty, the rest comes from the second worst
        (2.0, 3.0),
    ):
        expect = optimistic_expectation(transition, np.full((1, 1, 1), radius, np.float32))
        assert expect(value)[0, 0, 0] == pytest.approx(expected, rel=1e-6)


def test_oracle_collects_its_own_value():
    transition, reward = two_state_mdps(1)
    expected = brute_force(transition[0], reward[0], 3)[0]
    tasks = {"transition": transition.repeat(4000, 0), "reward_mean": reward.repeat(4000, 0)}
    family = make_family("tabular_mdp", num_states=2, num_actions=2, max_episode_len=3)
    env = family.make_vec(tasks, np.random.default_rng(0))
    total = play_meta_episodes(env, make_baseline("oracle", tasks, 3, 3), 3)[0].sum(0)
    assert total.mean() == pytest.approx(expected, abs=4 * total.std() / np.sqrt(4000))
