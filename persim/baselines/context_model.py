"""The networks of CaDM for all members of an ensemble at once."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import one_hot, silu

from persim.baselines.context_steps import ContextSteps, Memory, bounded
from persim.data.transitions import Transitions
from persim.simulator import layers, run


class Cadm(nn.Module):
    """M members: a context encoder, and networks for the change of a state forwards and backwards in time.

    A past is the last K steps, oldest first, as normalised changes of state and actions, as in the authors'
    code; what an episode does not have yet is 0. Actions enter as one-hot or, if continuous, normalised.
    Layers are [M, out, in + 1], the bias last. `settings` is a `cadm.Settings`; `seed` draws noise.
    """

    state_mean: torch.Tensor
    state_scale: torch.Tensor
    change_mean: torch.Tensor
    change_scale: torch.Tensor
    action_mean: torch.Tensor
    action_scale: torch.Tensor

    def __init__(
        self, settings: Any, state_size: int, num_actions: int = 0, action_size: int = 0, seed: int = 0
    ) -> None:
        super().__init__()
        self.settings, self.state_size, self.num_actions = settings, state_size, num_actions
        self.seed = seed
        M, d, a = settings.num_models, state_size, num_actions or action_size
        self.action_width, inputs = a, d + a + settings.context_size
        outputs = 2 * d if settings.probabilistic else d
        past = settings.history * (d + a)
        self.context_net = layers(M, (past, *settings.context_layers, settings.context_size))
        self.forward_net = layers(M, (inputs, *settings.layers, outputs))
        self.backward_net = layers(M, (inputs, *settings.layers, d))
        if settings.probabilistic:
            self.upper = nn.Parameter(torch.full((M, 1, d), 0.5))
            self.lower = nn.Parameter(torch.full((M, 1, d), -10.0))
        for name, size in (("state", d), ("change", d), ("action", action_size)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_scale", torch.ones(size))

    @torch.no_grad()
    def draw(self, generators: Iterable[np.random.Generator]) -> "Cadm":
        """Draw each member's weights from its own generator (Glorot's uniform ones; biases are 0)."""
        for net in (self.context_net, self.forward_net, self.backward_net):
            for layer in net:
                out, into = layer.shape[1], layer.shape[2] - 1
                reach = np.float32(np.sqrt(6 / (into + out)))
                for member, rng in zip(layer, generators, strict=True):
                    uniform = rng.random((out, into), np.float32)
                    member[:, :-1] = torch.from_numpy((2 * uniform - 1) * reach)
        return self

    def measure(self, data: Transitions) -> None:
        """Take means and deviations from `data`."""
        measured = {"state": data.state, "change": data.next_state.astype(np.float64) - data.state}
        if not data.discrete:
            measured["action"] = data.action
        for name, values in measured.items():
            spread = values.std(0, dtype=np.float64)
            getattr(self, f"{name}_mean").copy_(torch.from_numpy(values.mean(0, dtype=np.float64)))
            getattr(self, f"{name}_scale").copy_(torch.from_numpy(np.where(spread > 0, spread, 1.0)))

    def in_units(self, state: torch.Tensor) -> torch.Tensor:
        """States [..., d] as they enter the networks."""
        return ((state - self.state_mean) / self.state_scale).float()

    def action_inputs(self, action: torch.Tensor) -> torch.Tensor:
        """Actions [...] or [..., a] as they enter the networks."""
        if self.num_actions:
            return one_hot(action, self.num_actions).float()
        return ((action - self.action_mean) / self.action_scale).float()

    def steps(self, state: torch.Tensor, action: torch.Tensor, next_state: torch.Tensor) -> torch.Tensor:
        """Steps [..., d + a] as they enter the context encoder."""
        change = ((next_state.double() - state - self.change_mean) / self.change_scale).float()
        return torch.cat([change, self.action_inputs(action)], dim=-1)

    def context(self, past: torch.Tensor) -> torch.Tensor:
        """Contexts [M, B, c] of pasts [M, B, K, d + a]."""
        return run(self.context_net, past.flatten(2).transpose(1, 2)).transpose(1, 2)

    def forward_change(
        self, state: torch.Tensor, action: torch.Tensor, context: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Means and log-variances (None for points) [M, B, d] of changes, all in the networks' units."""
        out = swish(self.forward_net, torch.cat([state, action, context], dim=-1))
        if not self.settings.probabilistic:
            return out, None
        return out[..., : self.state_size], bounded(out[..., self.state_size :], self.lower, self.upper)

    def backward_change(
        self, next_state: torch.Tensor, action: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        """Changes [M, B, d] back from `next_state` to the state before."""
        return swish(self.backward_net, torch.cat([next_state, action, context], dim=-1))

    @torch.no_grad()
    def after(self, states: np.ndarray, actions: np.ndarray) -> ContextSteps:
        """Predictions from where true steps end: states [E, C, T + 1, d], actions [E, C, T] or [E, C, T, a].

        Contexts stay as they are then.
        """
        K, true = self.settings.history, torch.from_numpy(states)
        steps = self.steps(true[:, :, :-1], torch.from_numpy(actions), true[:, :, 1:])
        past = torch.cat([steps.new_zeros(*steps.shape[:2], K, steps.shape[-1]), steps], dim=2)
        return ContextSteps(self, past[:, :, past.shape[2] - K :])

    def memory(self, num_episodes: int) -> Memory:
        """What is known of `num_episodes` episodes that begin now."""
        return Memory(self, num_episodes)


def swish(net: Iterable[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """[M, B, in] to [M, B, out], with swish between layers."""
    for i, layer in enumerate(net):
        x = silu(x) if i else x
        x = torch.baddbmm(layer[:, None, :, -1], x, layer[:, :, :-1].transpose(1, 2))
    return x
