"""Models of a few agents, with their factors folded in, to be stepped many times on a processor."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from persim.limits import stop

if TYPE_CHECKING:
    from persim.simulator import Simulator

CHUNK = 1000  # states worked on at once, so that their hidden units stay in a core's cache


class AgentModels:
    """The dynamics of E agents as M active members predict them, made by `Simulator.at`; tensors are float32.

    A step adds what `Simulator.forward` predicts. What does not change from step to step is multiplied once:
    for discrete actions `head` [M, E, H + 1, num_actions * d] holds the products of agent factors, action
    factors and the last layer, and NumPy multiplies such narrow matrices faster than PyTorch.
    """

    def __init__(self, simulator: "Simulator", factor: torch.Tensor) -> None:
        d, r = simulator.target_size, simulator.num_factors
        self.history, self.walls = simulator.history, simulator.walls
        active, state_mean, state_scale, target_scale = (
            buffer.cpu()
            for buffer in (
                simulator.active_members,
                simulator.state_mean,
                simulator.state_scale,
                simulator.target_scale,
            )
        )
        self.unit = state_scale[:d]
        self.factor, self.state_size = factor[active], simulator.state_size  # [M, E, r]
        self.d = d
        *hidden, last = [layer.detach().cpu()[active].transpose(1, 2) for layer in simulator.state_net]
        # Normalisation of states is linear, so the first layer can do it. [M, in + 1, out], rows the inputs.
        first = hidden[0].double()
        first[:, :-1] /= state_scale[:, None]
        first[:, -1] -= (state_mean[:, None] * first[:, :-1]).sum(1)
        self.hidden = [first.float().contiguous(), *(layer.contiguous() for layer in hidden[1:])]
        last = last.unflatten(2, (d, r)) * target_scale[:, None]
        self.discrete = simulator.num_actions > 0
        if self.discrete:
            actions = (simulator.action.detach() + simulator.action_bias.detach()).cpu()[active]
            both = self.factor[:, :, None] * actions[:, None]  # [M, E, A, r]
            self.head = torch.einsum("mear,mhdr->mehad", both, last).flatten(3).contiguous()
        else:
            self.last = last.flatten(2).contiguous()  # [M, H + 1, d * r]
            self.action_mean, self.action_scale = (
                buffer.detach().cpu() for buffer in (simulator.action_mean, simulator.action_scale)
            )
            self.action_net = [layer.detach().cpu()[active].transpose(1, 2) for layer in simulator.action_net]
        self.buffers: dict[tuple[int, int], list[np.ndarray]] = {}

    @torch.no_grad()
    def step(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Next states [M, E, C, D] of `state` [M, E, C, D] (C candidates) under `action` [E, C] or [E, C, a].

        Everything is in the units of the data; `state` may also have one member, [1, E, C, D], and `action`
        a leading axis [M] of the members' own.
        """
        (M, E), C = self.factor.shape[:2], state.shape[2]
        state, seen = state.expand(M, E, C, self.state_size), torch.empty(M, E, C, self.d)
        foreseen = self.history.foreseen(state) if self.history else state
        some = max(1, CHUNK // max(1, C))
        axes = 2 if self.discrete else 3
        each = action if action.ndim > axes else action.expand(M, *action.shape)
        change = self.change_discrete if self.discrete else self.change_continuous
        for m in range(M):
            for e in range(0, E, some):
                for c in range(0, C, CHUNK):
                    agents, own = slice(e, e + some), (slice(e, e + some), slice(c, c + CHUNK))
                    found = change(m, agents, state[m][own], each[m][own])
                    torch.add(foreseen[m][own], found, out=seen[m][own])
        seen = stop(self.walls, seen)
        return self.history.follow(state, seen, action) if self.history else seen

    def change_discrete(
        self, m: int, agents: slice, state: torch.Tensor, action: torch.Tensor
    ) -> torch.Tensor:
        """Changes [e, c, d] of the states [e, c, D] of some agents by member m, under `action` [e, c]."""
        e, c, D = state.shape
        x, *units, first_row = self.allocate(e, c)
        x[:, :D] = state.reshape(e * c, D).numpy()
        for layer, out in zip(self.hidden, units, strict=True):
            np.matmul(x, layer[m].numpy(), out=out[:, :-1])
            torch.from_numpy(out)[:, :-1].relu_()
            x = out
        of_actions = np.matmul(x.reshape(e, c, -1), self.head[m, agents].numpy()).reshape(-1, self.d)
        return torch.from_numpy(of_actions.take(first_row + action.reshape(-1).numpy(), axis=0)).view(
            e, c, self.d
        )

    def change_continuous(
        self, m: int, agents: slice, state: torch.Tensor, action: torch.Tensor
    ) -> torch.Tensor:
        """The same under `action` [e, c, a]."""
        e, c, D = state.shape
        x = forward([layer[m] for layer in self.hidden], state.reshape(e * c, D)).relu_()
        v = forward([self.last[m]], x).view(e, c, self.d, -1)
        x = (action.reshape(e * c, -1) - self.action_mean) / self.action_scale
        w = forward([layer[m] for layer in self.action_net], x).view(e, c, -1)
        return (v @ (w * self.factor[m, agents, None])[..., None])[..., 0]

    def allocate(self, e: int, c: int) -> list[np.ndarray]:
        """Inputs [R, D + 1] and hidden units [R, H + 1] of R = e * c states, whose last columns are 1."""
        if (e, c) not in self.buffers:
            widths = [self.state_size, *(layer.shape[2] for layer in self.hidden)]
            arrays = [np.ones((e * c, width + 1), np.float32) for width in widths]
            num_actions = self.head.shape[3] // self.d
            self.buffers[e, c] = [*arrays, np.arange(e * c) * num_actions]
        return self.buffers[e, c]


def forward(layers: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """[R, in] to [R, out] through weights [in + 1, out], with ReLU between layers."""
    for i, layer in enumerate(layers):
        x = torch.addmm(layer[-1], x.relu_() if i else x, layer[:-1])
    return x
