"""Gradients written out by hand equal PyTorch's."""

import numpy as np
import pytest
import torch

from persim.gradients import AutogradGradient, WrittenGradient, make_gradient
from persim.simulator import Simulator


def with_gradients(num_actions=3, **sizes):
    simulator = Simulator(3, 5, 4, 2, num_actions, **sizes)
    simulator.draw([np.random.default_rng(member) for member in range(3)])
    simulator.state_mean[:], simulator.state_scale[:] = 0.3, 2.0
    for p in simulator.parameters():
        p.grad = torch.zeros_like(p)
    return simulator


def test_errors_count_by_their_square_up_to_the_limit_and_by_their_size_beyond():
    simulator = with_gradients(state_layers=(16,))
    batch = torch.zeros(3, 1, 2), torch.zeros(3, 1, dtype=torch.long), torch.zeros(3, 1, dtype=torch.long)
    predicted = simulator(batch[1], simulator.state_mean.expand(3, 1, 2), batch[2]).detach()
    bias, limit = simulator.state_net[1], torch.tensor([0.5, 2.0])
    slopes = {}
    for error in (0.1, 0.5, 3.0):
        bias.grad.zero_()
        AutogradGradient(simulator, limit)(batch[0], predicted - error, *batch[1:], 1.0)
        slopes[error] = bias.grad[:, :, -1].reshape(3, 2, 4).clone()
    torch.testing.assert_close(slopes[0.5], 5 * slopes[0.1], rtol=1e-4, atol=1e-6)
    expected = torch.stack([slopes[0.5][:, 0], slopes[0.5][:, 1] * 4], dim=1)
    torch.testing.assert_close(slopes[3.0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("B", [1, 40])
@pytest.mark.parametrize("limit", [None, torch.tensor([0.3, 1.0])], ids=["squares", "clipped"])
def test_written_gradients_equal_autograd(B, limit):
    simulator = with_gradients(state_layers=(16,))
    g = torch.Generator().manual_seed(1)
    state, target = torch.randn(3, B, 2, generator=g), torch.randn(3, B, 2, generator=g)
    agent = torch.randint(4, (3, B), generator=g)  # agent 4 is in no batch; others come many times
    action = torch.randint(3, (3, B), generator=g)
    squares = AutogradGradient(simulator, limit)(state, target, agent, action, 0.3)
    expected = [p.grad.clone() for p in simulator.parameters()]

    gradient = make_gradient(simulator, limit)
    assert isinstance(gradient, WrittenGradient)
    for _ in range(2):  # must overwrite, not add to
        written = gradient(state, target, agent, action, 0.3)
    np.testing.assert_allclose(written, squares, rtol=1e-4)
    for p, grad in zip(simulator.parameters(), expected, strict=True):
        assert grad.abs().max() > 1e-4
        torch.testing.assert_close(p.grad, grad, rtol=1e-3, atol=1e-5)
    assert not simulator.agent.grad[:, 4].any()


def test_other_networks_take_autograd():
    assert isinstance(make_gradient(with_gradients(state_layers=(8, 8))), AutogradGradient)
    continuous = with_gradients(0, action_size=2, action_layers=(4,))
    assert isinstance(make_gradient(continuous), AutogradGradient)
