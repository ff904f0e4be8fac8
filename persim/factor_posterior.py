"""Factors of agents as what their steps leave likely: PerSim's model is linear in them."""

from collections.abc import Iterator

import numpy as np
import torch

from persim import history
from persim.simulator import Simulator

ROWS = 8192  # worked on at once
OUTLIER = 3.0  # deviations: errors beyond, as impacts make them, count by their size, not by its square
# A network's errors along a trajectory are alike, so a step says less than if they were drawn each anew:
# steps count as if noise were this much larger. Chosen on agents outside the tests; 3 to 17 do alike.
SHARED_ERRORS = 10.0


class Steps:
    """N steps of K agents: `agent` [N] in 0..K - 1, states and next states [N, D], actions [N] or [N, a]."""

    def __init__(
        self,
        agent: np.ndarray,
        num_agents: int,
        state: np.ndarray,
        action: np.ndarray,
        next_state: np.ndarray,
    ) -> None:
        self.agent, self.num_agents, self.action = np.asarray(agent), num_agents, np.asarray(action)
        self.state, self.next_state = np.asarray(state, np.float32), np.asarray(next_state, np.float32)

    def designs(self, simulator: Simulator) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Rows in pieces: agents [B], what times a factor is a change [M, B, d, r], and the changes [B, d].

        Changes are in deviations, of SHARED_ERRORS times the simulator's `noise`.
        """
        noise, scale = (buffer.double().cpu() for buffer in (simulator.noise, simulator.target_scale))
        unit, M, device = SHARED_ERRORS * noise, simulator.num_models, simulator.noise.device
        for first in range(0, len(self.agent), ROWS):
            arrays = (self.agent, self.state, self.action, self.next_state)
            agent, state, action, following = (torch.from_numpy(a[first : first + ROWS]) for a in arrays)
            v = simulator.state_factors(state.to(device).expand(M, *state.shape)).double().cpu()
            w = simulator.action_factors(action.to(device).expand(M, *action.shape)).double().cpu()
            found = history.change(simulator.history, state, following.double())
            yield agent, v * w[:, :, None] / unit[:, None], found / scale / unit


@torch.no_grad()
def evidence(
    simulator: Simulator, steps: Steps, factor: np.ndarray | None = None, deviation: float | np.ndarray = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the steps say about the factors: precision [M, K, r, r], and that times the mean [M, K, r].

    Errors at `factor` [M, K, r], if given, beyond three times `deviation` [M, K] weigh less (Huber's
    weights). The third result [M, K] is what the deviation should have been, at least 1: it is larger where
    an agent is in states that the simulator does not know.
    """
    M, K, r = simulator.num_models, steps.num_agents, simulator.num_factors
    precision, moment = torch.zeros(M * K, r * r).double(), torch.zeros(M * K, r).double()
    squares, count = torch.zeros(M * K).double(), np.bincount(steps.agent, minlength=K).clip(1)
    deviations = torch.as_tensor(np.broadcast_to(deviation, (M, K)).copy())
    for agent, design, change in steps.designs(simulator):
        design = design / deviations[:, agent, None, None]
        change = change / deviations[:, agent, None]
        row = (torch.arange(M)[:, None] * K + agent).view(-1)
        if factor is not None:
            error = (design @ torch.from_numpy(factor)[:, agent, :, None])[..., 0] - change
            squares.index_add_(0, row, error.clamp(-OUTLIER, OUTLIER).square().mean(2).view(-1))
            weight = (OUTLIER / error.abs().clamp_min(OUTLIER)).sqrt()
            design, change = design * weight[..., None], change * weight
        transposed = design.transpose(2, 3)
        precision.index_add_(0, row, (transposed @ design).flatten(0, 1).flatten(1))
        moment.index_add_(0, row, (transposed @ change[..., None])[..., 0].flatten(0, 1))
    wider = deviations.numpy() * np.sqrt(squares.view(M, K).numpy() / count)
    return precision.view(M, K, r, r).numpy(), moment.view(M, K, r).numpy(), wider.clip(1)


def posterior(
    precision: np.ndarray, moment: np.ndarray, mean: np.ndarray, covariance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Means [M, K, r] and covariances [M, K, r, r]; priors have `mean` [M, r] and `covariance` [M, r, r].

    Directions in which the prior has no spread stay without.
    """
    value, direction = np.linalg.eigh(covariance)
    root = (direction * np.sqrt(value.clip(0))[:, None])[:, None]  # root @ root.T is the covariance
    turned = root.swapaxes(2, 3) @ precision @ root + np.eye(len(mean[0]))
    spread = root @ np.linalg.solve(turned, np.broadcast_to(root.swapaxes(2, 3), turned.shape))
    rest = moment - (precision @ mean[:, None, :, None])[..., 0]
    return mean[:, None] + (spread @ rest[..., None])[..., 0], spread


def prior_of(simulator: Simulator) -> tuple[np.ndarray, np.ndarray]:
    """Mean [M, r] and covariance [M, r, r] of the learned factors."""
    learned = simulator.factors().detach().double().cpu().numpy()
    apart = learned - learned.mean(1, keepdims=True)
    return learned.mean(1), apart.swapaxes(1, 2) @ apart / learned.shape[1]


def refit(simulator: Simulator, steps: Steps, rounds: int = 4, repeats: int = 30) -> np.ndarray:
    """Factors [M, n, r] of all agents, each from its own steps and from what agents are like.

    A trajectory may leave a direction of its agent's factor open, as when a policy took one action only, and
    training leaves it where it happened to be. Here it follows the other agents: mean and covariance of
    factors are fitted together with them, by expectation maximisation.
    """
    mean, covariance = prior_of(simulator)
    factor = simulator.factors().detach().double().cpu().numpy()
    deviation: float | np.ndarray = 1.0
    for _ in range(rounds):
        precision, moment, deviation = evidence(simulator, steps, factor, deviation)
        for _ in range(repeats):
            factor, spread = posterior(precision, moment, mean, covariance)
            mean = factor.mean(1)
            apart = factor - mean[:, None]
            covariance = (apart[..., None] * apart[..., None, :] + spread).mean(1)
    return factor
