import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from caml import divergence
from caml.divergence import pairwise_js, policy_divergences


def random_policies(P, S, A, seed=0):
    """Probabilities [P, S, A] with some exact zeros, weights [S], densities [P, S]."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(A, 0.5), (P, S)) * (rng.random((P, S, A)) > 0.2) + 1e-300
    return probabilities / probabilities.sum(-1, keepdims=True), rng.random(S), rng.random((P, S)) + 0.1


def js(p, r):
    """Jensen-Shannon by its definition, for unnormalised p and r [A] > 0."""
    m = (p + r) / 2
    return sum(x * np.log(x / m) - x + m for x in (p, r)).sum() / 2


def by_definition(probabilities, weights, densities, normalised):
    """Algorithm 1 term by term, with rho_i(s, a) = pi_i(a|s) q_i(s)."""
    weights = weights / weights.sum()
    if normalised:
        rho = probabilities * densities[..., None]
        rho /= rho.sum(-1, keepdims=True)
    else:
        rho = probabilities * (densities / (densities @ weights)[:, None])[..., None]
    P, S, _ = rho.shape
    return np.array(
        [[sum(weights[s] * js(rho[i, s], rho[j, s]) for s in range(S)) for j in range(P)] for i in range(P)]
    )


# --- Jensen-Shannon


def test_by_hand():
    probabilities = np.array([[[1, 0], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]], [[0, 1], [0.5, 0.5]]])
    half = (np.log(4 / 3) + np.log(2 / 3) / 2 + np.log(2) / 2) / 2  # JS of (1, 0) and (1/2, 1/2): 0.2158
    assert half == pytest.approx(0.21576, abs=1e-5)
    expected = np.array([[0, half, np.log(2)], [half, 0, half], [np.log(2), half, 0]])
    np.testing.assert_allclose(pairwise_js(probabilities, [3, 1]), 0.75 * expected, atol=1e-15)


@pytest.mark.parametrize("normalised", [True, False])
def test_equals_algorithm_1_term_by_term(normalised):
    probabilities, weights, densities = random_policies(5, 7, 3)
    found = pairwise_js(probabilities, weights, None if normalised else densities)
    np.testing.assert_allclose(
        found, by_definition(probabilities, weights, densities, normalised), atol=1e-14
    )


def test_densities_matter_only_where_they_are_kept():
    probabilities, weights, densities = random_policies(4, 6, 3)
    kept = pairwise_js(probabilities, weights, densities)
    assert np.abs(kept - pairwise_js(probabilities, weights)).max() > 0.01
    np.testing.assert_allclose(pairwise_js(probabilities, weights, densities * [[1], [9], [5], [2]]), kept)
    same = pairwise_js(probabilities, weights, np.tile(densities[:1], (4, 1)))
    np.testing.assert_allclose(same, pairwise_js(probabilities, weights * densities[0]))


@st.composite
def policies(draw):
    P, S, A = draw(st.integers(1, 5)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    numbers = st.one_of(st.just(0.0), st.floats(1e-200, 1))
    probabilities = draw(arrays(np.float64, (P, S, A), elements=numbers))
    probabilities[..., 0] += probabilities.sum(-1) == 0
    weights = draw(arrays(np.float64, S, elements=numbers))
    weights[0] += 1e-100
    densities = draw(st.none() | arrays(np.float64, (P, S), elements=st.floats(1e-100, 1e100)))
    return probabilities / probabilities.sum(-1, keepdims=True), weights, densities


@given(policies(), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_symmetric_bounded_zero_on_itself_and_blind_to_order(case, random):
    probabilities, weights, densities = case
    found = pairwise_js(probabilities, weights, densities)
    assert np.array_equal(found, found.T)
    assert not found.diagonal().any()
    assert (found >= 0).all() and (found <= np.log(2)).all()
    order = random.sample(range(len(found)), len(found))
    shuffled = pairwise_js(probabilities[order], weights, None if densities is None else densities[order])
    assert np.array_equal(shuffled, found[np.ix_(order, order)])


def test_equal_policies_are_exactly_zero_apart_and_disjoint_ones_ln_2():
    probabilities, weights, _ = random_policies(3, 10, 4)
    found = pairwise_js(np.concatenate([probabilities, probabilities]), weights)
    assert not found[[0, 1, 2], [3, 4, 5]].any()
    disjoint = np.eye(4)[:, None, :].repeat(6, axis=1)
    np.testing.assert_allclose(pairwise_js(disjoint, np.ones(6)), np.log(2) * (1 - np.eye(4)), rtol=1e-14)


def test_rows_and_blocks_change_nothing(monkeypatch):
    probabilities, weights, densities = random_policies(11, 5, 3)
    whole = pairwise_js(probabilities, weights, densities)
    monkeypatch.setattr(divergence, "BLOCK_SIZE", 60)
    shares = [
        pairwise_js(probabilities, weights, densities, slice(a, b)) for a, b in ((0, 4), (4, 4), (4, 11))
    ]
    assert [len(share) for share in shares] == [4, 0, 7]
    assert np.array_equal(np.concatenate(shares), whole)


@pytest.mark.parametrize(
    "probabilities, weights, densities, words",
    [
        (np.ones((2, 2)), np.ones(2), None, "shape"),
        (np.full((2, 3, 2), 0.4), np.ones(3), None, "sum to 1"),
        (np.full((2, 3, 2), np.nan), np.ones(3), None, "sum to 1"),
        (np.full((2, 3, 2), 0.5), np.ones(4), None, "3 weights"),
        (np.full((2, 3, 2), 0.5), np.ones(3), np.ones((3, 2)), "densities"),
        (np.full((2, 3, 2), 0.5), np.zeros(3), None, "not all 0"),
        (np.full((2, 3, 2), 0.5), [1, np.nan, 1], None, "finite"),
        (np.full((2, 3, 2), 0.5), [1, -1, 1], None, "at least 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(probabilities, weights, densities, words):
    with pytest.raises(ValueError, match=words) as error:
        pairwise_js(probabilities, weights, densities)
    assert "\n" not in str(error.value)


# --- all of Algorithm 1


def test_same_behaviour_in_different_places():
    rng = np.random.default_rng(0)
    trajectories = [rng.standard_normal((40, 2)), rng.standard_normal((25, 2)) + 50]

    def uniform(states, rng):
        return np.full((2, len(states), 4), 0.25)

    normalised = policy_divergences(trajectories, uniform, 60, rng)
    assert not normalised.any()
    kept = policy_divergences(trajectories, uniform, 60, rng, normalised=False)
    assert kept[0, 1] == pytest.approx(np.log(2), rel=1e-6)


def test_ranks_with_equal_generators_share_the_rows():
    trajectories = list(np.random.default_rng(0).standard_normal((6, 30, 2)))
    directions = np.random.default_rng(1).standard_normal((6, 2, 4))

    def softmax(states, rng):
        exponentials = np.exp(states @ directions)
        return exponentials / exponentials.sum(-1, keepdims=True)

    def rows(of):
        return policy_divergences(trajectories, softmax, 40, np.random.default_rng(2), rows=of)

    whole = rows(slice(None))
    assert np.array_equal(np.concatenate([rows(slice(0, 2)), rows(slice(2, 6))]), whole)
    assert (whole + np.eye(6) > 0.01).all()
    with pytest.raises(ValueError, match="no trajectory"):
        policy_divergences([], softmax, 40, np.random.default_rng(2))
