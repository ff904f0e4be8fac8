"""The policy of VariBAD: it acts on the observation and on a belief about the task."""

import dataclasses
from typing import Any

import torch
from gymnasium import Space
from torch import nn

from common.distributions import Categorical, DiagonalGaussian
from common.running_moments import RunningMoments
from rl2.config import Config
from rl2.policy import Branch, RecurrentPolicy, State, TransitionFeatures
from rl2.vae import Encoder


class BeliefPolicy(nn.Module):
    """Policy and value on (observation, mean and log variance of the latent), used as a `RecurrentPolicy`.

    The encoder is not trained by PPO, which sees steps alone and nothing of the time before (Zintgraf et al.
    2020, section 3.3). What the encoder is given is `x [N, D]` of `step`; `unroll` is given
    `[T, N, n + 2 d]`, observations and beliefs as they were while acting. Beliefs enter normalised by
    `moments`.
    """

    def __init__(self, config: Config, observation_space: Space, action_space: Space):
        super().__init__()
        num_beliefs = 2 * config.latent_size
        without = dataclasses.replace(config, architecture="none")
        self.acting = RecurrentPolicy(without, observation_space, action_space, num_beliefs)
        self.features = TransitionFeatures("plain", observation_space, action_space, self.acting.normaliser)
        self.encoder, self.moments = Encoder(config, self.features.size), RunningMoments(num_beliefs)
        self.head, self.scaled, self.shared = self.acting.head, self.acting.scaled, self.acting.shared

    @property
    def normaliser(self) -> RunningMoments | None:
        """Of observations."""
        return self.acting.normaliser

    @property
    def actor(self) -> Branch:
        """What the distribution of actions is made by."""
        return self.acting.actor

    @property
    def memory(self) -> Any:
        """What remembers while it acts."""
        return self.encoder.memory

    def by_ppo(self) -> list[nn.Parameter]:
        """The parameters that PPO trains: all but the encoder's."""
        return list(self.acting.parameters())

    def initial_state(self, num_meta_episodes: int) -> State:
        """The empty memory of that many meta-episodes."""
        return self.memory.initial_state(num_meta_episodes)

    def learnt_from(self, x: torch.Tensor, state: State) -> torch.Tensor:
        """Observations and beliefs `[N, n + 2 d]` of a step that took `x [N, D]` and ended in `state`."""
        return torch.cat([x[:, : self.features.num_observations], self.encoder.belief(state)], 1)

    def step(
        self, x: torch.Tensor, observation: torch.Tensor, state: State
    ) -> tuple[Categorical | DiagonalGaussian, torch.Tensor | None, State]:
        """`x [N, D]`, observations of N meta-episodes -> (distribution, value [N] or None, state)."""
        state = self.encoder.step(x, state)
        inputs = self.normalised(self.learnt_from(x, state))
        distribution, value, _ = self.acting.step(inputs, observation, ())
        return distribution, value, state

    def unroll(
        self, x: torch.Tensor, observation: torch.Tensor
    ) -> tuple[Categorical | DiagonalGaussian, torch.Tensor]:
        """`x [T, N, n + 2 d]`, observations `[T, N]` -> (distribution over `[T, N]`, value `[T, N]`)."""
        return self.acting.unroll(self.normalised(x), observation)

    def value(self, x: torch.Tensor, observation: torch.Tensor) -> torch.Tensor:
        """Values `[T, N]` of whole meta-episodes."""
        return self.acting.value(self.normalised(x), observation)

    def update_moments(self, comm: Any, x: torch.Tensor | None) -> None:
        """Merge the beliefs in inputs `[n, n + 2 d]` of every rank, None for none; a collective."""
        self.moments.update(comm, None if x is None else x[:, self.features.num_observations :])

    def normalised(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs `[..., n + 2 d]` with their beliefs normalised."""
        here, belief = x.split(
            [self.features.num_observations, x.shape[-1] - self.features.num_observations], -1
        )
        return torch.cat([here, self.moments(belief)], -1)


def make_policy(
    config: Config, observation_space: Space, action_space: Space
) -> RecurrentPolicy | BeliefPolicy:
    """The policy of `--architecture`."""
    made = BeliefPolicy if config.architecture == "varibad" else RecurrentPolicy
    return made(config, observation_space, action_space)
