"""CaDM (Lee et al. 2020, arXiv 2005.06800): dynamics given a context that is inferred from the last steps."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch

from common.config import AT_LEAST_ZERO, POSITIVE, check
from common.errors import UserError
from common.optim import make_adamw
from common.runs.seeding import stream
from persim.baselines.context import Batches
from persim.baselines.context_model import Cadm
from persim.data.transitions import Transitions

LAST_LEARNING_RATE = 1e-3  # of the cosine, as a part of the first
BOUND_WEIGHT = 0.01  # keeps the bounds of predicted variances close (Chua et al. 2018)


@dataclass(frozen=True)
class Settings:
    """Networks and batches of the authors' code; the number of steps and the falling learning rate are ours.

    The authors' weight decay is left out: data are many, and it would only blunt predictions.
    """

    probabilistic: bool = False
    """Whether predictions are normal, else points."""
    num_models: Annotated[int, POSITIVE] = 1
    """Members of the ensemble, trained at once on batches of their own."""
    num_particles: Annotated[int, POSITIVE] = 1
    """States that predictions carry along, shared evenly among the members; each stays with its own."""
    history: Annotated[int, AT_LEAST_ZERO] = 10
    """Steps from which the context is inferred; 0: none, which makes a plain network."""
    future: Annotated[int, POSITIVE] = 10
    """Steps that it has to explain."""
    context_size: Annotated[int, POSITIVE] = 10
    """Numbers that a context has."""
    context_layers: tuple[int, ...] = (256, 128, 64)
    """Hidden layers of the context encoder, with ReLU."""
    layers: tuple[int, ...] = (200, 200, 200, 200)
    """Hidden layers of the forward and of the backward network, with swish."""
    backward_weight: Annotated[float, AT_LEAST_ZERO] = 0.5
    """What the backward prediction's error counts."""
    num_steps: Annotated[int, POSITIVE] = 10_000
    """Gradient steps."""
    batch_size: Annotated[int, POSITIVE] = 256
    """Steps to be predicted in a batch, of each member."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Adam's at the start; it falls to nearly zero by a cosine."""


VANILLA = Settings()
PE_TS = Settings(probabilistic=True, num_models=5, num_particles=20)


def train(data: Transitions, family: Any, settings: Settings, seed: int) -> Cadm:
    """A model of all agents of `data`, of which it knows nothing but what they do; raises `UserError`."""
    check(settings)
    M, particles = settings.num_models, settings.num_particles
    if particles % M or particles > M and not settings.probabilistic:
        many = f"a multiple of {M}" if settings.probabilistic else f"{M}"
        raise UserError(f"num_particles {particles}: with {M} models choose {many}")
    d, action = data.state.shape[1], data.action
    sizes = {"num_actions": int(family.action_space.n)} if data.discrete else {"action_size": action.shape[1]}
    model = Cadm(settings, d, **sizes, seed=seed)
    model.draw([stream(seed, "weights", member) for member in range(M)])
    model.measure(data)
    batches = Batches(model, data, stream(seed, "minibatches"))
    optimiser = make_adamw(model.parameters(), settings.learning_rate, eps=1e-8)
    for step in range(settings.num_steps):
        falling = 0.5 * (1 + math.cos(math.pi * step / settings.num_steps))
        part = LAST_LEARNING_RATE + (1 - LAST_LEARNING_RATE) * falling
        optimiser.lr = settings.learning_rate * part
        optimiser.zero_grad()
        loss(model, *batches.take()).backward()
        optimiser.step()
    return model.requires_grad_(False)


def loss(
    model: Cadm,
    past: torch.Tensor,
    state: torch.Tensor,
    action: torch.Tensor,
    following: torch.Tensor,
    change: torch.Tensor,
) -> torch.Tensor:
    """What the members' predictions of a batch of `Batches` cost, summed over members.

    Forward, the squared error or, where predictions are normal, twice their negative log-likelihood; backward
    the squared error, whose target is minus the change as both are in units of the same mean and deviation.
    """
    context = model.context(past)
    mean, log_variance = model.forward_change(state, action, context)
    square = (mean - change).square()
    if log_variance is not None:
        square = square * torch.exp(-log_variance) + log_variance
    total = square.mean((1, 2)).sum()
    if log_variance is not None:
        total = total + BOUND_WEIGHT * (model.upper - model.lower).sum()
    back = model.backward_change(following, action, context)
    return total + model.settings.backward_weight * (back + change).square().mean((1, 2)).sum()
