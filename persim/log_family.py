"""What a log alone tells of where its agents act: the spaces, and how long an episode is."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box, Discrete

from common.errors import UserError
from persim.config import Config


@dataclasses.dataclass(frozen=True)
class LogFamily:
    """A family whose dynamics, rewards and ends nobody can write down; a learned reward makes it whole."""

    state_names: tuple[str, ...]
    action_space: Any
    max_episode_len: int
    name: ClassVar[str] = "unknown"

    @property
    def observation_space(self) -> Box:
        """All states."""
        return Box(-np.inf, np.inf, (len(self.state_names),), np.float32)


def family_of_log(config: Config, data: dict[str, Any], num_actions: int) -> LogFamily:
    """The family of what a save says of its `data`; actions that are vectors stay within those logged.

    Raises `UserError` where the reward is not learnt, or the save does not tell.
    """
    if not config.learn_reward:
        raise UserError(
            "--environment unknown: who acts needs a reward; train with --learn_reward True, or give a family"
        )
    limits = data.get("limits", {})
    if "horizon" not in limits:
        raise UserError("the save does not say how long an episode is; train again, or give a family")
    if num_actions:
        space: Any = Discrete(num_actions)
    else:
        low, high = (np.array(limits[f"action_{end}"], np.float32) for end in ("low", "high"))
        space = Box(low, high, dtype=np.float32)
    names = data["state_names"][: limits["seen"]]
    return LogFamily(tuple(names), space, limits["horizon"])
