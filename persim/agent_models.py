"""Simulators of a few agents, with their factors folded in, to be stepped many times."""

import numpy as np
import torch

# States worked on at once: on a processor their hidden units must stay in a core's cache.
CHUNK, CHUNK_ELSEWHERE = 1000, 2**17


class Personal:
    """The simulators of E agents by M heard members, made by `Simulator.at`; all tensors are float32.

    For discrete actions, `head` [M, E, H + 1, num_actions * d] holds the products of agent factors, action
    factors and the last layer: what is left of a step is two matrix products.
    """

    def __init__(self, simulator, factor):
        d, r, heard = simulator.state_size, simulator.num_factors, simulator.heard
        self.factor, self.d = factor[heard], d  # [M, E, r]
        *hidden, last = [layer.detach()[heard].transpose(1, 2) for layer in simulator.state_net]
        # Normalisation of states is linear, so the first layer can do it. [M, in + 1, out], rows the inputs.
        first = hidden[0].double()
        first[:, :-1] /= simulator.state_scale[:, None]
        first[:, -1] -= (simulator.state_mean[:, None] * first[:, :-1]).sum(1)
        self.hidden = [first.float().contiguous(), *(layer.contiguous() for layer in hidden[1:])]
        last = last.unflatten(2, (d, r)) * simulator.target_scale[:, None]
        self.discrete = simulator.num_actions > 0
        if self.discrete:
            actions = (simulator.action.detach() + simulator.action_bias.detach())[heard]
            both = self.factor[:, :, None] * actions[:, None]  # [M, E, A, r]
            self.head = torch.einsum("mear,mhdr->mehad", both, last).flatten(3).contiguous()
        else:
            self.last = last.flatten(2).contiguous()  # [M, H + 1, d * r]
            self.action_net = [layer.detach()[heard].transpose(1, 2) for layer in simulator.action_net]
        self.small = self.discrete and len(self.hidden) == 1 and factor.device.type == "cpu"
        self.buffers = {}

    @torch.no_grad()
    def step(self, state, action):
        """Next states [M, E, C, d] of `state` [M, E, C, d] (C candidates) under `action` [E, C] or [E, C, a].

        Everything is in the units of the data; `state` may also have one member, [1, E, C, d].
        """
        (M, E), (C, d) = self.factor.shape[:2], state.shape[2:]
        state, next_state = state.expand(M, E, C, d), torch.empty(M, E, C, d, device=state.device)
        chunk = CHUNK if state.device.type == "cpu" else CHUNK_ELSEWHERE
        some = max(1, chunk // max(1, C))
        change = self.change_fast if self.small else self.change
        for m in range(M):
            for e in range(0, E, some):
                for c in range(0, C, chunk):
                    agents, own = slice(e, e + some), (slice(e, e + some), slice(c, c + chunk))
                    before = state[m][own]
                    torch.add(before, change(m, agents, before, action[own]), out=next_state[m][own])
        return next_state

    def change(self, m: int, agents: slice, state, action):
        """Changes [e, c, d] of the states [e, c, d] of some agents by member m."""
        e, c, d = state.shape
        x = forward([layer[m] for layer in self.hidden], state.reshape(e * c, d)).relu_()
        if self.discrete:
            head = self.head[m, agents]
            of_actions = torch.baddbmm(head[:, -1:], x.view(e, c, -1), head[:, :-1]).view(e * c, -1, d)
            return of_actions[torch.arange(e * c, device=x.device), action.reshape(-1)].view(e, c, d)
        v = forward([self.last[m]], x).view(e, c, d, -1)
        w = forward([layer[m] for layer in self.action_net], action.reshape(e * c, -1)).view(e, c, -1)
        return (v @ (w * self.factor[m, agents, None])[..., None])[..., 0]

    def change_fast(self, m: int, agents: slice, state, action):
        """The same for discrete actions and one hidden layer: NumPy multiplies narrow matrices faster."""
        e, c, d = state.shape
        x, units, first_row = self.allocate(e, c)
        x[:, :d] = state.reshape(e * c, d).numpy()
        np.matmul(x, self.hidden[0][m].numpy(), out=units[:, :-1])
        torch.from_numpy(units)[:, :-1].relu_()
        of_actions = np.matmul(units.reshape(e, c, -1), self.head[m, agents].numpy()).reshape(-1, d)
        return torch.from_numpy(of_actions.take(first_row + action.reshape(-1).numpy(), axis=0)).view(e, c, d)

    def allocate(self, e: int, c: int):
        """Inputs [R, d + 1] and hidden units [R, H + 1] of R = e * c states, whose last columns are 1."""
        if (e, c) not in self.buffers:
            num_hidden, num_actions = self.hidden[0].shape[2], self.head.shape[3] // self.d
            x, units = np.ones((e * c, self.d + 1), np.float32), np.ones((e * c, num_hidden + 1), np.float32)
            self.buffers[e, c] = x, units, np.arange(e * c) * num_actions
        return self.buffers[e, c]


def forward(layers, x):
    """[R, in] to [R, out] through weights [in + 1, out], with ReLU between layers."""
    for i, layer in enumerate(layers):
        x = torch.addmm(layer[-1], x.relu_() if i else x, layer[:-1])
    return x
