from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caml.clustering import attainable_rand_index, build, choose_k, k_medoids, scores, swap


def between(points):
    """Euclidean distances [P, P]."""
    distances = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
    return (distances + distances.T) / 2


def heaps(sizes, seed=0, distance=20.0):
    """Distances of heaps far apart, in random order, and the heap of each member."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    angles = 2 * np.pi * groups / len(sizes)
    centres = distance * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return between(centres + rng.uniform(-1, 1, centres.shape)), groups


def best_loss(distances, k, weights=1.0):
    """The smallest loss of all choices of k medoids."""
    choices = np.array(list(combinations(range(len(distances)), k)))
    return (distances[choices].min(axis=1) * weights).sum(axis=1).min()


# --- K-medoids


def test_by_hand():
    points = np.array([0.0, 1.0, 2.0, 10.0, 11.0, 13.0])[:, None]
    found = k_medoids(between(points), 2)
    assert found.medoids.tolist() == [1, 4] and found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.loss == 5
    assert k_medoids(between(points), 6).loss == 0
    heavy = k_medoids(between(points), 1, weights=[1, 1, 1, 1, 1, 10])
    assert heavy.medoids.tolist() == [5] and heavy.loss == 13 + 12 + 11 + 3 + 2


def test_build_begins_in_the_middle_of_the_weights_and_adds_what_helps_most():
    distances = between(np.array([0.0, 1.0, 2.0, 10.0, 11.0, 13.0])[:, None])
    assert build(distances, 3, np.ones(6), 1e-9).tolist() == [2, 4, 0]
    assert build(distances, 3, np.array([1, 1, 1, 1, 1, 10]), 1e-9).tolist() == [5, 1, 3]


def test_swaps_leave_a_bad_start():
    # BUILD opens with the middle, 2; only a swap of it reaches {1, 4}.
    points = np.array([-4.2, -4.0, 0.0, 4.0, 4.1])[:, None]
    found = k_medoids(between(points), 2)
    assert 2 not in found.medoids and found.loss == pytest.approx(best_loss(between(points), 2))


@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 9), st.booleans())
@settings(max_examples=150, deadline=None)
def test_no_swap_helps_and_labels_name_the_nearest(seed, P, k, weighted):
    rng = np.random.default_rng(seed)
    k = min(k, P)
    distances = np.triu(rng.integers(0, 6, (P, P)), 1).astype(float)  # many ties, no triangle inequality
    distances += distances.T
    weights = rng.integers(1, 4, P).astype(float) if weighted else np.ones(P)
    medoids, labels, loss = k_medoids(distances, k, weights)
    assert len(set(medoids.tolist())) == k and medoids.tolist() == sorted(medoids)
    assert labels[medoids].tolist() == list(range(k))
    nearest = distances[medoids].min(axis=0)
    assert np.array_equal(distances[medoids[labels], np.arange(P)], nearest)
    assert loss == pytest.approx(weights @ nearest)
    for leaving in range(k):
        for candidate in range(P):
            swapped = [*np.delete(medoids, leaving), candidate]
            assert weights @ distances[swapped].min(axis=0) >= loss - 1e-9


@pytest.mark.parametrize("seed", range(10))
def test_clusters_far_apart_are_found_exactly(seed):
    distances, groups = heaps([3, 4, 2, 5], seed)
    found = k_medoids(distances, 4)
    assert found.loss == pytest.approx(best_loss(distances, 4))
    assert scores(found.labels, groups) == {
        "adjusted_rand_index": 1.0,
        "normalised_mutual_information": pytest.approx(1.0),
    }


def test_small_cases_equal_brute_force_even_without_structure():
    losses = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        P, k = int(rng.integers(5, 12)), int(rng.integers(1, 5))
        distances = between(rng.standard_normal((P, 2)))
        losses.append([k_medoids(distances, k).loss, best_loss(distances, k)])
    found, best = np.array(losses).T
    np.testing.assert_allclose(found, best, rtol=1e-9)


def test_restarts_find_what_build_and_swaps_miss():
    missed = 0
    for seed in range(100):
        distances = between(np.random.default_rng(seed).standard_normal((10, 2)))
        greedy = swap(distances, build(distances, 3, np.ones(10), 1e-9), np.ones(10), 1e-9)
        missed += k_medoids(distances, 3).loss < distances[greedy].min(axis=0).sum() - 1e-9
    assert missed > 3


def test_ties_go_to_the_lowest_index_and_no_cluster_is_empty():
    alike = k_medoids(np.zeros((5, 5)), 3)
    assert alike.medoids.tolist() == [0, 1, 2] and alike.labels.tolist() == [0, 1, 2, 0, 0]
    apart = k_medoids(1 - np.eye(5), 2)
    assert apart.medoids.tolist() == [0, 1] and apart.labels.tolist() == [0, 1, 0, 0, 0]


def test_the_order_of_members_does_not_matter():
    rng = np.random.default_rng(3)
    distances, order = between(rng.standard_normal((40, 3))), rng.permutation(40)
    found, shuffled = k_medoids(distances, 5), k_medoids(distances[np.ix_(order, order)], 5)
    assert sorted(order[shuffled.medoids]) == found.medoids.tolist()
    assert shuffled.loss == pytest.approx(found.loss)


def test_a_weight_of_three_is_three_copies():
    rng = np.random.default_rng(4)
    points, weights = rng.standard_normal((12, 2)), rng.integers(1, 4, 12)
    copies = np.repeat(np.arange(12), weights)
    weighted, copied = k_medoids(between(points), 3, weights), k_medoids(between(points[copies]), 3)
    assert copies[copied.medoids].tolist() == weighted.medoids.tolist()
    assert copied.loss == pytest.approx(weighted.loss)


def changed(*changes):
    distances = between(np.arange(4.0)[:, None])
    for i, j, value in changes:
        distances[i, j] = value
    return distances


@pytest.mark.parametrize(
    "distances, k, weights, words",
    [
        (np.zeros((3, 4)), 2, None, "square"),
        (np.zeros((0, 0)), 1, None, "square"),
        (changed((0, 1, 9)), 2, None, "symmetric"),
        (changed((0, 1, -1), (1, 0, -1)), 2, None, "at least 0"),
        (changed((0, 1, np.nan), (1, 0, np.nan)), 2, None, "finite"),
        (changed((0, 1, np.inf), (1, 0, np.inf)), 2, None, "finite"),
        (changed((2, 2, 1)), 2, None, "diagonal"),
        (changed(), 0, None, "num_medoids is 0"),
        (changed(), 5, None, "1 to 4"),
        (changed(), 2, [1, 1, 1], "4 finite weights"),
        (changed(), 2, [1, 1, -1, 1], "at least 0"),
        (changed(), 2, np.zeros(4), "not all 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(distances, k, weights, words):
    with pytest.raises(ValueError, match=words) as error:
        k_medoids(distances, k, weights)
    assert "\n" not in str(error.value)


# --- the number of clusters, and scores


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_number_of_clusters_is_recovered(k):
    assert choose_k(heaps([5] * k)[0], range(2, 9)) == k


@pytest.mark.parametrize("candidates", [[], [1, 2], [2, 10]])
def test_candidates_without_a_silhouette_are_refused(candidates):
    with pytest.raises(ValueError, match="choose_k"):
        choose_k(heaps([5, 5])[0], candidates)


def test_scores_by_hand():
    # Two pairs agree of 2 and 3 in 15: expected 0.4, so (2 - 0.4) / (2.5 - 0.4).
    found = scores([0, 0, 1, 1, 2, 3], [5, 5, 7, 7, 8, 8])
    assert found["adjusted_rand_index"] == pytest.approx(1.6 / 2.1)
    # Labels refine groups: information ln 3, entropies ln 3 and ln 3 + ln 2 / 3.
    expected = np.log(3) / (np.log(3) + np.log(2) / 6)
    assert found["normalised_mutual_information"] == pytest.approx(expected)
    assert scores([0] * 6, [0, 0, 1, 1, 2, 2])["adjusted_rand_index"] == 0


def test_two_of_six_groups_alike():
    groups = np.repeat(np.arange(6), 4)
    # 36 pairs within groups, 52 within identities, 276 in all.
    expected = 36 * 52 / 276
    identities = np.where(groups == 5, 0, groups)
    assert attainable_rand_index(groups, identities) == pytest.approx((36 - expected) / (44 - expected))
    assert attainable_rand_index(groups, groups) == 1
