"""The optimiser that all learners share, and its state as named tensors."""

from collections.abc import Iterable, Sequence

import torch
from torch.optim.adamw import adamw


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019), by PyTorch's fused kernel.

    Unlike `torch.optim.AdamW` it does not import PyTorch's compiler, which would take each rank two seconds
    when it starts. `groups` are lists of parameters with their decay.
    """

    def __init__(self, groups: Iterable[tuple[Iterable[torch.Tensor], float]], lr: float, eps: float):
        self.lr, self.eps = lr, eps
        self.groups = [(list(parameters), decay) for parameters, decay in groups]
        self.parameters = [p for parameters, _ in self.groups for p in parameters]
        self.state = [
            {
                "step": torch.zeros((), device=p.device),
                "exp_avg": torch.zeros_like(p),
                "exp_avg_sq": torch.zeros_like(p),
            }
            for p in self.parameters
        ]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self.parameters:
            p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move all parameters that have a gradient."""
        first = 0
        for parameters, decay in self.groups:
            state = self.state[first : first + len(parameters)]
            first += len(parameters)
            moved = [(p, s) for p, s in zip(parameters, state, strict=True) if p.grad is not None]
            adamw(
                [p for p, _ in moved],
                [p.grad for p, _ in moved if p.grad is not None],
                [s["exp_avg"] for _, s in moved],
                [s["exp_avg_sq"] for _, s in moved],
                [],
                [s["step"] for _, s in moved],
                fused=True,
                amsgrad=False,
                maximize=False,
                beta1=0.9,
                beta2=0.999,
                lr=self.lr,
                weight_decay=decay,
                eps=self.eps,
            )


class SGD:
    """Steps of gradient descent."""

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float):
        self.parameters, self.lr = list(parameters), lr

    @torch.no_grad()
    def step(self) -> None:
        """Move all parameters."""
        for p in self.parameters:
            if p.grad is not None:
                p -= self.lr * p.grad


def make_adamw(parameters: Iterable[torch.Tensor], lr: float, eps: float, weight_decay: float = 0.0) -> AdamW:
    """AdamW whose decay acts on matrices only; gains, biases and vectors are left alone."""
    parameters = list(parameters)
    if not weight_decay:
        return AdamW([(parameters, 0.0)], lr, eps)
    matrices, others = [p for p in parameters if p.ndim >= 2], [p for p in parameters if p.ndim < 2]
    return AdamW([(matrices, weight_decay), (others, 0.0)], lr, eps)


def optimiser_state(optimiser: AdamW) -> dict[str, torch.Tensor]:
    """Step counts and moments as `{"0.exp_avg": tensor, ...}`, numbered as in the optimiser."""
    return {f"{i}.{name}": value for i, own in enumerate(optimiser.state) for name, value in own.items()}


def load_optimiser_state(optimiser: AdamW, tensors: dict[str, torch.Tensor]) -> None:
    """Restore what `optimiser_state` gave."""
    for key, value in tensors.items():
        index, name = key.split(".")
        optimiser.state[int(index)][name].copy_(value)


def flatten(parameters: Iterable[torch.Tensor]) -> torch.nn.Parameter:
    """One parameter that holds all values of `parameters`, which from now on are views of it.

    Its gradient holds theirs. An optimiser's step on one tensor takes a quarter of the time that it takes on
    a dozen small ones. Gradients are to be written in place from now on, never replaced.
    """
    parameters = list(parameters)
    flat = torch.nn.Parameter(torch.cat([p.detach().reshape(-1) for p in parameters]))
    flat.grad = torch.zeros_like(flat)
    share_gradient(flat, parameters)
    for p, values in zip(parameters, pieces(flat.detach(), parameters), strict=True):
        p.data = values
    return flat


def share_gradient(flat: torch.nn.Parameter, parameters: Sequence[torch.Tensor]) -> None:
    """Let the gradients of what was flattened be views of the present gradient of the flat parameter."""
    if flat.grad is None:
        raise ValueError("the flat parameter has no gradient to share")
    for p, gradient in zip(parameters, pieces(flat.grad, parameters), strict=True):
        p.grad = gradient


def pieces(flat: torch.Tensor, parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Views of a flat tensor in the shapes of `parameters`."""
    parts = flat.split([p.numel() for p in parameters])
    return [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]
