"""Gradients written out by hand equal those of the formulas, and these what the paper says."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from rmdp.gradients import CriticGradient, PolicyGradient
from rmdp.losses import PolicyLoss, ValueLoss
from rmdp.policy import Critic, Policies

K, B, D, N = 3, 7, 4, 11
SEEN = Box(-np.inf, np.inf, (D,), np.float32)


def settings(network):
    return SimpleNamespace(
        action_scaling="box",
        num_policies=K,
        num_features=8,
        policy_network=network,
        initial_action=0.0,
        initial_log_std=-0.7,
        normalise_observations=False,
    )


def randomise(module, generator):
    for p in module.parameters():
        p.data.copy_(torch.randn(p.shape, generator=generator) * 0.5)
        p.grad = torch.full_like(p, 7.0)  # must be overwritten, not added to


@pytest.mark.parametrize("network", ["shared", "separate"])
@pytest.mark.parametrize("space", [Discrete(4), Box(-1, 1, (3,), np.float32)], ids=["discrete", "box"])
def test_policy_gradient_equals_autograd(network, space):
    generator = torch.Generator().manual_seed(1)
    policies = Policies(settings(network), SEEN, space)
    randomise(policies, generator)
    x = torch.randn(K, B, D, generator=generator)
    advantage = torch.randn(K, B, generator=generator)
    distribution = policies(x)
    action = distribution.sample(torch.rand(K, B, policies.num_outputs, generator=generator)).detach()
    # Ratios on both sides of both ends of the clip range.
    old = (distribution.log_prob(action) + 0.5 * torch.randn(K, B, generator=generator)).detach()
    inputs = [tensor.numpy() for tensor in (x, action, old, advantage)]
    options = {"clip_range": 0.2, "entropy_coef": 0.3, "scale": 0.05}
    found = PolicyGradient(policies)(*inputs, **options)
    written = [p.grad.clone() for p in policies.parameters()]
    for p in policies.parameters():
        p.grad.zero_()
    formula = PolicyLoss(policies)(*inputs, **options)
    assert (np.abs(formula[0] - 1) > 0.2).any() and (np.abs(formula[0] - 1) < 0.2).any()
    for by_hand, by_formula in zip(found, formula, strict=True):
        np.testing.assert_allclose(by_hand, by_formula, rtol=1e-4)
    for p, grad in zip(policies.parameters(), written, strict=True):
        assert grad.abs().max() > 1e-4
        torch.testing.assert_close(grad, p.grad, rtol=1e-3, atol=1e-5)


def test_the_slope_is_the_derivative_of_the_objective_by_the_advantage():
    generator = torch.Generator().manual_seed(4)
    policies = Policies(settings("shared"), SEEN, Discrete(4))
    randomise(policies, generator)
    x, advantage = torch.randn(K, B, D, generator=generator), torch.randn(K, B, generator=generator)
    action = torch.randint(4, (K, B), generator=generator)
    old = (policies(x).log_prob(action) + 0.5 * torch.randn(K, B, generator=generator)).detach()
    inputs = [tensor.numpy() for tensor in (x, action, old, advantage)]
    ratio, _, slope = PolicyLoss(policies)(*inputs, clip_range=0.2, entropy_coef=0.3, scale=0.05)
    advantage.requires_grad_()
    ratio = torch.from_numpy(ratio)
    torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).sum().backward()
    np.testing.assert_allclose(slope, advantage.grad, rtol=1e-5)


def test_critic_gradient_equals_autograd():
    generator = torch.Generator().manual_seed(2)
    critic = Critic(settings("shared"), SEEN, N)
    randomise(critic, generator)
    x, target = torch.randn(K, B, D, generator=generator), torch.randn(K, B, N, generator=generator)
    chunks = [(part, target[..., part].numpy()) for part in (slice(0, 4), slice(4, N))]
    loss = CriticGradient(critic)(x.numpy(), chunks, scale=0.1)
    written = [p.grad.clone() for p in critic.parameters()]

    critic.zero_grad(set_to_none=False)
    assert loss == pytest.approx(0.05 * float((critic(x) - target).square().sum().detach()), rel=1e-5)
    assert loss == pytest.approx(ValueLoss(critic)(x.numpy(), chunks, scale=0.1), rel=1e-5)
    for p, grad in zip(critic.parameters(), written, strict=True):
        torch.testing.assert_close(grad, p.grad, rtol=1e-3, atol=1e-5)


def test_critic_tells_policies_apart_and_rows_give_the_same_values():
    generator = torch.Generator().manual_seed(3)
    critic = Critic(settings("shared"), SEEN, N)
    randomise(critic, generator)
    x = torch.randn(1, B, D, generator=generator).expand(K, B, D)
    value = critic(x)
    assert (value[0] - value[1]).abs().max() > 1e-3
    rows = critic(x[:, 2], torch.arange(K))
    torch.testing.assert_close(rows, value[:, 2])
