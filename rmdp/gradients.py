"""Gradients of the losses in `rmdp.losses` for k small policies and a critic, written out in NumPy.

Minibatches are so small that automatic differentiation would take most of the time: written out, a gradient
step takes less than half. So the forward pass of `rmdp.policy` is here once more, of which the gradient needs
the values in between. The tests hold every gradient against PyTorch's.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from common.networks import BatchedLinear
from rmdp.policy import Critic, Policies

Backward = Callable[[np.ndarray, float], np.ndarray]


class PolicyGradient:
    """Writes the gradients of `Policies` into its parameters' `grad`, whose memory it shares."""

    def __init__(self, policies: Policies):
        self.discrete = policies.discrete
        self.trunk = Trunk(policies.first, policies.second)
        self.head, self.head_grad = arrays(policies.head)
        if not self.discrete:
            self.log_std, self.log_std_grad = memory(policies.log_std)

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
        """Gradients of `-scale * sum(surrogate + entropy_coef * entropy)` over `[k, B]` steps.

        `x [k, B, D]`, `action [k, B, ...]`, the rest `[k, B]`. Returns the probability ratios, the entropies
        and the derivative of the surrogate by the advantage (Schulman et al. 2017, eq. 7), all `[k, B]`.
        """
        features = self.trunk.forward(x)
        outputs = features @ self.head[0]
        outputs += self.head[1]
        log_prob, entropy, backward = (self.categorical if self.discrete else self.gaussian)(outputs, action)
        ratio = np.exp(log_prob - old_log_prob)
        # The clipped branch is the lower one: its value counts, its slope does not.
        free = np.where(advantage > 0, ratio < 1 + clip_range, ratio > 1 - clip_range)
        slope = np.where(free, ratio, np.clip(ratio, 1 - clip_range, 1 + clip_range))
        error = backward((-scale * advantage) * (ratio * free), -scale * entropy_coef)

        sum_steps(error, self.head_grad[1])
        np.matmul(features.transpose(0, 2, 1), error, out=self.head_grad[0])
        self.trunk.backward(error @ self.head[0].transpose(0, 2, 1))
        return ratio, entropy, slope

    def gaussian(self, mean: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, Backward]:
        """Log-probabilities, entropies, and the function that makes gradients of the means from theirs."""
        inverse = np.exp(-self.log_std)
        z = (action - mean) * inverse
        log_prob = -0.5 * (z * z).sum(-1) - (self.log_std.sum(-1) + 0.5 * z.shape[-1] * np.log(2 * np.pi))
        entropy = self.log_std.sum(-1) + 0.5 * z.shape[-1] * np.log(2 * np.pi * np.e)
        entropy = np.broadcast_to(entropy, log_prob.shape)

        def backward(by_log_prob: np.ndarray, by_entropy: float) -> np.ndarray:
            error = by_log_prob[..., None] * z
            sum_steps(error * z - by_log_prob[..., None], self.log_std_grad)
            self.log_std_grad += by_entropy * z.shape[1]
            error *= inverse
            return error

        return log_prob.astype(np.float32), entropy, backward

    def categorical(self, logits: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, Backward]:
        """The same for discrete actions."""
        log_probs = logits - logits.max(-1, keepdims=True)
        log_probs -= np.log(np.exp(log_probs).sum(-1, keepdims=True))
        probs = np.exp(log_probs)
        chosen = action[..., None] == np.arange(logits.shape[-1])
        entropy = -(probs * log_probs).sum(-1)

        def backward(by_log_prob: np.ndarray, by_entropy: float) -> np.ndarray:
            error = by_log_prob[..., None] * (chosen - probs)
            return error - by_entropy * probs * (log_probs + entropy[..., None])

        return (log_probs * chosen).sum(-1), entropy, backward


