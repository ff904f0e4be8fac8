"""P small policies as one batched set of parameters, and what acts with them."""

import math
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Discrete
from torch.nn import functional as F

ACTIVATIONS = {"relu": torch.relu_, "tanh": torch.tanh_}  # in place: nothing else needs their input
# Their derivatives from their values, in place as well.
SLOPES = {"relu": torch.Tensor.sign_, "tanh": lambda values: values.square_().neg_().add_(1)}


class Policies:
    """P networks of one hidden layer whose parameters are stacked tensors `[P, ...]`; row j is policy j's.

    Called with observations `[P, B, D]` they give logits `[P, B, A]` over discrete actions.
    """

    def __init__(self, tensors: dict[str, torch.Tensor], activation: str = "relu"):
        self.tensors, self.activation = tensors, activation

    @classmethod
    def fresh(
        cls,
        uniform: np.ndarray,
        num_inputs: int,
        num_features: int,
        num_outputs: int,
        activation: str = "relu",
    ) -> "Policies":
        """New policies from `uniform [P, num_weights(...)]` in [0, 1), one row each: PyTorch's usual start,
        every number uniform within 1 / sqrt(inputs of its layer).
        """
        shapes = weight_shapes(num_inputs, num_features, num_outputs)
        centred = 2 * torch.as_tensor(uniform, dtype=torch.float32) - 1
        pieces = centred.split([math.prod(shape) for shape in shapes.values()], dim=1)
        fan_in = {"first": num_inputs, "head": num_features}
        tensors = {
            name: piece.reshape(-1, *shape) * fan_in[name.split(".")[0]] ** -0.5
            for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
        }
        return cls(tensors, activation).take(slice(None))

    def __len__(self) -> int:
        return len(self.tensors["head.bias"])

    @property
    def num_actions(self) -> int:
        """A."""
        return self.tensors["head.bias"].shape[1]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `[P, B, A]` of observations `[P, B, D]`, in memory `[P, A, B]`: few actions, long rows."""
        return self.logits(self.hidden(x)).transpose(1, 2)

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        """The hidden layer's values `[P, B, F]`."""
        t = self.tensors
        return ACTIVATIONS[self.activation](torch.baddbmm(t["first.bias"], x, t["first.weight"]))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits `[P, A, B]` of the hidden layer's values."""
        t = self.tensors
        return torch.baddbmm(t["head.bias"], t["head.weight"], hidden.transpose(1, 2))

    @torch.no_grad()
    def probabilities(self, states: np.ndarray) -> np.ndarray:
        """Probabilities of actions `[P, S, A]`, float64, of every policy at the same `states [S, D]`."""
        x = torch.as_tensor(states, dtype=torch.float32).expand(len(self), -1, -1)
        return self(x).double().softmax(-1).numpy()

    def take(self, index: Any) -> "Policies":
        """The policies of an index (slice, mask, numbers with repeats) as copies that can be trained."""
        tensors = {name: value.detach()[index].clone() for name, value in self.tensors.items()}
        return Policies({name: value.requires_grad_() for name, value in tensors.items()}, self.activation)

    def parameters(self) -> list[torch.Tensor]:
        """The stacked tensors."""
        return list(self.tensors.values())


class Actor:
    """Acts with P policies in any number of environments: row i with policy i % P.

    Takes the most likely actions, or draws actions from `rng` where one is given.
    """

    def __init__(self, policies: Policies, observation_space: Space, rng: np.random.Generator | None = None):
        self.policies, self.observation_space, self.rng = policies, observation_space, rng

    def reset(self, num: int) -> None:
        """These policies remember nothing."""

    @torch.no_grad()
    def act(self, observation: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
        """Actions `[num]` for observations `[num, ...]`."""
        x = torch.from_numpy(inputs(observation, self.observation_space))
        num, num_policies = len(x), len(self.policies)
        times = -(-num // num_policies)
        x = F.pad(x, (0, 0, 0, times * num_policies - num)).view(times, num_policies, -1)
        logits = self.policies(x.transpose(0, 1).contiguous()).transpose(0, 1).flatten(0, 1)[:num]
        if self.rng is not None:  # the largest of logits plus Gumbel noise is a draw from their softmax
            exponential = self.rng.standard_exponential(logits.shape, np.float32)
            logits = logits - torch.from_numpy(exponential).log()
        return logits.argmax(-1).numpy()


def inputs(observation: np.ndarray, space: Space) -> np.ndarray:
    """What a policy is given of observations: `[N, D]` float32; a discrete one becomes a one-hot vector."""
    if isinstance(space, Discrete):
        return np.eye(space.n, dtype=np.float32)[observation]
    return np.ascontiguousarray(observation, np.float32)


def sizes_of(family: Any, num_features: int) -> tuple[int, int, int]:
    """Inputs, hidden features and outputs of a policy for a family's spaces."""
    space = family.observation_space
    num_inputs = space.n if isinstance(space, Discrete) else space.shape[0]
    return int(num_inputs), num_features, int(family.action_space.n)


def weight_shapes(num_inputs: int, num_features: int, num_outputs: int) -> dict[str, tuple[int, int]]:
    """The shapes of one policy's parameters by name."""
    return {
        "first.weight": (num_inputs, num_features),
        "first.bias": (1, num_features),
        "head.weight": (num_outputs, num_features),
        "head.bias": (num_outputs, 1),
    }


def num_weights(num_inputs: int, num_features: int, num_outputs: int) -> int:
    """Numbers in one policy."""
    return sum(map(math.prod, weight_shapes(num_inputs, num_features, num_outputs).values()))
