"""CaDM in given contexts, to be stepped many times, and the memory that gives them while episodes go on."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import silu, softplus

from common.runs.seeding import stream

if TYPE_CHECKING:
    from persim.baselines.context_model import Cadm

CHUNK = 1000  # states worked on at once, so that their hidden units stay in a core's cache


class ContextSteps:
    """A `Cadm` after the pasts [E, K, d + a], or [E, C, K, d + a] for candidates with pasts of their own.

    A member carries P / M particles along, each of which goes its own way with normal noise. That is drawn
    for a step and a particle, and the same for all episodes and candidates: what one of them is worth does
    not depend on the others, and two are compared under the same luck.
    """

    def __init__(self, model: "Cadm", past: torch.Tensor, time: int = 0) -> None:
        settings, d, a = model.settings, model.state_size, model.action_width
        self.M, self.P, self.d = settings.num_models, settings.num_particles, d
        self.rng = stream(model.seed, "acting", time, 1)
        self.model = model
        past = past if past.ndim == 4 else past[:, None]
        context = model.context(past.flatten(0, 1).expand(self.M, -1, -1, -1)).unflatten(1, past.shape[:2])
        first, *hidden = [layer.detach().transpose(1, 2) for layer in model.forward_net]
        of_state, of_action, of_context = first[:, :-1].split([d, a, settings.context_size], dim=1)
        # What does not change from step to step is added up once, and normalisation is part of the weights.
        self.of_state = (of_state / model.state_scale[:, None]).contiguous()
        shift = (model.state_mean[:, None] * self.of_state).sum(1)
        self.of_action = of_action.contiguous()
        if not model.num_actions:
            self.of_action = (of_action / model.action_scale[:, None]).contiguous()
            shift = shift + (model.action_mean[:, None] * self.of_action).sum(1)
        self.start = context @ of_context[:, None] + (first[:, -1] - shift)[:, None, None]
        self.hidden = [(layer[:, -1].contiguous(), layer[:, :-1].contiguous()) for layer in hidden]

    @torch.no_grad()
    def step(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Next states [P, E, C, d] of `state` [P, E, C, d] (C candidates) under `action` [E, C] or [E, C, a].

        Everything is in the units of the data; `state` may also have one particle, [1, E, C, d].
        """
        E, C = state.shape[1:3]
        # Particles that are still in one state need but one prediction of each member.
        lanes = self.P if len(state) > 1 else self.M
        out = torch.empty(lanes, E, C, self.hidden[-1][0].shape[1])
        some = max(1, CHUNK // max(1, C))
        for lane in range(lanes):
            member, before = lane * self.M // lanes, state[lane if len(state) > 1 else 0]
            for e in range(0, E, some):
                for c in range(0, C, CHUNK):
                    own = slice(e, e + some), slice(c, c + CHUNK)
                    start = self.start[member, own[0]]
                    start = start if start.shape[1] == 1 else start[:, own[1]]
                    out[lane][own] = self.predict(member, start, before[own], action[own])
        return state + self.drawn(out.unflatten(0, (self.M, -1))).flatten(0, 1)

    def predict(
        self, member: int, start: torch.Tensor, state: torch.Tensor, action: torch.Tensor
    ) -> torch.Tensor:
        """The network's outputs [e, c, out] for a part of the states [e, c, d]."""
        x = state.reshape(-1, self.d) @ self.of_state[member]
        x = x.view(*state.shape[:2], -1).add_(start)
        of_action = self.of_action[member]
        x += of_action[action] if self.model.num_actions else action @ of_action
        x = x.flatten(0, 1)
        for bias, weight in self.hidden:
            x = torch.addmm(bias[member], silu(x, inplace=True), weight[member])
        return x.view(*state.shape[:2], -1)

    def drawn(self, out: torch.Tensor) -> torch.Tensor:
        """Changes [M, P / M, E, C, d] from outputs [M, P / M, E, C, out], or [M, 1, E, C, out]."""
        model = self.model
        change = model.change_mean + model.change_scale * out[..., : self.d]
        if not model.settings.probabilistic:
            return change
        lower, upper = (bound[:, :, None, None] for bound in (model.lower, model.upper))
        deviation = torch.exp(0.5 * bounded(out[..., self.d :], lower, upper)) * model.change_scale
        noise = self.rng.standard_normal((self.M, self.P // self.M, 1, 1, self.d), "f4")
        return change + deviation * torch.from_numpy(noise)


class Memory:
    """The last steps of N episodes that take their first, second, ... step together; see `policy.Actor`."""

    def __init__(self, model: "Cadm", num_episodes: int) -> None:
        self.model, self.time = model, 0
        width = model.state_size + model.action_width
        self.past = torch.zeros(num_episodes, model.settings.history, width)

    @torch.no_grad()
    def at(self, episodes: np.ndarray) -> ContextSteps:
        """The model in the present contexts of the episodes [E]; they are kept while it is stepped."""
        return ContextSteps(self.model, self.past[episodes], self.time)

    def observe(
        self, episodes: np.ndarray, state: np.ndarray, action: np.ndarray, next_state: np.ndarray
    ) -> None:
        """Take note of a step of each of the `episodes` [E] that have not ended."""
        steps = self.model.steps(*(torch.from_numpy(array) for array in (state, action, next_state)))
        self.past[episodes] = torch.cat([self.past[episodes], steps[:, None]], dim=1)[:, 1:]
        self.time += 1


def bounded(log_variance: torch.Tensor, lower: torch.Tensor, upper: torch.Tensor) -> torch.Tensor:
    """Log-variances between bounds that bend them softly (Chua et al. 2018)."""
    log_variance = upper - softplus(upper - log_variance)
    return lower + softplus(log_variance - lower)
