"""How far apart policies are: Jensen-Shannon divergences of their occupancies (Zhang 2019, Algorithm 1)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # imported where it is needed: it takes a second
    from sklearn.neighbors import KernelDensity

MIN_BANDWIDTH = 1e-3  # states without spread still get a density
BLOCK_SIZE = 2**17  # numbers in one block of pairs: 1 MB stays in the cache
TINY = np.finfo(np.float64).tiny  # makes 0 log 0 = 0, and is lost in every other sum


def state_density(states: np.ndarray, bandwidth: float | str = "scott") -> "KernelDensity":
    """A fitted Gaussian `KernelDensity` of `states` [m, d].

    `bandwidth` is a number > 0; "scott": Scott's rule, m^(-1 / (d + 4)) times the root of the columns' mean
    variance; "cross_validate": the likeliest of 20 in 0.1 to 10 over 5 folds, the author's choice.
    """
    from sklearn.neighbors import KernelDensity

    states = np.asarray(states, np.float64)
    if states.ndim != 2 or 0 in states.shape:
        raise ValueError(f"state density: states of shape {states.shape}; give at least one, [m, d]")
    if not np.isfinite(states).all():
        raise ValueError("state density: a state is not finite; look for a trajectory that diverged")
    if bandwidth == "cross_validate" and len(states) > 1:
        from sklearn.model_selection import GridSearchCV

        grid = {"bandwidth": np.logspace(-1, 1, 20)}
        search = GridSearchCV(KernelDensity(), grid, cv=min(5, len(states))).fit(states)
        return search.best_estimator_
    if bandwidth in ("scott", "cross_validate"):
        spread = np.sqrt(states.var(axis=0).mean())
        bandwidth = max(MIN_BANDWIDTH, spread * len(states) ** (-1 / (states.shape[1] + 4)))
    elif isinstance(bandwidth, str) or not 0 < bandwidth < np.inf:
        raise ValueError(
            f"state density: bandwidth {bandwidth!r}; give a number > 0, 'scott' or 'cross_validate'"
        )
    return KernelDensity(bandwidth=float(bandwidth)).fit(states)


def relative_density(density: "KernelDensity", states: np.ndarray) -> np.ndarray:
    """Density [S] at `states` [S, d] as a share of its largest value there: 1 at the largest, never all 0."""
    log_density = density.score_samples(np.asarray(states, np.float64))
    return np.exp(log_density - log_density.max())


def sample_pooled_states(
    pooled: np.ndarray, num_states: int, rng: np.random.Generator, bandwidth: float | str = "scott"
) -> tuple[np.ndarray, np.ndarray]:
    """States [S, d] drawn from the density q of `pooled` [M, d], and weights [S] = q there, scaled to sum 1.

    Sampling from q and weighting by q are both the paper's (Algorithm 1): often visited states count twice.
    """
    if num_states < 1:
        raise ValueError(f"pooled states: num_states is {num_states}; give at least 1")
    density = state_density(pooled, bandwidth)
    pooled = np.asarray(pooled, np.float64)
    centres = pooled[rng.integers(len(pooled), size=num_states)]
    states = centres + density.bandwidth_ * rng.standard_normal(centres.shape)
    weights = relative_density(density, states)
    return states, weights / weights.sum()


def occupancies(
    action_probabilities: np.ndarray, weights: np.ndarray, state_densities: np.ndarray | None = None
) -> np.ndarray:
    """Occupancies rho_i(s, a) = pi_i(a|s) q_i(s) at the sampled states, [P, S, A], each summing to 1.

    `action_probabilities` pi [P, S, A], `weights` w [S], `state_densities` q [P, S], each row up to a factor.
    Without q every rho_i(s, .) is normalised at its state, where q_i cancels: state s has mass w(s) for all
    policies, as in the author's code. With q it has mass w(s) q_i(s), scaled to sum 1 over s.
    """
    probabilities, weights = np.asarray(action_probabilities, np.float64), np.asarray(weights, np.float64)
    if probabilities.ndim != 3 or 0 in probabilities.shape:
        raise ValueError(f"divergence: action probabilities of shape {probabilities.shape}; give [P, S, A]")
    sums = probabilities.sum(axis=2, keepdims=True)
    if not ((probabilities >= 0).all() and (np.abs(sums - 1) < 1e-3).all()):
        raise ValueError("divergence: action probabilities must be at least 0 and sum to 1 at every state")
    shape = probabilities.shape[:2]
    densities = np.ones(shape) if state_densities is None else np.asarray(state_densities, np.float64)
    if weights.shape != shape[1:] or densities.shape != shape:
        raise ValueError(f"divergence: give {shape[1]} weights, and densities of shape {shape} or none")
    mass = weights * densities
    total = mass.sum(axis=1, keepdims=True)
    if not ((mass >= 0).all() and ((total > 0) & (total < np.inf)).all()):
        raise ValueError("divergence: weights and densities must be finite, at least 0, and not all 0")
    return probabilities / sums * (mass / total)[..., None]


def pairwise_js(
    action_probabilities: np.ndarray,
    weights: np.ndarray,
    state_densities: np.ndarray | None = None,
    rows: slice = slice(None),
) -> np.ndarray:
    """Divergences D [P, P] between policies, or those `rows` of it, [R, P], so that ranks can share the work.

    D(i, j) = sum over s of w(s) JS(rho_i(s, .), rho_j(s, .)) (Algorithm 1) with `occupancies` as rho. It is
    the Jensen-Shannon divergence of two distributions over (s, a): symmetric, 0 on itself, at most ln 2. For
    q_i given this is the generalised divergence of the unnormalised rho_i(s, .), whose linear terms cancel.
    Natural logarithm and the usual halves; the arXiv version, without halves, is twice this.
    """
    rho = occupancies(action_probabilities, weights, state_densities)
    rho = rho.reshape(len(rho), -1)
    own = np.arange(len(rho))[rows]
    plogp = (rho * np.log(rho + TINY)).sum(axis=1)
    divergences = np.zeros((len(own), len(rho)))
    wanted = np.ones(divergences.shape, bool)
    wanted[:, own] = np.triu(wanted[:, own], 1)  # each pair within the rows once
    first, second = wanted.nonzero()
    block = max(1, BLOCK_SIZE // rho.shape[1])
    for start in range(0, len(first), block):
        row, j = first[start : start + block], second[start : start + block]
        i = own[row]
        middle = rho[i]
        middle += rho[j]
        middle *= 0.5
        logarithm = np.log(middle + TINY)
        logarithm *= middle
        divergences[row, j] = (plogp[i] + plogp[j]) / 2 - logarithm.sum(axis=1)
    divergences[:, own] += divergences[:, own].T
    return divergences.clip(0, np.log(2))


def policy_divergences(
    trajectories: Sequence[np.ndarray],
    action_probabilities: Callable[[np.ndarray, np.random.Generator], np.ndarray],
    num_states: int,
    rng: np.random.Generator,
    bandwidth: float | str = "scott",
    normalised: bool = True,
    rows: slice = slice(None),
) -> np.ndarray:
    """Divergences [P, P] (or `rows` of it) of P policies from one trajectory of states [T_i, d] each.

    `action_probabilities(states [S, d], rng)` gives [P, S, A], of which Gaussian policies draw the actions;
    see `caml.policy.Policies.probabilities`. `normalised=False` keeps the density q_i of each
    policy's own trajectory; see `occupancies`. Ranks that share rows must bring equal `rng`.
    """
    if not len(trajectories):
        raise ValueError("divergence: no trajectory; give one for each policy")
    states, weights = sample_pooled_states(np.concatenate(trajectories), num_states, rng, bandwidth)
    densities = None
    if not normalised:  # lengths differ, so the densities are fitted one by one
        densities = np.stack(
            [relative_density(state_density(own, bandwidth), states) for own in trajectories]
        )
    return pairwise_js(action_probabilities(states, rng), weights, densities, rows)
