"""Walks for the worst-off agent and for Nash's welfare: reached in the environment, and proven best."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from rmdp.fair_walks import FAIR_WALKS, fair_optimum, nash_bound, useful_walks, walk_utilities, worst_optimum
from rmdp.welfare import parse_welfare
from tests.rmdp.test_bounds import replay

STORED = [(name, k) for name, walks in FAIR_WALKS.items() for k in walks]


@pytest.mark.parametrize(("name", "num_policies"), STORED)
def test_the_stored_walks_reach_their_welfare_in_the_environment(name, num_policies):
    walks = FAIR_WALKS[name][num_policies]
    assert len(walks.split()) == num_policies
    distance = np.abs(np.arange(25) // 5 - 4) + np.abs(np.arange(25) % 5 - 2)
    utility = replay(walks).max(axis=0) / (100 - np.maximum(2 * distance, 1))
    np.testing.assert_allclose(walk_utilities(walks), utility, atol=1e-5)
    assert fair_optimum(num_policies, name) == pytest.approx(parse_welfare(name).value(utility), abs=1e-5)


@pytest.mark.parametrize("num_policies", FAIR_WALKS["nash"])
def test_no_walks_have_a_higher_nash_welfare(num_policies):
    assert nash_bound(num_policies) == pytest.approx(fair_optimum(num_policies, "nash"), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("num_policies", FAIR_WALKS["worst"])
def test_no_walks_give_the_worst_off_agent_more(num_policies):
    optimum, walks = worst_optimum(num_policies)
    assert optimum == pytest.approx(fair_optimum(num_policies, "worst"), abs=1e-9)
    assert walk_utilities(walks).min() == pytest.approx(optimum, abs=1e-9)


@given(st.lists(st.integers(0, 2**31), min_size=5, max_size=5), st.sampled_from([1, 2, 3, 5]))
@settings(max_examples=30, deadline=None)
def test_no_random_walks_exceed_the_optimum(numbers, num_policies):
    listed = [walk for t in (2, 6, 8, 10, 12) for walk in useful_walks(t).values()]
    utility = walk_utilities(" ".join(listed[i % len(listed)] for i in numbers[:num_policies]))
    for name in FAIR_WALKS:
        if (value := parse_welfare(name).value(utility)) > 0.01 * (name == "nash"):
            assert value <= fair_optimum(num_policies, name) + 1e-9


def test_useful_walks_by_hand():
    assert list(useful_walks(1).values()) == ["D"]
    assert sorted(useful_walks(2).values()) == ["LR", "RL", "UD"]
    squares = [walk for walk in useful_walks(4).values() if len(set(walk)) == 4]
    assert len(squares) == 2  # to the left or the right; the others go out and back on one line


def test_mistakes_are_told_in_one_line():
    for call in (lambda: fair_optimum(4, "nash"), lambda: fair_optimum(1, "p=.5"), lambda: nash_bound(0)):
        with pytest.raises(UserError) as caught:
            call()
        assert "\n" not in str(caught.value)
