import math

import torch

from common.ppo import ppo_loss

SETTINGS = {"clip_range": 0.2, "entropy_coef": 0.1, "value_coef": 0.5}


def test_hand_computed():
    old = torch.zeros(3)
    new = torch.tensor([0.0, math.log(1.5), math.log(0.5)], requires_grad=True)
    advantage = torch.tensor([1.0, 1.0, -1.0])
    loss, metrics = ppo_loss(
        new,
        old,
        advantage,
        torch.tensor([1.0, 2, 3]),
        torch.tensor([0.0, 0, 0]),
        torch.tensor([0.5] * 3),
        **SETTINGS,
    )
    # ratios 1, 1.5 (clipped to 1.2), 0.5 (clipped to 0.8, and min(-0.5, -0.8) = -0.8)
    policy, value = -(1 + 1.2 - 0.8) / 3, 0.5 * (1 + 4 + 9) / 3
    assert math.isclose(loss.item(), policy + 0.5 * value - 0.1 * 0.5, rel_tol=1e-6)
    assert math.isclose(metrics["ppo/clip_fraction"].item(), 2 / 3, rel_tol=1e-6)
    expected_kl = (0 + (0.5 - math.log(1.5)) + (-0.5 - math.log(0.5))) / 3
    assert math.isclose(metrics["ppo/kl"].item(), expected_kl, rel_tol=1e-5)
    loss.backward()
    assert new.grad[0] != 0 and new.grad[1] == 0 and new.grad[2] == 0  # clipped samples push no further


def test_an_unchanged_policy_has_the_plain_policy_gradient():
    log_prob = torch.randn(5, requires_grad=True)
    advantage, zeros = torch.randn(5), torch.zeros(5)
    loss, _ = ppo_loss(log_prob, log_prob.detach(), advantage, zeros, zeros, zeros, **SETTINGS)
    loss.backward()
    assert torch.allclose(log_prob.grad, -advantage / 5)
