"""The agents that a rank owns."""

from typing import Any

import numpy as np
import torch

from mpi_utils.comm import Piece

CHUNK = 2048  # agents worked on at once: what fits into a core's cache


class AgentShard:
    """This rank's slice of n agents; `parameters` has a row for each of all n."""

    def __init__(self, comm: Any, num_agents: int, parameters: dict[str, np.ndarray], chunk: int = CHUNK):
        self.comm, self.total, self.slice = comm, num_agents, comm.share(num_agents)
        self.num = self.slice.stop - self.slice.start
        self.chunks = [slice(i, min(i + chunk, self.num)) for i in range(0, self.num, chunk)]
        own = {name: torch.as_tensor(values[self.slice]) for name, values in parameters.items()}
        self.parameters = {name: v.float() if v.is_floating_point() else v for name, v in own.items()}

    def rewards(self, family: Any, outcome: torch.Tensor, agents: slice = slice(None)) -> torch.Tensor:
        """Rewards `[..., agents]` of some of the own agents for outcomes `[..., O]`."""
        return family.rewards(outcome, {name: values[agents] for name, values in self.parameters.items()})

    def gather(self, own: torch.Tensor, axis: int = 0) -> Any:
        """All agents' rows of a tensor of which each rank has its own agents'; a collective."""
        if own.ndim == 0:  # an optimiser's step count
            return own
        if self.comm.in_pieces:
            return Piece(own, self.slice, self.total, axis)
        own = own.movedim(axis, 0)
        everyone = torch.zeros(self.total, *own.shape[1:], dtype=own.dtype)
        everyone[self.slice] = own
        return self.comm.allreduce_(everyone).movedim(0, axis).contiguous()

    def cut(self, everyone: Any, axis: int = 0) -> torch.Tensor:
        """This rank's agents' rows of what `gather` gave."""
        everyone = torch.as_tensor(everyone)
        return everyone if everyone.ndim == 0 else everyone.movedim(axis, 0)[self.slice].movedim(0, axis)
