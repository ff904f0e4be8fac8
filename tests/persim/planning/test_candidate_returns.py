"""Returns of imagined sequences, by hand."""

import numpy as np
import pytest
import torch

from envs import make_family
from persim.planning import candidate_returns
from persim.planning.candidate_returns import disagreement, returns_of
from tests.persim.toys import Drift, Members, Walk

RIGHT = np.full((1, 3, 1), 2, np.uint8)  # three steps to the right


def test_the_mean_over_members_that_roll_on_by_themselves():
    """Gains 1 and 2 from 0: 1, 2, 3 and 2, 4, 6, so distances to 2 of 1 + 0 + 1 and 0 + 2 + 4."""
    assert returns_of(Walk(), Members((1.0, 2.0)), np.zeros((1, 1)), RIGHT).item() == -(2 + 6) / 2


def test_members_may_start_every_step_from_their_mean():
    """Means 1.5 and 3: distances 1 and 0, then 2.5 and 3.5 give 0.5 and 1.5, then 4 and 5 give 2 and 3."""
    returns = returns_of(Walk(), Members((1.0, 2.0)), np.zeros((1, 1)), RIGHT, mean_state=True)
    assert returns.item() == pytest.approx(-((1 + 0) + (0.5 + 1.5) + (2 + 3)) / 2)


def test_no_reward_counts_from_an_end_on():
    """The member with gain 2 ends at its second step, that with gain 1 never."""
    returns = returns_of(Walk(), Members((1.0, 2.0)), np.zeros((1, 1)), RIGHT, mask=True)
    assert returns.item() == -(2 + 0) / 2


def test_shaping_counts_the_farthest_that_each_member_came():
    right_then_left = np.array([2, 2, 0], np.uint8).reshape(1, 3, 1)
    plain = returns_of(Walk(), Members((1.0, 3.0)), np.zeros((1, 1)), right_then_left)
    shaped = returns_of(Walk(), Members((1.0, 3.0)), np.zeros((1, 1)), right_then_left, shaping=0.5)
    assert (shaped - plain).item() == pytest.approx(0.5 * (2 + 6) / 2)
    start = returns_of(Walk(), Members(), np.full((1, 1), 9.0), RIGHT * 0, shaping=1.0)
    assert start.item() == -(6 + 5 + 4) + 9


def test_no_number_is_never_best():
    actions = np.array([[0.5, np.inf, np.nan, -1.0]], np.float32).reshape(1, 1, 4, 1)
    returns = returns_of(Drift(0.5), Members(), np.zeros((1, 1)), actions)
    assert returns[0].tolist() == [0.0, -np.inf, -np.inf, -2.25]
    lost = returns_of(make_family("cart_pole"), Members((np.nan,)), np.zeros((1, 4)), RIGHT, mask=True)
    assert lost.item() == -np.inf, "what is no number does not stand upright"


@pytest.mark.parametrize("shaping", [0.0, 0.5])
def test_dropping_what_has_ended_changes_nothing(monkeypatch, shaping):
    rng = np.random.default_rng(0)
    state, actions = rng.normal(size=(4, 1)), rng.integers(0, 3, (4, 30, 50), np.uint8)
    found = []
    for thinning in (1, 3, 1000):
        monkeypatch.setattr(candidate_returns, "THINNING", thinning)
        model = Members((1.0, 0.9, 0.2))
        found.append(returns_of(Walk(), model, state, actions, mask=True, shaping=shaping))
    assert torch.allclose(found[0], found[2]) and torch.allclose(found[1], found[2])
    assert found[2].std() > 1


def test_what_members_disagree_on_costs_its_price_until_an_end():
    """Gains 1 and 2 from 0: deviations of 0.5, 1 and 1.5; that with gain 2 ends at its second step."""
    returns = returns_of(Walk(), Members((1.0, 2.0)), np.zeros((1, 1)), RIGHT, pessimism=10.0)
    assert returns.item() == pytest.approx(-(2 + 6) / 2 - 10 * (0.5 + 1 + 1.5))
    masked = returns_of(Walk(), Members((1.0, 2.0)), np.zeros((1, 1)), RIGHT, mask=True, pessimism=10.0)
    assert masked.item() == pytest.approx(-(2 + 0) / 2 - 10 * (0.5 + 1 / 2 + 1.5 / 2))


def test_disagreement_is_in_the_units_of_a_model():
    model = Members()
    model.unit = torch.tensor([2.0, 4.0])
    state = torch.tensor([[[[1.0, 0.0, 9.0]]], [[[5.0, 8.0, -9.0]]]])
    assert disagreement(model, state).item() == pytest.approx(1.0)  # deviations of 1 and 1; the rest is known
