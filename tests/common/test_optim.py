"""Many small parameters as one flat one."""

import torch

from common.optim import flatten, make_adamw, share_gradient


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
