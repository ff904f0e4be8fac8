"""What is optimised, as formulas; autograd writes the gradients. `rmdp.gradients` has them written out."""

from collections.abc import Iterable

import numpy as np
import torch

from rmdp.policy import Critic, Policies


class PolicyLoss:
    """PPO's loss of k policies."""

    def __init__(self, policies: Policies):
        self.policies = policies

    def __call__(
        self,
        x: np.ndarray,
        action: np.ndarray,
        old_log_prob: np.ndarray,
        advantage: np.ndarray,
        *,
        clip_range: float,
        entropy_coef: float,
        scale: float,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Writes the gradients of the loss over `[k, B]` steps into the parameters' `grad`.

        `x [k, B, D]`, `action [k, B, ...]`, the rest `[k, B]`. Returns the probability ratios, the entropies
        and the derivative of the objective by the advantage, all `[k, B]`.
        """
        weight = torch.from_numpy(advantage)
        distribution = self.policies(torch.from_numpy(x))
        ratio = (distribution.log_prob(torch.from_numpy(action)) - torch.from_numpy(old_log_prob)).exp()
        clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
        objective = torch.min(ratio * weight, clipped * weight)  # Schulman et al. 2017, eq. 7
        entropy = distribution.entropy()
        loss = -scale * (objective + entropy_coef * entropy).sum()
        write_gradients(loss, self.policies)
        slope = torch.where(ratio * weight < clipped * weight, ratio, clipped)
        return ratio.detach().numpy(), entropy.detach().numpy(), slope.detach().numpy()


class ValueLoss:
    """The critic's loss over all its agents' rows."""

    def __init__(self, critic: Critic):
        self.critic = critic

    def __call__(
        self, x: np.ndarray, value_targets: Iterable[tuple[slice, np.ndarray]], *, scale: float
    ) -> float:
        """Writes the gradients of the loss for `x [k, B, D]` into the parameters' `grad`; returns the loss.

        `value_targets` gives pairs of a slice of the critic's rows and their targets `[k, B, rows]`.
        """
        features, loss = self.critic.features(torch.from_numpy(x)), torch.zeros(())
        for rows, target in value_targets:
            error = self.critic.values(features, rows) - torch.from_numpy(target)
            loss = loss + 0.5 * scale * error.square().sum()
        write_gradients(loss, self.critic)
        return float(loss.detach())


def write_gradients(loss: torch.Tensor, module: torch.nn.Module) -> None:
    """Let the gradients of a module be those of `loss`, in the memory that they have."""
    module.zero_grad(set_to_none=False)
    loss.backward()
