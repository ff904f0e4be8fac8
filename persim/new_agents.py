"""Factors of agents that were in no training data: from a few of their steps, or from their covariates."""

from typing import Any

import numpy as np
import torch

from persim.agent_models import AgentModels
from persim.data.behaviour import random_policy
from persim.data.trajectories import trajectories
from persim.data.transitions import Transitions
from persim.factor_posterior import Steps, evidence, posterior, prior_of
from persim.simulator import Simulator

LARGEST_DEGREE = 8
ROUNDS = 10  # of weighing steps by their errors


class NewAgents:
    """A model to plan with: the agents whose factors [M, K, r] are given, numbered from 0."""

    def __init__(self, simulator: Simulator, factor: torch.Tensor) -> None:
        self.simulator, self.factor = simulator, factor
        self.num_agents = factor.shape[1]

    def factors(self) -> torch.Tensor:
        """u of all agents [M, K, r]."""
        return self.factor

    def at(self, agents: Any) -> AgentModels:
        """The models of the agents [E], to be stepped."""
        return self.simulator.at(factor=self.factor[:, agents])


def observe(
    family: Any, agents: dict[str, np.ndarray], num_steps: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Random actions of each of K agents {name: [K]}: what `from_steps` takes."""
    played = trajectories(family, agents, random_policy(family), rng, num_steps)
    states = played.states.astype(np.float32)
    return states[:, :-1], played.actions, states[:, 1:], played.alive


def first_steps(
    log: Transitions, num_steps: int, agents: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The first steps in a log of the agents with the numbers `agents` [K] (default: all), likewise."""
    agents = np.arange(log.num_agents) if agents is None else agents
    T, d = num_steps, log.state.shape[1]
    state, following = np.zeros((2, len(agents), T, d), np.float32)
    action = np.zeros((len(agents), T, *log.action.shape[1:]), log.action.dtype)
    counts = np.zeros((len(agents), T), bool)
    for a, agent in enumerate(agents):
        first, end = np.searchsorted(log.agent, [agent, agent + 1])
        rows = np.arange(first, min(first + T, end))
        state[a, : len(rows)], following[a, : len(rows)] = log.state[rows], log.next_state[rows]
        action[a, : len(rows)], counts[a, : len(rows)] = log.action[rows], True
    return state, action, following, counts


@torch.no_grad()
def from_steps(
    simulator: Simulator,
    state: np.ndarray,
    action: np.ndarray,
    next_state: np.ndarray,
    counts: np.ndarray | None = None,
) -> torch.Tensor:
    """Factors [M, K, r] of K agents from T steps of each: states [K, T, d], actions [K, T] or [K, T, a].

    The model is linear in the factor, so this is the mean of a posterior whose prior is normal with the mean
    and covariance of the learned factors. Steps where `counts` [K, T] is False are left out. Without any it
    is the mean agent.
    """
    if counts is None:
        counts = np.ones(state.shape[:2], bool)
    agent, _ = counts.nonzero()
    steps = Steps(agent, len(state), *(np.asarray(array)[counts] for array in (state, action, next_state)))
    mean, covariance = prior_of(simulator)
    factor: np.ndarray | None = None
    deviation: float | np.ndarray = 1.0
    for _ in range(ROUNDS):
        precision, moment, deviation = evidence(simulator, steps, factor, deviation)
        factor, _ = posterior(precision, moment, mean, covariance)
    assert factor is not None
    return torch.from_numpy(factor.astype(np.float32))


@torch.no_grad()
def from_covariates(
    simulator: Simulator, covariates: dict[str, np.ndarray], agents: dict[str, np.ndarray]
) -> torch.Tensor:
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


def chebyshev(x: np.ndarray, degree: int) -> np.ndarray:
    """Products [n, terms] of Chebyshev polynomials of the columns of `x` [n, c], up to a total `degree`."""
    powers = np.indices([degree + 1] * x.shape[1]).reshape(x.shape[1], -1).T
    powers = powers[powers.sum(1) <= degree]
    values = np.cos(powers * np.arccos(x.clip(-1, 1))[:, None])
    return values.prod(2)
