"""A reward that nobody can write down, learnt from the log as one more state.

That state is 0 before a step and the step's reward after it. A simulator predicts its change as it does the
others', so an agent's reward may be its own, and planning and unseen agents need nothing new. The reward acts
on nothing: the weights from it are zero, and stay so because it is zero in all that is learnt from.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from persim.data.behaviour import BehaviourPolicy
from persim.data.transitions import Transitions

NAME = "(earned)"  # as saves and tables of metrics have it


def with_reward(data: Transitions) -> Transitions:
    """The same with a last state that is 0 before a step and the step's reward after it."""
    before, after = np.zeros((len(data), 1), np.float32), data.reward[:, None]
    return dataclasses.replace(
        data,
        state=np.concatenate([data.state, before], axis=1),
        next_state=np.concatenate([data.next_state, after], axis=1),
        state_names=[*data.state_names, NAME],
    )


class LearnedReward:
    """A family whose states [..., d + 1] end with the rewards so far; all else is the family's.

    To be planned with, a family needs neither `reward` nor `terminated`: without the latter no end is
    foreseen. `start` and `advance` are those of a `Dynamics` family.
    """

    def __init__(self, family: Any) -> None:
        self.family = family

    def __getattr__(self, name: str) -> Any:
        return getattr(self.family, name)

    def as_state(self, observation: np.ndarray) -> np.ndarray:
        """States [..., d + 1] of observations [..., d], at which no reward was had; states stay."""
        if hasattr(self.family, "as_state"):
            observation = self.family.as_state(observation)
        if observation.shape[-1] > self.family.observation_space.shape[0]:
            return observation
        return np.concatenate([observation, np.zeros((*observation.shape[:-1], 1))], axis=-1)

    def start(self, rng: np.random.Generator, num_episodes: int) -> np.ndarray:
        """First states [num_episodes, d + 1]."""
        return self.as_state(self.family.start(rng, num_episodes))

    def advance(self, state: np.ndarray, action: np.ndarray, parameters: dict[str, np.ndarray]) -> np.ndarray:
        """The next states of arrays [..., d + 1]; the last coordinate grows by the true reward."""
        following = self.family.advance(state[..., :-1], action, parameters)
        reward = self.family.reward(state[..., :-1], action, following)
        total = state[..., -1] + np.broadcast_to(reward, state.shape[:-1])
        return np.concatenate([following, total[..., None]], axis=-1).astype(state.dtype)

    def reward(self, state: Any, action: Any, next_state: Any) -> Any:
        """The reward of a step, arrays or tensors [..., d + 1]: in a simulator, the predicted one."""
        return next_state[..., -1] - state[..., -1]

    def terminated(self, next_state: Any) -> Any:
        """Whether the family ends an episode in `next_state` [..., d + 1]; never, if it does not say."""
        if not hasattr(self.family, "terminated"):
            return torch.zeros(next_state.shape[:-1], dtype=torch.bool)
        return self.family.terminated(next_state[..., :-1])

    def blind(self, make_policy: Callable[[int], BehaviourPolicy]) -> Callable[[int], BehaviourPolicy]:
        """Policies, made by `make_policy(number)`, that do not see the reward."""

        def make(number: int) -> BehaviourPolicy:
            policy = make_policy(number)
            return lambda state, rng: policy(state[:, :-1], rng)

        return make
