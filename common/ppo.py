"""The clipped surrogate objective of PPO as a pure function."""

import torch


def ppo_loss(
    log_prob: torch.Tensor,
    old_log_prob: torch.Tensor,
    advantage: torch.Tensor,
    value: torch.Tensor,
    value_target: torch.Tensor,
    entropy: torch.Tensor,
    *,
    clip_range: float,
    entropy_coef: float,
    value_coef: float,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """PPO's loss over tensors of one shape (Schulman et al. 2017, arXiv 1707.06347, eq. 7 and 9).

    The value loss is half the mean squared error. Returns `(loss, metrics)`, metrics as scalars.
    """
    ratio = (log_prob - old_log_prob).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
    value_loss = 0.5 * (value - value_target).square().mean()
    mean_entropy = entropy.mean()
    loss = policy_loss + value_coef * value_loss - entropy_coef * mean_entropy
    with torch.no_grad():
        metrics = {
            "loss/policy": policy_loss.detach(),
            "loss/value": value_loss.detach(),
            "ppo/entropy": mean_entropy.detach(),
            # Non-negative estimator of KL(old || new): mean of r - 1 - log r.
            "ppo/kl": (ratio - 1 - (log_prob - old_log_prob)).mean(),
            "ppo/clip_fraction": (ratio != clipped).float().mean(),
        }
    return loss, metrics
