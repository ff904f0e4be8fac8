"""Grouping policies by their divergences: K-medoids, the number of groups, and scores."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

RESTARTS = 10


class KMedoids(NamedTuple):
    """`medoids` [k] ascending, `labels` [P] in 0..k-1, `loss`: weighted sum of distances to the medoids."""

    medoids: np.ndarray
    labels: np.ndarray
    loss: float


def k_medoids(distances: np.ndarray, num_medoids: int, weights: np.ndarray | None = None) -> KMedoids:
    """Cluster by `distances` [P, P] around k members (PAM, Kaufman & Rousseeuw 1990): BUILD, then best swaps.

    The same from `RESTARTS` random starts, whose draws are fixed; the best of all counts. Deterministic;
    among equals the first and the lowest index win. `weights` [P]: how much each member counts. No swap
    improves the result: exact for clusters far apart, and nearly always for few members.
    """
    distances = check_distances(distances)
    num_members = len(distances)
    if not 1 <= num_medoids <= num_members:
        raise ValueError(f"k-medoids: num_medoids is {num_medoids}; give 1 to {num_members}")
    weights = np.ones(num_members) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != (num_members,) or not ((weights >= 0).all() and 0 < weights.sum() < np.inf):
        raise ValueError(f"k-medoids: give {num_members} finite weights of at least 0, not all 0")
    # Losses that differ by rounding only count as equal; this also ends the swaps.
    tolerance = 1e-12 * weights.sum() * distances.max()
    rng, medoids, loss = np.random.default_rng(0), np.empty(0, np.int64), np.inf
    for restart in range(1 + RESTARTS):
        start = rng.permutation(num_members)[:num_medoids]
        start = start if restart else build(distances, num_medoids, weights, tolerance)
        found = np.sort(swap(distances, start, weights, tolerance))
        its_loss = weights @ distances[found].min(axis=0)
        if its_loss < loss - tolerance:
            medoids, loss = found, its_loss
    labels = distances[medoids].argmin(axis=0)
    labels[medoids] = np.arange(num_medoids)  # no cluster is empty, even where distances are 0
    return KMedoids(medoids, labels, float(loss))


def check_distances(distances: np.ndarray) -> np.ndarray:
    """`distances` as float64 [P, P]: finite, at least 0, symmetric, 0 on the diagonal."""
    distances = np.asarray(distances, np.float64)
    if distances.ndim != 2 or distances.shape[0] != distances.shape[1] or not len(distances):
        raise ValueError(f"distances of shape {distances.shape}: give a square matrix [P, P]")
    if not np.isfinite(distances).all() or (distances < 0).any():
        raise ValueError("distances: every number must be finite and at least 0")
    if np.abs(distances - distances.T).max() > 1e-6 * distances.max() or distances.diagonal().any():
        raise ValueError("distances: the matrix must be symmetric with zeros on its diagonal")
    return distances


def build(distances: np.ndarray, num_medoids: int, weights: np.ndarray, tolerance: float) -> np.ndarray:
    """Medoids [k], one after another where the loss falls most."""
    nearest = np.full(len(distances), np.inf)
    medoids: list[int] = []
    for _ in range(num_medoids):
        losses = np.minimum(distances, nearest) @ weights  # [P], with each candidate added
        losses[medoids] = np.inf
        medoids.append(int((losses <= losses.min() + tolerance).argmax()))
        nearest = np.minimum(nearest, distances[medoids[-1]])
    return np.array(medoids)


def swap(distances: np.ndarray, medoids: np.ndarray, weights: np.ndarray, tolerance: float) -> np.ndarray:
    """Medoids [k] after replacing one by a non-medoid, the best of all k (P - k) swaps, while that helps."""
    medoids, members = medoids.copy(), np.arange(len(distances))
    shares = np.zeros((len(distances), len(medoids)))
    while True:
        own = distances[medoids]
        nearest = own.argmin(axis=0)
        first = own[nearest, members]
        own[nearest, members] = np.inf
        second = own.min(axis=0)
        shares[:] = 0
        shares[members, nearest] = weights
        # Candidate c leaves min(D, first) with each member; those who lose their medoid only min(D, second).
        kept = np.minimum(distances, first) @ weights
        lost = (np.clip(distances, first, second) - first) @ shares
        losses = kept[:, None] + lost  # [P, k]
        losses[medoids] = np.inf
        best = losses.min()
        if not best < weights @ first - tolerance:
            return medoids
        candidate, leaves = np.unravel_index((losses <= best + tolerance).argmax(), losses.shape)
        medoids[leaves] = candidate


def choose_k(distances: np.ndarray, candidates: Iterable[int]) -> int:
    """The number of medoids among `candidates` (2 to P - 1 each) with the best mean silhouette."""
    distances, candidates = check_distances(distances), sorted(set(candidates))
    if not candidates or candidates[0] < 2 or candidates[-1] >= len(distances):
        raise ValueError(f"choose_k: candidates {candidates}; give some from 2 to {len(distances) - 1}")
    silhouettes = [silhouette(distances, k_medoids(distances, k).labels) for k in candidates]
    return candidates[int(np.argmax(silhouettes))]


def silhouette(distances: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette (Rousseeuw 1987) of cluster `labels` [P], -1 to 1; 0 for one cluster or P of them."""
    from sklearn.metrics import silhouette_score

    if not 1 < len(set(labels)) < len(labels):
        return 0.0
    return float(silhouette_score(distances, labels, metric="precomputed"))


def scores(labels: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Agreement of cluster `labels` [P] with the true `groups` [P]: 1 is perfect, 0 (Rand) is chance."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return {
        "adjusted_rand_index": float(adjusted_rand_score(groups, labels)),
        "normalised_mutual_information": float(normalized_mutual_info_score(groups, labels)),
    }


def attainable_rand_index(groups: np.ndarray, identities: np.ndarray) -> float:
    """Adjusted Rand index with `groups` [P] of a clustering that is right about all that can be told apart.

    `identities` [P] labels what can be: latent groups that share a base map, as two of the author's six do,
    share a label, and then 1 is out of reach.
    """
    return scores(identities, groups)["adjusted_rand_index"]
