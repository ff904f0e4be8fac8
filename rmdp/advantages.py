"""What policies and critic learn from: advantages and value targets of an iteration's steps."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from common.gae import gae
from rmdp.config import Config
from rmdp.policy import Critic
from rmdp.rollout import Steps


@dataclass
class Batch:
    """R = T * m steps of each of k policies; advantages are standardised policy by policy.

    Of what has a column for each agent there is one array `[k, R, chunk]` for each chunk of agents.
    """

    observation: np.ndarray  # [k, R, D] normalised
    action: np.ndarray  # [k, R, ...]
    log_prob: np.ndarray  # [k, R]
    advantage: np.ndarray  # [k, R]
    centre: np.ndarray  # [k, 1] mean of the advantages before they were standardised
    spread: np.ndarray  # [k, 1] their standard deviation
    value_target: list[np.ndarray]  # [k, R, chunk]
    agent_advantage: list[np.ndarray] = field(default_factory=list)  # [k, R, chunk], of a soft assignment


def make_batch(
    steps: Steps,
    observation: torch.Tensor,
    advantage: np.ndarray,
    value_target: list[np.ndarray],
    agent_advantage: list[np.ndarray],
) -> Batch:
    """The batch of steps whose normalised observations are `[k, R, D]` and advantages `[k, R]`."""
    centre, spread = advantage.mean(1, keepdims=True), advantage.std(1, keepdims=True) + 1e-8
    return Batch(
        observation=observation.numpy(),
        action=steps.action.flatten(1, 2).numpy(),
        log_prob=steps.log_prob.flatten(1, 2).numpy(),
        advantage=(advantage - centre) / spread,
        centre=centre,
        spread=spread,
        value_target=value_target,
        agent_advantage=agent_advantage,
    )


class StepFeatures:
    """The critic's features of an iteration's steps: of each, where time limits cut, and after the last."""

    def __init__(self, steps: Steps, normalise: Callable, critic: Critic):
        self.critic, self.cut = critic, steps.done.transpose(0, 1).float()[..., None]
        self.observation = normalise(steps.observation).flatten(1, 2)
        self.at_step = critic.features(self.observation).unflatten(1, steps.truncated.shape[1:])
        self.at_end = critic.features(normalise(steps.following))
        self.limit = steps.truncated.nonzero(as_tuple=True)
        self.at_limit = critic.features(normalise(steps.final_observation)[self.limit], self.limit[0])

    def estimate(self, reward: torch.Tensor, rows: slice, config: Config) -> tuple[torch.Tensor, np.ndarray]:
        """Advantages and value targets `[k, R, rows]` of some of the critic's rows.

        `reward [k, T, m, rows]` is changed: a time limit is no end, so what would have followed counts.
        """
        value = self.critic.values(self.at_step, rows)
        reward[self.limit] += config.gamma * self.critic.values(self.at_limit, rows)
        advantage = gae(
            reward.transpose(0, 1),
            value.transpose(0, 1),
            config.gamma,
            config.gae_lambda,
            next_value=self.critic.values(self.at_end, rows),
            cut=self.cut,
        ).transpose(0, 1)
        return advantage.flatten(1, 2), (advantage + value).flatten(1, 2).numpy()
