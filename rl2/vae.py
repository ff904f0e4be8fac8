"""The variational part of VariBAD (Zintgraf et al. 2020, arXiv 1910.08348): beliefs, decoders, their loss."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from common.errors import UserError
from common.memory import GRU
from rl2.config import Config
from rl2.policy import State, TransitionFeatures

MAX_LOG_VARIANCE = 10.0  # on both sides; beyond it a divergence may overflow
REWARD_LAYERS, HEAD_LAYERS, STATE_LAYERS = (64, 32), (32, 32), (256, 128)  # the authors'


def gaussian_kl(
    mean: torch.Tensor, log_variance: torch.Tensor, other_mean: torch.Tensor, other_log_variance: torch.Tensor
) -> torch.Tensor:
    """KL divergences `[...]` in nats, of Gaussians `[..., d]` with independent parts to others."""
    log_ratio = log_variance - other_log_variance
    distance = (mean - other_mean).square() * (-other_log_variance).exp()
    return 0.5 * (log_ratio.exp() + distance - 1 - log_ratio).sum(-1)


def kl_to_previous(mean: torch.Tensor, log_variance: torch.Tensor) -> torch.Tensor:
    """KL `[T, ...]` of each belief `[T, ..., d]` to the one before; of the first to N(0, 1) (section 3)."""
    before = (torch.cat([torch.zeros_like(part[:1]), part[:-1]]) for part in (mean, log_variance))
    return gaussian_kl(mean, log_variance, *before)


class Encoder(nn.Module):
    """q(m | what was seen so far): a GRU over transitions, then mean and log variance of the latent m."""

    def __init__(self, config: Config, input_size: int):
        super().__init__()
        width = config.encoder_features
        span = config.meta_episode_len if config.memory_span < 0 else config.memory_span
        self.embed = nn.Sequential(nn.Linear(input_size, width), nn.ReLU())
        self.memory = GRU(width, width, span)
        self.mean = nn.Linear(width, config.latent_size)
        self.log_variance = nn.Linear(width, config.latent_size)

    def step(self, x: torch.Tensor, state: State) -> State:
        """Take in one transition of N tasks `x [N, D]`; the next state."""
        return self.memory.step(self.embed(x), state)[1]

    def belief(self, state: State) -> torch.Tensor:
        """Mean and log variance `[N, 2 d]` after `step`."""
        return torch.cat(self.posterior(state[0][0]), -1)

    def unroll(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance `[T, N, d]` after each of the transitions `[T, N, D]`."""
        return self.posterior(self.memory.unroll(self.embed(x)))

    def posterior(self, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance `[..., d]` of what the GRU holds."""
        return self.mean(y), self.log_variance(y).clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)


class Steps(NamedTuple):
    """What was seen of B meta-episodes, time-major, as the environment and the policy gave it."""

    observation: torch.Tensor  # [T, B] or [T, B, n]
    reached: torch.Tensor  # [T, B] or [T, B, n] what a step led to, also where an episode ended with it
    action: torch.Tensor  # [T, B] or [T, B, k]
    reward: torch.Tensor  # [T, B]
    done: torch.Tensor  # [T, B] 1 where an episode ended with this step
    length: torch.Tensor  # [B] steps that count

    def at(self, times: torch.Tensor, rows: torch.Tensor) -> "Steps":
        """The steps `times [B, S]` of the meta-episodes `rows [B, 1]`, batch first."""
        parts = {name: getattr(self, name)[times, rows] for name in self._fields[:-1]}
        return Steps(**parts, length=self.length)


class Draws(NamedTuple):
    """What an ELBO is estimated by in B meta-episodes: uniform numbers `[B, K]` choose steps."""

    terms: torch.Tensor | None  # [B, K] beliefs that are decoded; None: all
    steps: torch.Tensor | None  # [B, S] steps that each of them decodes; None: all
    noise: torch.Tensor  # [B, K, d] standard normal, of the samples of m


def encoder_inputs(features: TransitionFeatures, steps: Steps) -> torch.Tensor:
    """What the encoder is given at each step `[T, B, D]`: the observation and the transition before it."""
    here, action = features.observation(steps.observation), features.action(steps.action)
    reward, done = steps.reward[..., None].float(), steps.done[..., None].float()
    first = torch.ones_like(done[:1])  # the step before the first counts as an end
    action, reward = (torch.cat([torch.zeros_like(part[:1]), part[:-1]]) for part in (action, reward))
    parts = (here, here, action, reward, torch.cat([first, done[:-1]]))
    return features.join(*(part.flatten(0, 1) for part in parts)).unflatten(0, here.shape[:2])


class LatentMLP(nn.Module):
    """ReLU layers on (m, features of a step), for every pair of K samples and S steps."""

    def __init__(self, latent_size: int, num_features: int, layers: tuple[int, ...], num_outputs: int):
        super().__init__()
        self.of_latent = nn.Linear(latent_size, layers[0])
        self.of_step = nn.Linear(num_features, layers[0], bias=False) if num_features else None
        inner = [m for n, k in zip(layers, layers[1:], strict=False) for m in (nn.Linear(n, k), nn.ReLU())]
        self.rest = nn.Sequential(nn.ReLU(), *inner, nn.Linear(layers[-1], num_outputs))

    def forward(self, latent: torch.Tensor, step: torch.Tensor | None = None) -> torch.Tensor:
        """`[B, K, d]` and `[B, S, F]` -> `[B, K, S, num_outputs]`; without steps `[B, K, num_outputs]`."""
        hidden = self.of_latent(latent)
        if self.of_step is not None and step is not None:
            hidden = hidden[:, :, None] + self.of_step(step)[:, None]
        return self.rest(hidden)


class Decoders(nn.Module):
    """What is predicted from m: rewards, states or both, of all steps of a meta-episode, past and to come.

    Rewards by squared error from (m, s, a, s') or (m, s'), or for each of the Discrete observations the
    probability of a reward above 0 there. Next states by squared error, as observations enter the policy, or
    by cross entropy if they are discrete.
    """

    def __init__(self, config: Config, features: TransitionFeatures):
        super().__init__()
        self.features, self.how = features, config.reward_decoder
        size, num = config.latent_size, features.num_observations
        self.reward: LatentMLP | None = None
        self.state: LatentMLP | None = None
        if config.decode != "state":
            if self.how == "heads" and not features.discrete_observation:
                raise UserError(
                    "--reward_decoder heads needs discrete observations: use arrival or transition"
                )
            inputs = {"transition": 2 * num + features.num_actions, "arrival": num, "heads": 0}[self.how]
            layers, outputs = (HEAD_LAYERS, num) if self.how == "heads" else (REWARD_LAYERS, 1)
            self.reward = LatentMLP(size, inputs, layers, outputs)
        if config.decode != "reward":
            self.state = LatentMLP(size, num + features.num_actions, STATE_LAYERS, num)

    def errors(self, latent: torch.Tensor, steps: Steps) -> dict[str, torch.Tensor]:
        """Errors `[B, K, S]` of what samples `[B, K, d]` predict of steps `[B, S, ...]` (batch first)."""
        found = {}
        here, after = self.features.observation(steps.observation), self.features.observation(steps.reached)
        action = self.features.action(steps.action)
        if self.reward is not None and self.how == "heads":
            logits, cell = self.reward(latent), steps.reached.long()[:, None].expand(-1, latent.shape[1], -1)
            above = (steps.reward > 0).float()[:, None].expand(cell.shape)
            found["reward"] = F.binary_cross_entropy_with_logits(
                logits.gather(2, cell), above, reduction="none"
            )
        elif self.reward is not None:
            inputs = after if self.how == "arrival" else torch.cat([here, action, after], -1)
            found["reward"] = (self.reward(latent, inputs)[..., 0] - steps.reward[:, None]).square()
        if self.state is not None:
            out = self.state(latent, torch.cat([here, action], -1))
            if self.features.discrete_observation:
                found["state"] = -(out.log_softmax(-1) * after[:, None]).sum(-1)
            else:  # it predicts the change
                found["state"] = (out + (here - after)[:, None]).square().mean(-1)
        return found


def negative_elbo(
    encoder: Encoder,
    decoders: Decoders,
    features: TransitionFeatures,
    steps: Steps,
    draws: Draws,
    weight: float,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of B meta-episodes, and its parts (section 3): errors of a step plus `weight` KL of a step.

    The mean over meta-episodes, in each over its beliefs, of (the mean error over decoded steps + weight x
    the KL to the belief before). In a sum over H decoded steps, in place of their mean, the KL's weight is H
    x `weight`.
    """
    mean, log_variance = encoder.unroll(encoder_inputs(features, steps))
    num_steps = len(steps.reward)
    time = torch.arange(num_steps, device=mean.device)
    live = time < steps.length[:, None]  # [B, T]
    kl = (kl_to_previous(mean, log_variance).T * live).sum(1) / steps.length

    def chosen(uniform: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Numbers `[B, K]` of steps, and 1 where they count."""
        if uniform is None:
            return time.expand(len(live), -1), live.float()
        number = (uniform * steps.length[:, None]).long()
        return torch.minimum(number, steps.length[:, None] - 1), torch.ones_like(uniform)

    (terms, term_counts), (times, step_counts) = chosen(draws.terms), chosen(draws.steps)
    rows = torch.arange(len(live), device=mean.device)[:, None]
    sample = mean[terms, rows] + (0.5 * log_variance[terms, rows]).exp() * draws.noise
    decoded = steps.at(times, rows)
    counts = term_counts[:, :, None] * step_counts[:, None]
    totals = counts.sum((1, 2))
    parts = {
        name: ((error * counts).sum((1, 2)) / totals).mean()
        for name, error in decoders.errors(sample, decoded).items()
    }
    parts["kl"] = kl.mean()
    loss = weight * parts["kl"]
    for name in ("reward", "state"):
        loss = loss + parts[name] if name in parts else loss
    return loss, parts
