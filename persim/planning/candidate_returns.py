"""The returns of sequences of actions in a model of the agents."""

from typing import Any, Protocol

import numpy as np
import torch

THINNING = 4  # steps after which sequences that have ended are dropped


class AgentModel(Protocol):
    """A model of E agents by an ensemble of M members, to be stepped many times."""

    def step(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Next states [M, E, C, d] of `state` [M or 1, E, C, d] under `action` [E, C] or [E, C, a]."""


class Model(Protocol):
    """A model of a population's agents."""

    def at(self, agents: Any) -> AgentModel:
        """The models of the agents with the numbers `agents` [E]."""


@torch.no_grad()
def returns_of(
    family: Any,
    model: AgentModel,
    state: np.ndarray,
    actions: np.ndarray,
    *,
    mask: bool = False,
    shaping: float = 0.0,
    mean_state: bool = False,
    pessimism: float = 0.0,
) -> torch.Tensor:
    """Mean returns over a model's members [E, C] of C sequences of T actions for each of E episodes.

    `family` gives rewards and ends; `state` [E, d] is where the episodes are, `actions` [E, T, C] or
    [E, T, C, a].

    - `mask`: what comes after an end that a member predicts, and the step to it, count nothing;
    - `shaping` times the largest first coordinate that a member reaches is added to its return;
    - `pessimism`: a step costs this times the members' disagreement, in rewards, until an end;
    - `mean_state`: members start every step from their mean state, else each goes on from its own.

    A sequence that leads a member to no number is worth minus infinity.
    """
    E, T, C = actions.shape[:3]
    now = torch.as_tensor(np.asarray(state, np.float32))[None, :, None].expand(-1, -1, C, -1)
    alive, place = torch.ones(1, E, C, dtype=torch.bool), torch.arange(C).expand(E, C)
    total, highest, returns = torch.zeros(E, C), now[..., 0], torch.empty(E, C)
    for t in range(T):
        action = as_index(actions[:, t])
        if place.shape[1] < C:
            action = pick(action, place, 1)
        next_state = model.step(now, action)
        reward = family.reward(now, action, next_state)
        if pessimism:
            reward = reward - pessimism * disagreement(model, next_state)
        if mask:
            alive = alive & ~family.terminated(next_state)
            reward = reward * alive
        total += reward.mean(0)
        if shaping:
            highest = torch.where(alive, torch.maximum(highest, next_state[..., 0]), highest)
        now = next_state.mean(0, keepdim=True) if mean_state else next_state
        if mask and t % THINNING == THINNING - 1:
            going = alive.any(0)
            width = max(1, int(going.sum(1).max()))
            if width < going.shape[1]:
                returns.scatter_(1, place, total + shaping * highest.mean(0))
                kept = (~going).byte().argsort(dim=1, stable=True)[:, :width]
                total, place = pick(total, kept, 1), pick(place, kept, 1)
                now, alive, highest = (pick(x, kept[None], 2) for x in (now, alive, highest))
    total += shaping * highest.mean(0)
    total.masked_fill_((alive & now.isnan().any(-1)).any(0), torch.nan)
    returns.scatter_(1, place, total)
    return returns.masked_fill_(returns.isnan(), -torch.inf)


def disagreement(model: AgentModel, state: torch.Tensor) -> torch.Tensor:
    """How far members are apart [E, C] in `state` [M, E, C, D]: the deviation over all that is predicted.

    It is in the model's `unit` [d], deviations of states in its log; a model without has none.
    """
    unit = getattr(model, "unit", torch.ones(state.shape[-1]))
    return (state[..., : len(unit)] / unit).var(0, correction=0).mean(-1).sqrt()


def as_index(action: np.ndarray) -> torch.Tensor:
    """Actions of one step; torch wants an index to be int64."""
    kind = np.int64 if action.dtype.kind == "u" else action.dtype
    return torch.from_numpy(np.ascontiguousarray(action, kind))


def pick(values: torch.Tensor, index: torch.Tensor, dim: int) -> torch.Tensor:
    """Entries `index` along `dim`, the last of its axes; `values` may have one more."""
    return values.take_along_dim(index[..., None] if values.ndim > index.ndim else index, dim)
