"""The transitions of a run as minibatches, other ones for each member and the same at any number of ranks."""

from collections.abc import Iterator

import numpy as np
import torch

from common.runs.seeding import stream
from mpi_utils.comm import Comm
from persim.config import Config
from persim.data.transitions import Transitions
from persim.history import change
from persim.simulator import Simulator

# States [M, B, D] and targets [M, B, d] in the simulator's units, agents [M, B], actions [M, B] or [M, B, a].
Minibatch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class Batches:
    """This rank's rows of each minibatch; `size` rows of all ranks, `steps` minibatches an iteration."""

    def __init__(self, config: Config, comm: Comm, data: Transitions, simulator: Simulator) -> None:
        self.seed, self.num_models, self.device = config.seed, config.num_models, config.device
        self.total, self.state_size = len(data), data.state.shape[1]
        self.first_action = self.state_size + simulator.target_size
        self.size = min(config.batch_size, self.total)
        self.steps = config.num_minibatches or self.total // self.size
        self.own = comm.share(self.size)
        self.numbers = np.concatenate(in_units(simulator, data), axis=1)  # [N, D + d (+ a)]
        if not data.discrete:
            self.numbers = np.concatenate([self.numbers, data.action], axis=1)
        self.agent = np.zeros_like(data.agent) if config.pooled else data.agent
        self.action = data.action if data.discrete else None
        self.orders: dict[int, tuple[int, np.ndarray]] = {}

    def __call__(self, i: int) -> Iterator[np.ndarray]:
        """Yield this rank's rows [M, B] of each minibatch of iteration i."""
        for step in range(i * self.steps, (i + 1) * self.steps):
            yield np.stack([self.rows(step, member) for member in range(self.num_models)])

    def rows(self, step: int, member: int) -> np.ndarray:
        """Rows of a member's minibatch that are this rank's; each epoch has all rows once, but for a rest."""
        epoch, k = divmod(step, self.total // self.size)
        if member not in self.orders or self.orders[member][0] != epoch:
            rng = stream(self.seed, "minibatches", epoch, member)
            self.orders[member] = epoch, rng.permutation(self.total)
        return self.orders[member][1][k * self.size :][: self.size][self.own]

    def take(self, rows: np.ndarray) -> Minibatch:
        """(state, target, agent, action) of `rows` [M, B], in the simulator's units, on the device.

        Rows of numbers are copied whole: to gather each column by itself would take several times longer.
        """
        shape, D, last = rows.shape, self.state_size, self.first_action
        taken = self.numbers.take(rows.ravel(), axis=0).reshape(*shape, self.numbers.shape[1])
        numbers = torch.from_numpy(taken).to(self.device)
        agent = torch.from_numpy(self.agent[rows]).to(self.device)
        action = numbers[..., last:]
        if self.action is not None:
            action = torch.from_numpy(self.action[rows]).to(self.device)
        return numbers[..., :D], numbers[..., D:last], agent, action


def in_units(simulator: Simulator, data: Transitions) -> tuple[np.ndarray, np.ndarray]:
    """States as they enter the encoder [N, D] and targets [N, d], float32, both from float64 differences."""
    buffers = (simulator.state_mean, simulator.state_scale, simulator.target_scale)
    mean, scale, target_scale = (buffer.double().cpu().numpy() for buffer in buffers)
    state = data.state.astype(np.float64)
    target = change(simulator.history, state, data.next_state) / target_scale
    return ((state - mean) / scale).astype(np.float32), target.astype(np.float32)
