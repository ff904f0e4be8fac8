import numpy as np
import pytest

from caml.divergence import relative_density, sample_pooled_states, state_density


def test_density_by_hand():
    states = np.array([[0.0, 0.0], [1.0, 2.0]])
    point = np.array([[0.5, 0.5]])
    kernels = np.exp(-np.array([0.5, 2.5]) / (2 * 0.7**2)) / (2 * np.pi * 0.7**2)
    assert np.exp(state_density(states, 0.7).score_samples(point)) == pytest.approx(kernels.mean())
    spread = np.sqrt((0.25 + 1) / 2)
    assert state_density(states).bandwidth_ == pytest.approx(spread * 2 ** (-1 / 6))


def test_cross_validation_takes_the_likeliest_bandwidth_of_20():
    states = np.random.default_rng(0).standard_normal((60, 2)) * 3
    folds = np.arange(60) // 12
    likelihood = {
        h: sum(state_density(states[folds != f], h).score(states[folds == f]) for f in range(5))
        for h in 10 ** np.linspace(-1, 1, 20)
    }
    assert state_density(states, "cross_validate").bandwidth_ == max(likelihood, key=likelihood.get)


@pytest.mark.parametrize("bandwidth", ["scott", 0.5, "cross_validate"])
@pytest.mark.parametrize("pooled", [np.zeros((1, 2)), np.full((50, 3), 1e6), np.zeros((3, 1), np.float32)])
def test_states_without_spread_have_a_density(pooled, bandwidth):
    states, weights = sample_pooled_states(pooled, 20, np.random.default_rng(0), bandwidth)
    assert states.shape == (20, pooled.shape[1]) and (np.abs(states - pooled[0]) < 5).all()
    assert (weights > 0).all() and weights.sum() == pytest.approx(1)


def test_sampled_states_follow_the_pooled_density():
    rng = np.random.default_rng(0)
    pooled = np.concatenate([np.zeros((300, 2)), np.full((100, 2), 10.0)])
    states, weights = sample_pooled_states(pooled, 20_000, rng, 0.5)
    near = np.abs(states).max(axis=1) < 5
    assert near.mean() == pytest.approx(0.75, abs=0.015)
    np.testing.assert_allclose(states[near].std(axis=0), 0.5, rtol=0.03)
    # Kernels do not overlap: q = share of the heap times the kernel.
    squares = (np.where(near[:, None], states, states - 10) ** 2).sum(axis=1)
    expected = np.where(near, 0.75, 0.25) * np.exp(-squares / (2 * 0.5**2))
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-6)


def test_densities_too_small_for_a_float_still_weigh():
    pooled = np.random.default_rng(0).standard_normal((30, 1500))
    states, weights = sample_pooled_states(pooled, 10, np.random.default_rng(1), 1.0)
    density = state_density(pooled, 1.0)
    assert not np.exp(density.score_samples(states)).any()
    assert weights.sum() == pytest.approx(1) and relative_density(density, states).max() == 1


@pytest.mark.parametrize(
    "pooled, num_states, bandwidth, words",
    [
        (np.zeros((0, 2)), 5, "scott", "at least one"),
        (np.zeros(4), 5, "scott", "shape"),
        (np.array([[np.nan, 0]]), 5, "scott", "not finite"),
        (np.zeros((3, 2)), 0, "scott", "num_states"),
        (np.zeros((3, 2)), 5, -1.0, "bandwidth"),
        (np.zeros((3, 2)), 5, "silver", "bandwidth"),
    ],
)
def test_states_that_cannot_be_meant_are_refused(pooled, num_states, bandwidth, words):
    with pytest.raises(ValueError, match=words) as error:
        sample_pooled_states(pooled, num_states, np.random.default_rng(0), bandwidth)
    assert "\n" not in str(error.value)
