"""What an agent's states are: what is seen of them, a learned reward, and what is remembered."""

import dataclasses
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box

from common.errors import UserError
from persim.config import Config
from persim.data.transitions import Transitions
from persim.history import History, Remembers
from persim.learned_reward import LearnedReward


class Hidden:
    """A family of `Dynamics` of which nobody sees the states `names`; states [..., s] are what is seen.

    `start` and `advance` are the family's, of whole states. A reward or an end that asks for a hidden number
    has a 0 there.
    """

    def __init__(self, family: Any, names: list[str]) -> None:
        self.family, space = family, family.observation_space
        self.seen = [i for i, name in enumerate(family.state_names) if name not in names]
        self.state_names = tuple(family.state_names[i] for i in self.seen)
        self.observation_space = Box(space.low[self.seen], space.high[self.seen], dtype=space.dtype)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.family, name)

    def as_state(self, observation: np.ndarray) -> np.ndarray:
        """What is seen [..., s] of whole observations; what is so already stays as it is.

        A number behind a whole observation, a learned reward, is kept.
        """
        whole, width = len(self.family.state_names), observation.shape[-1]
        return observation if width < whole else observation[..., [*self.seen, *range(whole, width)]]

    def reward(self, state: Any, action: Any, next_state: Any) -> Any:
        """Rewards [...] of steps between states [..., s]."""
        return self.family.reward(self.filled(state), action, self.filled(next_state))

    def terminated(self, next_state: Any) -> Any:
        """Whether an episode ends in the states [..., s]."""
        return self.family.terminated(self.filled(next_state))

    def filled(self, state: Any) -> Any:
        """Whole states, with 0 for what is hidden."""
        shape = (*state.shape[:-1], len(self.family.state_names))
        whole = torch.zeros(shape) if isinstance(state, torch.Tensor) else np.zeros(shape)
        whole[..., self.seen] = state
        return whole


def hide(family: Any, config: Config) -> Any:
    """The family as it is seen; raises `UserError` where that cannot be."""
    if not config.hide:
        return family
    names = [name.strip() for name in config.hide.split(",")]
    known = list(family.state_names)
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--hide {config.hide}: no state {unknown[0]!r}; there are {', '.join(known)}")
    if len(set(names)) == len(known):
        raise UserError(f"--hide {config.hide}: leaves no state to be seen")
    if not config.learn_reward:
        low, high = np.zeros(len(known)), np.isin(known, names).astype(float)
        action = np.zeros(family.action_space.shape, int)
        if family.reward(low, action, low) != family.reward(high, action, high):
            raise UserError(
                f"--hide {config.hide}: the reward of {config.environment} needs it; --learn_reward True"
            )
    return Hidden(family, names)


def seen_of(data: Transitions, family: Any) -> Transitions:
    """A log of whole states as `Hidden` shows it."""
    if not isinstance(family, Hidden):
        return data
    fields = {name: getattr(data, name)[:, family.seen] for name in ("state", "next_state")}
    return dataclasses.replace(data, **fields, state_names=list(family.state_names))


def planned(config: Config, family: Any, history: History | None) -> Any:
    """A family, which may be wrapped already, as one whose states are the simulator's."""
    if not isinstance(family, Hidden | LearnedReward):
        family = hide(family, config)
    if config.learn_reward and not isinstance(family, LearnedReward):
        family = LearnedReward(family)
    return Remembers(family, history) if history else family


def states_along(family: Any, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """The states [K, T + 1, D] of a `planned` family along whole observations [K, T + 1, ...] and actions."""
    if hasattr(family, "as_state"):
        observations = family.as_state(observations)
    return family.history.along(observations, actions) if isinstance(family, Remembers) else observations