class CriticGradient:
    """Writes the gradients of `Critic` into its parameters' `grad`, whose memory it shares."""

    def __init__(self, critic: Critic):
        self.trunk = Trunk(critic.first, critic.second)
        self.acting, self.acting_grad = memory(critic.acting)
        self.head, self.head_grad = arrays(critic.head)

    def __call__(
        self, x: np.ndarray, value_targets: Iterable[tuple[slice, np.ndarray]], *, scale: float
    ) -> float:
        """Gradients of `scale / 2 * sum((value - target)**2)`, `x [k, B, D]`; returns that loss.

        `value_targets` gives pairs of a slice of agents and their targets `[k, B, agents]`.
        """
        k, B, _ = x.shape
        features = self.trunk.forward(x, self.acting).reshape(k * B, -1)
        by_features, loss = np.zeros_like(features), 0.0
        for agents, target in value_targets:
            error = features @ self.head[0][agents].T
            error += self.head[1][agents]
            error -= target.reshape(error.shape)
            loss += 0.5 * scale * float(np.vdot(error, error))
            error *= np.float32(scale)
            sum_steps(error, self.head_grad[1][agents])
            np.matmul(error.T, features, out=self.head_grad[0][agents])
            by_features += error @ self.head[0][agents]
        self.trunk.backward(by_features.reshape(k, B, -1), self.acting_grad)
        return loss


class Trunk:
    """Two tanh layers, one network for all k rows of the input or one for each."""

    def __init__(self, first: BatchedLinear, second: BatchedLinear):
        (self.first, self.first_grad), (self.second, self.second_grad) = arrays(first), arrays(second)

    def forward(self, x: np.ndarray, extra: np.ndarray | None = None) -> np.ndarray:
        """Features `[k, B, H]` of `x [k, B, D]`; `extra [k, 1, H]` is added before the first tanh."""
        self.k, self.B, _ = x.shape
        self.x = x.reshape(len(self.first[0]), -1, x.shape[-1])
        hidden = self.x @ self.first[0]
        hidden += self.first[1]
        if extra is not None:
            by_policy = hidden.reshape(self.k, self.B, -1)
            by_policy += extra
        self.hidden = np.tanh(hidden, out=hidden)
        features = self.hidden @ self.second[0]
        features += self.second[1]
        self.features = np.tanh(features, out=features)
        return self.features.reshape(self.k, self.B, -1)

    def backward(self, error: np.ndarray, extra_grad: np.ndarray | None = None) -> None:
        """Gradients from those of the features, `error [k, B, H]`."""
        error = error.reshape(self.features.shape)
        error = through_tanh(error, self.features)
        sum_steps(error, self.second_grad[1])
        np.matmul(self.hidden.transpose(0, 2, 1), error, out=self.second_grad[0])
        error = through_tanh(error @ self.second[0].transpose(0, 2, 1), self.hidden)
        sum_steps(error, self.first_grad[1])
        np.matmul(self.x.transpose(0, 2, 1), error, out=self.first_grad[0])
        if extra_grad is not None:
            sum_steps(error.reshape(self.k, self.B, -1), extra_grad)


def sum_steps(error: np.ndarray, out: np.ndarray) -> None:
    """Sums over the last axis but one; as a product with ones it takes a third of the time of `np.sum`."""
    ones = np.ones(error.shape[-2], np.float32)
    np.matmul(ones if error.ndim == 2 else ones[None], error, out=out)


def through_tanh(error: np.ndarray, output: np.ndarray) -> np.ndarray:
    """Gradients before a tanh from those after it."""
    slope = output * output
    np.subtract(1.0, slope, out=slope)
    slope *= error
    return slope


def arrays(layer: Any) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Weights and gradients `(weight, bias)` of a layer as NumPy arrays that share its memory."""
    (weight, weight_grad), (bias, bias_grad) = memory(layer.weight), memory(layer.bias)
    return (weight, bias), (weight_grad, bias_grad)


def memory(parameter: Any) -> tuple[np.ndarray, np.ndarray]:
    """Values and gradients of a parameter as NumPy arrays that share its memory."""
    return parameter.detach().numpy(), parameter.grad.numpy()
