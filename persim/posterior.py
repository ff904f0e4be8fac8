"""Factors of agents as what their steps leave likely: PerSim's model is linear in them."""

import numpy as np
import torch

ROWS = 8192  # worked on at once
OUTLIER = 3.0  # deviations: errors beyond count by their size, not by its square; walls make such
# A network's errors along a trajectory are alike, so a step says less than if they were drawn each anew:
# measured by how well factors follow the agents' gravity, steps count as if noise were this much larger.
SHARED_ERRORS = 30.0


class Steps:
    """N steps of K agents: `agent` [N] in 0..K - 1, states and next states [N, d], actions [N] or [N, a]."""

    def __init__(self, agent, num_agents: int, state, action, next_state):
        self.agent, self.num_agents, self.action = np.asarray(agent), num_agents, np.asarray(action)
        self.state, self.next_state = np.asarray(state, np.float32), np.asarray(next_state, np.float32)


@torch.no_grad()
def evidence(simulator, steps: Steps, factor=None) -> tuple[np.ndarray, np.ndarray]:
    """What the steps say about the factors: precision [M, K, r, r] and precision times mean [M, K, r].

    Errors are normal, of SHARED_ERRORS times the simulator's `noise`; those that are beyond three deviations
    at `factor` [M, K, r], if given, weigh less (Huber's weights).
    """
    M, K, r = simulator.num_models, steps.num_agents, simulator.num_factors
    precision, moment = (
        torch.zeros(M * K, r * r, dtype=torch.float64),
        torch.zeros(M * K, r, dtype=torch.float64),
    )
    noise, scale = (buffer.double().cpu() for buffer in (simulator.noise, simulator.target_scale))
    noise = SHARED_ERRORS * noise
    device = simulator.noise.device
    for first in range(0, len(steps.agent), ROWS):
        own = slice(first, first + ROWS)
        agent, state, action, following = (
            torch.from_numpy(array[own])
            for array in (steps.agent, steps.state, steps.action, steps.next_state)
        )
        v, w = (
            encoder(value.to(device).expand(M, *value.shape)).double().cpu()
            for encoder, value in ((simulator.state_factors, state), (simulator.action_factors, action))
        )
        design = v * w[:, :, None] / noise[:, None]  # [M, B, d, r]
        change = ((following.double() - state) / scale / noise).expand(M, -1, -1)
        if factor is not None:
            error = (design @ torch.as_tensor(factor)[:, agent, :, None].double())[..., 0] - change
            weight = (OUTLIER / error.abs().clamp_min(OUTLIER)).sqrt()
            design, change = design * weight[..., None], change * weight
        row = (torch.arange(M)[:, None] * K + agent).view(-1)
        transposed = design.transpose(2, 3)
        precision.index_add_(0, row, (transposed @ design).flatten(0, 1).flatten(1))
        moment.index_add_(0, row, (transposed @ change[..., None])[..., 0].flatten(0, 1))
    return precision.view(M, K, r, r).numpy(), moment.view(M, K, r).numpy()


def posterior(precision, moment, mean, covariance) -> tuple[np.ndarray, np.ndarray]:
    """Means [M, K, r] and covariances [M, K, r, r]; priors have `mean` [M, r] and `covariance` [M, r, r].

    Directions in which the prior has no spread stay without.
    """
    value, direction = np.linalg.eigh(covariance)
    root = (direction * np.sqrt(value.clip(0))[:, None])[:, None]  # root @ root.T is the covariance
    turned = root.swapaxes(2, 3) @ precision @ root + np.eye(len(mean[0]))
    spread = root @ np.linalg.solve(turned, np.broadcast_to(root.swapaxes(2, 3), turned.shape))
    rest = moment - (precision @ mean[:, None, :, None])[..., 0]
    return mean[:, None] + (spread @ rest[..., None])[..., 0], spread


def prior_of(simulator) -> tuple[np.ndarray, np.ndarray]:
    """Mean [M, r] and covariance [M, r, r] of the learned factors."""
    learned = simulator.factors().detach().double().cpu().numpy()
    apart = learned - learned.mean(1, keepdims=True)
    return learned.mean(1), apart.swapaxes(1, 2) @ apart / learned.shape[1]


def settle(simulator, steps: Steps, rounds: int = 3, repeats: int = 30) -> np.ndarray:
    """Factors [M, n, r] of all agents, each from its own steps and from what agents are like.

    A trajectory may leave a direction of its agent's factor open, as when a policy took one action only, and
    training leaves it where it happened to be. Here it follows the other agents: mean and covariance of
    factors are fitted together with them, by expectation maximisation.
    """
    mean, covariance = prior_of(simulator)
    factor = simulator.factors().detach().double().cpu().numpy()
    for _ in range(rounds):
        precision, moment = evidence(simulator, steps, factor)
        for _ in range(repeats):
            factor, spread = posterior(precision, moment, mean, covariance)
            mean = factor.mean(1)
            apart = factor - mean[:, None]
            covariance = (apart[..., None] * apart[..., None, :] + spread).mean(1)
    return factor
