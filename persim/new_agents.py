"""Factors of agents that were in no training data: from a few of their steps, or from their covariates."""

import numpy as np
import torch

from persim.data.behaviour import random_policy
from persim.data.trajectories import trajectories
from persim.factor_posterior import Steps, evidence, posterior, prior_of

LARGEST_DEGREE = 8
ROUNDS = 10  # of weighing steps by their errors


def observe(family, agents, num_steps: int, rng) -> tuple[np.ndarray, ...]:
    """Random actions of each of K agents {name: [K]}: what `from_steps` takes."""
    played = trajectories(family, agents, random_policy(family), rng, num_steps)
    states = played.states.astype(np.float32)
    return states[:, :-1], played.actions, states[:, 1:], played.alive


@torch.no_grad()
def from_steps(simulator, state, action, next_state, counts=None) -> torch.Tensor:
    """Factors [M, K, r] of K agents from T steps of each: states [K, T, d], actions [K, T] or [K, T, a].

    The model is linear in the factor, so this is the mean of a posterior whose prior is normal with the mean
    and covariance of the learned factors. Steps where `counts` [K, T] is False are left out. Without any it
    is the mean agent.
    """
    if counts is None:
        counts = np.ones(state.shape[:2], bool)
    agent, _ = counts.nonzero()
    steps = Steps(agent, len(state), *(np.asarray(array)[counts] for array in (state, action, next_state)))
    (mean, covariance), factor, deviation = prior_of(simulator), None, 1.0
    for _ in range(ROUNDS):
        precision, moment, deviation = evidence(simulator, steps, factor, deviation)
        factor, _ = posterior(precision, moment, mean, covariance)
    return torch.from_numpy(factor.astype(np.float32))


@torch.no_grad()
def from_covariates(simulator, covariates, agents) -> torch.Tensor:
    """Factors [M, K, r] of `agents` {name: [K]} from those learned of agents with `covariates` {name: [n]}.

    The map is a polynomial for each member (section 5), of the degree with the least error on agents left
    out in turn, which for least squares needs no second fit.
    """
    learned = simulator.factors().double().cpu().numpy()
    M, n, r = learned.shape
    low = {name: values.min() for name, values in covariates.items()}
    span = {name: max(np.ptp(values), 1e-12) for name, values in covariates.items()}
    known, new = (
        np.stack([2 * (np.asarray(group[name]) - low[name]) / span[name] - 1 for name in covariates], axis=1)
        for group in (covariates, agents)
    )
    spread = learned.std(1) + 1e-12
    errors, predictions = [], []
    for degree in range(LARGEST_DEGREE + 1):
        basis, of_new = chebyshev(known, degree), chebyshev(new, degree)
        if 2 * basis.shape[1] > n and degree:
            break
        q, triangle = np.linalg.qr(basis)
        fitted = q @ (q.T @ learned)  # [M, n, r]
        left_out = (learned - fitted) / (1 - np.square(q).sum(1)[:, None]).clip(1e-9)
        errors.append(np.median(np.abs(left_out), axis=1) / spread)
        predictions.append(of_new @ np.linalg.pinv(triangle) @ (q.T @ learned))
    best = np.argmin(np.mean(errors, axis=2), axis=0)  # [M]
    chosen = np.stack(predictions)[best, np.arange(M)]
    return torch.from_numpy(chosen.astype(np.float32))


def chebyshev(x, degree: int) -> np.ndarray:
    """Products [n, terms] of Chebyshev polynomials of the columns of `x` [n, c], up to a total `degree`."""
    powers = np.indices([degree + 1] * x.shape[1]).reshape(x.shape[1], -1).T
    powers = powers[powers.sum(1) <= degree]
    values = np.cos(powers * np.arccos(x.clip(-1, 1))[:, None])
    return values.prod(2)
