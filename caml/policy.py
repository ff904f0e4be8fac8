"""P small policies as one batched set of parameters, and what acts with them."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Discrete
from torch.nn import functional as F

from common.rollout import to_space

ACTIVATIONS = {"relu": torch.relu_, "tanh": torch.tanh_}  # in place: nothing else needs their input
# Their derivatives from their values, in place as well.
SLOPES = {"relu": torch.Tensor.sign_, "tanh": lambda values: values.square_().neg_().add_(1)}


LOG_STD = (-4.0, 1.0)  # the least and the most
MIN_SAMPLES = 64  # actions at a state by which the densities of Gaussian policies are compared


class Sizes(NamedTuple):
    """Of one policy; a Gaussian one has a mean and a log standard deviation for each of its outputs."""

    num_inputs: int
    num_features: int
    num_outputs: int
    gaussian: bool = False


class Policies:
    """P networks of one hidden layer whose parameters are stacked tensors `[P, ...]`; row j is policy j's.

    Called with observations `[P, B, D]` they give `[P, B, A]`: logits over discrete actions, or the means of
    Gaussians, whose log standard deviations "log_std" `[P, A, 1]` are parameters of their own.
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
        gaussian: bool = False,
        activation: str = "relu",
        log_std: float = -0.5,
    ) -> "Policies":
        """New policies from `uniform [P, num_weights(...)]` in [0, 1), one row each: PyTorch's usual start,
        every number uniform within 1 / sqrt(inputs of its layer). The logarithm of deviations is `log_std`.
        """
        shapes = weight_shapes(num_inputs, num_features, num_outputs)
        centred = 2 * torch.as_tensor(uniform, dtype=torch.float32) - 1
        pieces = centred.split([math.prod(shape) for shape in shapes.values()], dim=1)
        fan_in = {"first": num_inputs, "head": num_features}
        tensors = {
            name: piece.reshape(-1, *shape) * fan_in[name.split(".")[0]] ** -0.5
            for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
        }
        if gaussian:
            tensors["log_std"] = torch.full((len(uniform), num_outputs, 1), log_std)
        return cls(tensors, activation).take(slice(None))

    def __len__(self) -> int:
        return len(self.tensors["head.bias"])

    @property
    def num_outputs(self) -> int:
        """A: discrete actions, or numbers of which an action consists."""
        return self.tensors["head.bias"].shape[1]

    @property
    def gaussian(self) -> bool:
        """Whether actions are numbers."""
        return "log_std" in self.tensors

    @property
    def log_std(self) -> torch.Tensor:
        """Log standard deviations `[P, A, 1]` of Gaussian policies, within their limits."""
        return self.tensors["log_std"].clamp(*LOG_STD)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs `[P, B, A]` of observations `[P, B, D]`, in memory `[P, A, B]`: few actions, long rows."""
        return self.outputs(self.hidden(x)).transpose(1, 2)

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        """The hidden layer's values `[P, B, F]`."""
        t = self.tensors
        return ACTIVATIONS[self.activation](torch.baddbmm(t["first.bias"], x, t["first.weight"]))

    def outputs(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits or means `[P, A, B]` of the hidden layer's values."""
        t = self.tensors
        return torch.baddbmm(t["head.bias"], t["head.weight"], hidden.transpose(1, 2))

    @torch.no_grad()
    def probabilities(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Probabilities of actions `[P, S, A]`, float64, of every policy at the same `states [S, D]`.

        Gaussian policies have them over actions that `rng` draws at each state, from each policy as many: a
        policy's density over the mixture's, scaled to sum 1. Divergences of these estimate those of the
        densities, for which there is no formula: the mixture covers all that any policy does, so they are
        0 of a policy with itself, at most ln 2, and ln 2 of policies that do nothing alike.
        """
        x = torch.as_tensor(states, dtype=torch.float32).expand(len(self), -1, -1)
        outputs = self(x).double()
        if not self.gaussian:
            return outputs.softmax(-1).numpy()
        each = -(-MIN_SAMPLES // len(self))
        log_std = self.log_std.double()[:, None, :, 0]  # [P, 1, A]
        noise = torch.from_numpy(rng.standard_normal((each, *outputs.shape)))
        drawn = (outputs + log_std.exp() * noise).flatten(0, 1)  # [each * P, S, A]
        z = (drawn - outputs[:, None]) * (-log_std[:, None]).exp()  # [P, each * P, S, A]
        log_density = (-0.5 * z.square() - log_std[:, None]).sum(-1)
        shares = (log_density - log_density.logsumexp(0)).exp()  # what is common to all cancels
        return (shares / shares.sum(1, keepdim=True)).transpose(1, 2).numpy()

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

    def __init__(
        self,
        policies: Policies,
        observation_space: Space,
        action_space: Space,
        rng: np.random.Generator | None = None,
    ):
        self.policies, self.rng = policies, rng
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, num: int) -> None:
        """These policies remember nothing."""

    @torch.no_grad()
    def act(self, observation: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
        """Actions `[num, ...]` for observations `[num, ...]`."""
        x = torch.from_numpy(inputs(observation, self.observation_space))
        num, num_policies = len(x), len(self.policies)
        times = -(-num // num_policies)
        x = F.pad(x, (0, 0, 0, times * num_policies - num)).view(times, num_policies, -1)
        outputs = self.policies(x.transpose(0, 1).contiguous()).transpose(0, 1)  # [times, P, A]
        if self.policies.gaussian:
            if self.rng is not None:
                noise = torch.from_numpy(self.rng.standard_normal(outputs.shape, np.float32))
                outputs = outputs + self.policies.log_std[..., 0].exp() * noise
            return to_space(outputs.flatten(0, 1)[:num].numpy(), self.action_space)
        logits = outputs.flatten(0, 1)[:num]
        if self.rng is not None:  # the largest of logits plus Gumbel noise is a draw from their softmax
            exponential = self.rng.standard_exponential(logits.shape, np.float32)
            logits = logits - torch.from_numpy(exponential).log()
        return to_space(logits.argmax(-1).numpy(), self.action_space)


def inputs(observation: np.ndarray, space: Space) -> np.ndarray:
    """What a policy is given of observations: `[N, D]` float32; a discrete one becomes a one-hot vector."""
    if isinstance(space, Discrete):
        return np.eye(space.n, dtype=np.float32)[observation]
    return np.ascontiguousarray(observation, np.float32)


def sizes_of(family: Any, num_features: int) -> Sizes:
    """Inputs, hidden features and outputs of a policy for a family's spaces."""
    seen, acts = family.observation_space, family.action_space
    num_inputs = int(seen.n if isinstance(seen, Discrete) else seen.shape[0])
    gaussian = not isinstance(acts, Discrete)
    return Sizes(num_inputs, num_features, int(acts.shape[0] if gaussian else acts.n), gaussian)


def weight_shapes(
    num_inputs: int, num_features: int, num_outputs: int, gaussian: bool = False
) -> dict[str, tuple[int, int]]:
    """The shapes of one policy's parameters by name."""
    return {
        "first.weight": (num_inputs, num_features),
        "first.bias": (1, num_features),
        "head.weight": (num_outputs, num_features),
        "head.bias": (num_outputs, 1),
        **({"log_std": (num_outputs, 1)} if gaussian else {}),
    }


def num_weights(num_inputs: int, num_features: int, num_outputs: int, gaussian: bool = False) -> int:
    """Numbers in one policy that are drawn at its start; deviations are not."""
    return sum(map(math.prod, weight_shapes(num_inputs, num_features, num_outputs).values()))
