"""P small policies as one batched set of parameters."""

import torch

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
    def fresh(cls, uniform, num_inputs: int, num_features: int, num_outputs: int, activation: str = "relu"):
        """New policies from `uniform [P, num_weights(...)]` in [0, 1), one row each: PyTorch's usual start,
        every number uniform within 1 / sqrt(inputs of its layer).
        """
        shapes = weight_shapes(num_inputs, num_features, num_outputs)
        centred = 2 * torch.as_tensor(uniform, dtype=torch.float32) - 1
        pieces = centred.split([a * b for a, b in shapes.values()], dim=1)
        fan_in = {"first": num_inputs, "head": num_features}
        tensors = {
            name: piece.reshape(-1, *shape) * fan_in[name.split(".")[0]] ** -0.5
            for (name, shape), piece in zip(shapes.items(), pieces, strict=True)
        }
        return cls(tensors, activation).take(slice(None))

    def __len__(self) -> int:
        return len(self.tensors["head.bias"])

    def __call__(self, x):
        """Logits `[P, B, A]` of observations `[P, B, D]`, in memory `[P, A, B]`: few actions, long rows."""
        return self.logits(self.hidden(x)).transpose(1, 2)

    def hidden(self, x):
        """The hidden layer's values `[P, B, F]`."""
        t = self.tensors
        return ACTIVATIONS[self.activation](torch.baddbmm(t["first.bias"], x, t["first.weight"]))

    def logits(self, hidden):
        """Logits `[P, A, B]` of the hidden layer's values."""
        t = self.tensors
        return torch.baddbmm(t["head.bias"], t["head.weight"], hidden.transpose(1, 2))

    @torch.no_grad()
    def probabilities(self, states):
        """Probabilities of actions `[P, S, A]` of every policy at the same `states [S, D]`, float64 array."""
        x = torch.as_tensor(states, dtype=torch.float32).expand(len(self), -1, -1)
        return self(x).double().softmax(-1).numpy()

    def take(self, index) -> "Policies":
        """The policies of an index (slice, mask, numbers with repeats) as copies that can be trained."""
        tensors = {name: value.detach()[index].clone() for name, value in self.tensors.items()}
        return Policies({name: value.requires_grad_() for name, value in tensors.items()}, self.activation)

    def parameters(self) -> list[torch.Tensor]:
        return list(self.tensors.values())


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
    return sum(a * b for a, b in weight_shapes(num_inputs, num_features, num_outputs).values())
