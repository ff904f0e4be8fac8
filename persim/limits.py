"""Where a log ends: what its states span, and walls at which states stop.

Nothing is known of a simulator beyond the states that it learnt from. At a wall many states of a log have
exactly one number, the smallest or the largest, and a smooth network predicts a motion that goes on behind
it.
"""

import dataclasses
from typing import Any

import numpy as np
import torch

from envs.problem import Problem
from persim.data.transitions import Transitions
from persim.learned_reward import NAME

FEWEST = 5  # rows at a wall, and as many for each row at the next number
STILL = 1e-6  # of a deviation: numbers that differ by less at a wall are one


@dataclasses.dataclass(frozen=True)
class Wall:
    """A number of coordinate `column` that states do not pass, upwards (`side` 1) or downwards (-1).

    `values` [d] are what a state has at the wall; None for a coordinate that has no number of its own there.
    """

    column: int
    side: int
    values: list[float | None]

    @property
    def at(self) -> float:
        """The number itself."""
        value = self.values[self.column]
        assert value is not None
        return value

    def touched(self, state: Any) -> Any:
        """Whether states [..., d or more] are at the wall or behind it, [...] bool."""
        return self.side * (state[..., self.column] - np.float32(self.at)) >= 0


def walls_of(data: Transitions) -> list[Wall]:
    """The walls of a log: numbers at the end of a coordinate that at least `FEWEST` next states have exactly.

    A number that was rounded or counted is no wall: the next one is as frequent there.
    """
    found = []
    for column, name in enumerate(data.state_names):
        if name == NAME:
            continue
        values, counts = np.unique(data.next_state[:, column], return_counts=True)
        if len(values) < 2:
            continue
        for side, end, following in ((-1, 0, 1), (1, -1, -2)):
            if counts[end] >= FEWEST and counts[end] >= FEWEST * counts[following]:
                there = data.next_state[data.next_state[:, column] == values[end]].astype(np.float64)
                still = there.std(0) <= STILL * data.next_state.std(0)
                value = [float(v) if s else None for v, s in zip(there.mean(0), still, strict=True)]
                value[column] = float(values[end])
                found.append(Wall(column, side, value))
    return found


def free(data: Transitions, walls: list[Wall]) -> np.ndarray:
    """Which steps [N] of a log end at no wall."""
    stopped = [wall.touched(data.next_state) for wall in walls]
    return ~np.logical_or.reduce([np.zeros(len(data), bool), *stopped])


def stop(walls: list[Wall], state: torch.Tensor) -> torch.Tensor:
    """States [..., d] that go behind no wall; those that would are at it, with its numbers."""
    for wall in walls:
        touched = wall.touched(state)
        columns = [
            state[..., j] if value is None else torch.where(touched, value, state[..., j])
            for j, value in enumerate(wall.values)
        ]
        state = torch.stack(columns, dim=-1)
    return state


def as_stored(walls: list[Wall]) -> list[dict[str, Any]]:
    """Walls as a save has them."""
    return [dataclasses.asdict(wall) for wall in walls]


def limits_of(data: Transitions, walls: list[Wall]) -> dict[str, Any]:
    """What a save tells of a log: the lowest and highest numbers [D] of its states, and its walls."""
    both = data.state, data.next_state
    low, high = np.min([s.min(0) for s in both], axis=0), np.max([s.max(0) for s in both], axis=0)
    return {"low": low.tolist(), "high": high.tolist(), "walls": as_stored(walls)}


def acting_of(problem: Problem) -> dict[str, Any]:
    """What a save tells of acting where only the log is known: states seen, episode and actions."""
    log = problem.log
    acting = {"seen": log.state.shape[1], "horizon": problem.horizon}
    if log.discrete:
        return acting
    return acting | {"action_low": log.action.min(0).tolist(), "action_high": log.action.max(0).tolist()}


def walls_in(data: dict[str, Any]) -> list[Wall]:
    """The walls that a save's `data` tell of; none of saves of before."""
    return [Wall(**wall) for wall in data.get("limits", {}).get("walls", [])]
