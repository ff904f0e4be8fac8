"""Factors of agents that were in no training data: from a few of their steps, or from their covariates."""

import numpy as np
import torch

from persim.behaviour import random_policy
from persim.trajectories import trajectories

LARGEST_DEGREE = 8


def observe(family, agents, num_steps: int, rng) -> tuple[np.ndarray, ...]:
    """Random actions of each of K agents {name: [K]}: what `from_steps` takes."""
    played = trajectories(family, agents, random_policy(family), rng, num_steps)
    states = played.states.astype(np.float32)
    return states[:, :-1], played.actions, states[:, 1:], played.alive


@torch.no_grad()
def from_steps(simulator, state, action, next_state, counts=None) -> torch.Tensor:
    """Factors [M, K, r] of K agents from T steps of each: states [K, T, d], actions [K, T] or [K, T, a].

    The model is linear in the factor, so this is the mean of its posterior, exactly: the prior is normal with
    the mean and covariance of the learned factors, errors are normal with the simulator's `noise`. Steps
    where `counts` [K, T] is False are left out. With no step it is the mean agent.
    """
    (K, T, d), (M, r) = state.shape, (simulator.num_models, simulator.num_factors)
    flat = torch.as_tensor(state, dtype=torch.float32).reshape(1, K * T, d).expand(M, -1, -1)
    taken = torch.as_tensor(action).reshape(1, K * T, *action.shape[2:]).expand(M, *[-1] * (action.ndim - 1))
    device = simulator.noise.device
    v, w = simulator.state_factors(flat.to(device)), simulator.action_factors(taken.to(device))
    noise, scale = (buffer.double().cpu().numpy() for buffer in (simulator.noise, simulator.target_scale))
    design = (v * w[:, :, None]).double().cpu().numpy().reshape(M, K, T, d, r) / noise[:, None]
    change = (np.asarray(next_state, np.float64) - state) / scale / noise
    if counts is not None:
        design, change = design * counts[:, :, None, None], change * counts[:, :, None]
    design, change = design.reshape(M, K, T * d, r), change.reshape(K, T * d)

    learned = simulator.factors().double().cpu().numpy()  # [M, n, r]
    mean = learned.mean(1, keepdims=True)
    # root @ root.T is the covariance: rows of the design and of the identity are then one least squares
    # problem, whose solution by QR keeps the digits that normal equations would lose.
    value, direction = np.linalg.eigh(
        np.einsum("mni,mnj->mij", learned - mean, learned - mean) / learned.shape[1]
    )
    root = direction * np.sqrt(value.clip(0))[:, None]
    rest = change - (design @ mean[..., None])[..., 0]
    whitened = np.concatenate([design @ root[:, None], np.broadcast_to(np.eye(r), (M, K, r, r))], axis=2)
    wanted = np.concatenate([rest, np.zeros((M, K, r))], axis=2)
    q, triangle = np.linalg.qr(whitened)
    solution = np.linalg.solve(triangle, q.swapaxes(2, 3) @ wanted[..., None])
    return torch.from_numpy((mean[..., None] + root[:, None] @ solution)[..., 0].astype(np.float32))


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
