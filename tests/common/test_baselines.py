"""Uniform actions of both kinds of spaces."""

import numpy as np
from gymnasium.spaces import Box, Discrete

from common.baselines import RandomActions
from common.runs.seeding import SharedStream


def test_discrete_actions_are_uniform_and_begin_where_the_space_does():
    space = Discrete(3, start=2)
    action = RandomActions(space, np.random.default_rng(0)).act(np.zeros((6000, 1)))
    assert all(space.contains(a) for a in action)
    assert np.bincount(action, minlength=5)[2:].min() > 1850


def test_box_actions_fill_the_box():
    space = Box(np.float32([30, -1]), np.float32([1017, 1]))
    action = RandomActions(space, np.random.default_rng(0)).act(np.zeros((4000, 1)))
    assert action.shape == (4000, 2) and all(space.contains(a) for a in action)
    np.testing.assert_allclose(action.mean(0), [523.5, 0], atol=20)
    np.testing.assert_allclose(action.std(0), (space.high - space.low) / np.sqrt(12), rtol=0.05)


def test_without_bounds_numbers_are_small():
    space = Box(np.float32([-np.inf, 0]), np.float32([np.inf, np.inf]))
    action = RandomActions(space, np.random.default_rng(0)).act(np.zeros((1000, 1)))
    np.testing.assert_allclose(action.min(0), [-1, 0], atol=0.01)
    np.testing.assert_allclose(action.max(0), [1, 1], atol=0.01)


def test_ranks_draw_their_rows():
    whole = RandomActions(Discrete(9), np.random.default_rng(1)).act(np.zeros(7))
    part = SharedStream(np.random.default_rng(1), 7, slice(2, 5))
    assert np.array_equal(RandomActions(Discrete(9), part).act(np.zeros(3)), whole[2:5])
