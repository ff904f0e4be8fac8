"""The optimisers against PyTorch's own, their state, and many small parameters as one flat one."""

import subprocess
import sys

import pytest
import torch

from common.optim import (
    SGD,
    flatten,
    load_optimiser_state,
    make_adamw,
    optimiser_state,
    share_gradient,
)


def drawn(generator):
    """Parameters with gradients but for one; the same for the same generator."""
    shapes = ((3, 2), (4,), (2, 1, 2), (2, 2))
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    for p in parameters[:-1]:
        p.grad = torch.randn(p.shape, generator=generator)
    return parameters


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_those_of_pytorch(decay):
    own, theirs = (drawn(torch.Generator().manual_seed(1)) for _ in range(2))
    groups = [{"params": [theirs[0], *theirs[2:]], "weight_decay": decay}]
    groups.append({"params": [theirs[1]], "weight_decay": 0.0})
    optimiser, reference = make_adamw(own, 0.1, 1e-5, decay), torch.optim.AdamW(groups, lr=0.1, eps=1e-5)
    for lr in (0.1, 0.05, 0.2):
        optimiser.lr = lr
        for group in reference.param_groups:
            group["lr"] = lr
        optimiser.step()
        reference.step()
    for a, b in zip(own, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_state_is_named_and_continues_bit_for_bit():
    own, again = (drawn(torch.Generator().manual_seed(1)) for _ in range(2))
    first, second = make_adamw(own, 0.1, 1e-8, 0.1), make_adamw(again, 0.1, 1e-8, 0.1)
    for _ in range(3):
        first.step()
    state = {name: value.clone() for name, value in optimiser_state(first).items()}
    assert state.keys() == {f"{i}.{name}" for i in range(4) for name in ("step", "exp_avg", "exp_avg_sq")}
    assert state["0.step"] == 3 and state["0.exp_avg"].shape == (3, 2)
    load_optimiser_state(second, state)
    for a, b in zip(own, again, strict=True):
        b.data.copy_(a)
    first.step()
    second.step()
    assert all(torch.equal(a, b) for a, b in zip(own, again, strict=True))
    assert state["0.step"] == 3  # what was given is not changed


def test_gradient_descent():
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    parameter.grad = torch.tensor([10.0, -10.0])
    SGD([parameter], 0.1).step()
    assert parameter.tolist() == [0, 3]


@pytest.mark.slow
def test_the_compiler_is_not_imported():
    code = """
import sys, torch
from common.optim import make_adamw
p = torch.nn.Parameter(torch.zeros(2))
p.grad = torch.ones(2)
make_adamw([p], 0.1, 1e-8).step()
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_flat_step_equals_the_steps_of_all_parameters():
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator) for shape in ((3, 2), (4,), (2, 1, 2))]
    apart = [torch.nn.Parameter(value.clone()) for value in values]
    together = [torch.nn.Parameter(value.clone()) for value in values]
    flat = flatten(together)
    optimisers = make_adamw(apart, 0.1, 1e-8), make_adamw([flat], 0.1, 1e-8)
    for _ in range(3):
        for a, b in zip(apart, together, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad.copy_(a.grad)  # in place: the gradient is a view of the flat one
        for optimiser in optimisers:
            optimiser.step()
    for a, b, value in zip(apart, together, values, strict=True):
        torch.testing.assert_close(a, b)
        assert (a - value).abs().max() > 0.1


def test_gradients_follow_the_flat_one_to_new_memory():
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(3))]
    flat = flatten(parameters)
    flat.grad = torch.arange(5.0)
    share_gradient(flat, parameters)
    assert parameters[1].grad.tolist() == [2, 3, 4]
    parameters[0].grad[1] = 9
    assert flat.grad.tolist() == [0, 9, 2, 3, 4]
