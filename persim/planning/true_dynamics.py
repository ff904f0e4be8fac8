"""The true dynamics as a model to plan with: what a perfect simulator would return."""

from typing import Any

import numpy as np
import torch

CHUNK = 2**14  # states advanced at once, so that they stay in a core's cache


class TrueModel:
    """The dynamics of n agents {name: [n]} of a `Dynamics` family, in float32, as an ensemble of one."""

    def __init__(self, family: Any, parameters: dict[str, np.ndarray]) -> None:
        self.family, self.parameters = family, parameters

    def at(self, agents: Any) -> "TrueModel":
        """The same of the agents [E], to be stepped."""
        return TrueModel(self.family, {name: values[agents] for name, values in self.parameters.items()})

    def step(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Next states [1, E, C, d] of `state` [1, E, C, d] under `action` [E, C] or [E, C, a]."""
        next_state = torch.empty(state.shape)
        some = max(1, CHUNK // state.shape[2])
        for e in range(0, state.shape[1], some):
            own = slice(e, e + some)
            parameters = {k: values[own, None].astype("f4") for k, values in self.parameters.items()}
            following = self.family.advance(state[0, own].numpy(), action[own].numpy(), parameters)
            next_state[0, own] = torch.from_numpy(following)
        return next_state
