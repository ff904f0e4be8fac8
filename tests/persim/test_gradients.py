"""Huber's errors, and the gradient written out by hand, which equals PyTorch's."""

import numpy as np
import pytest
import torch

from persim.gradients import WrittenGradient, can_be_written, huber
from persim.simulator import Simulator


def with_gradients(num_actions=3, **sizes):
    simulator = Simulator(3, 5, 4, 2, num_actions, **sizes)
    simulator.draw([np.random.default_rng(member) for member in range(3)])
    simulator.state_mean[:], simulator.state_scale[:] = 0.3, 2.0
    for p in simulator.parameters():
        p.grad = torch.zeros_like(p)
    return simulator


def test_errors_count_by_their_square_up_to_delta_and_by_their_size_beyond():
    error = torch.tensor([[0.1, 0.1], [-0.5, 0.5], [3.0, -3.0]], requires_grad=True)
    cost = huber(error, torch.tensor([0.5, 2.0]))
    torch.testing.assert_close(cost, torch.tensor([[0.01, 0.01], [0.25, 0.25], [2.75, 8.0]]))
    cost.sum().backward()
    torch.testing.assert_close(error.grad, torch.tensor([[0.2, 0.2], [-1.0, 1.0], [1.0, -4.0]]))
    torch.testing.assert_close(huber(error, None), error.square())


@pytest.mark.parametrize("B", [1, 40])
@pytest.mark.parametrize("delta", [None, torch.tensor([0.3, 1.0])], ids=["squares", "huber"])
def test_the_written_gradient_equals_autograd_of_the_loss(B, delta):
    simulator = with_gradients(state_layers=(16,))
    g = torch.Generator().manual_seed(1)
    state, target = torch.randn(3, B, 2, generator=g), torch.randn(3, B, 2, generator=g)
    agent = torch.randint(4, (3, B), generator=g)  # agent 4 is in no batch; others come many times
    action = torch.randint(3, (3, B), generator=g)
    error = simulator(agent, state * 2.0 + 0.3, action) - target
    (0.3 * huber(error, delta).sum()).backward()
    expected = [p.grad.clone() for p in simulator.parameters()]

    gradient = WrittenGradient(simulator, delta)
    for _ in range(2):  # must overwrite, not add to
        squares = gradient(state, target, agent, action, 0.3)
    np.testing.assert_allclose(squares, error.detach().square().sum(1), rtol=1e-4)
    for p, grad in zip(simulator.parameters(), expected, strict=True):
        assert grad.abs().max() > 1e-4
        torch.testing.assert_close(p.grad, grad, rtol=1e-3, atol=1e-5)
    assert not simulator.agent.grad[:, 4].any()


def test_what_can_be_written():
    assert can_be_written(with_gradients(state_layers=(16,)))
    assert not can_be_written(with_gradients(state_layers=(8, 8)))
    assert not can_be_written(with_gradients(0, action_size=2, action_layers=(4,)))
