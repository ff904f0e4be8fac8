"""States of the last observations and actions: what one observation hides shows in several.

With d coordinates seen in an observation, of which the first p have a past (a learned reward has none), the
state at time t is

    o_t [d], its first, second, ..., (H - 1)-th differences to what was seen before [p each],
    and the actions at t - 1, ..., t - H + 1 (discrete ones as indicators).

Differences stand for the older observations: these are nearly the same numbers as the last one, and a
network would have to tell apart what is far below their deviations. A simulator predicts an observation
only; all else of the next state is known.
"""

import dataclasses
from typing import Any

import numpy as np
import torch

from persim.data.transitions import Transitions


@dataclasses.dataclass(frozen=True)
class History:
    """What states are made of; all its methods take arrays or tensors with any leading axes [...]."""

    length: int
    """H, observations in a state."""
    size: int
    """d, coordinates of an observation."""
    remembered: int
    """p, the first of them, whose past is kept."""
    num_actions: int
    """Discrete actions; 0: vectors."""
    action_size: int
    """Coordinates of an action that is a vector."""
    inertia: list[int] = dataclasses.field(default_factory=list)
    """[p], 1 for a coordinate that is foreseen to change as it just did, 0 for one to stay."""

    @property
    def width(self) -> int:
        """Coordinates that an action takes in a state."""
        return self.num_actions or self.action_size

    @property
    def state_size(self) -> int:
        """D, coordinates of a state."""
        return self.size + (self.length - 1) * (self.remembered + self.width)

    def names(self, seen: list[str], actions: list[str]) -> list[str]:
        """What the coordinates [D] of a state are called."""
        each = [f"{actions[0]} is {i}" for i in range(self.num_actions)] or actions
        past = range(1, self.length)
        changes = [f"{name}, difference {k}" for k in past for name in seen[: self.remembered]]
        return [*seen, *changes, *(f"{name}, {k} before" for k in past for name in each)]

    def first(self, observation: np.ndarray) -> np.ndarray:
        """States [..., D] where `observation` [..., d] is the first: as if it had never changed.

        Of actions before it, each is as likely; those that are vectors count as 0.
        """
        state = np.zeros((*observation.shape[:-1], self.state_size), observation.dtype)
        state[..., : self.size] = observation
        if self.num_actions:
            state[..., self.size + (self.length - 1) * self.remembered :] = 1 / self.num_actions
        return state

    def foreseen(self, state: Any) -> Any:
        """The observations [..., d] to which a simulator adds what it predicts."""
        d = self.size
        seen = state[..., :d] + 0
        for i in np.flatnonzero(self.inertia):
            seen[..., i] += state[..., d + i]
        return seen

    def follow(self, state: Any, observation: Any, action: Any) -> Any:
        """The states [..., D] after `action` [...] or [..., a] in `state`, at which `observation` is seen."""
        d, p = self.size, self.remembered
        blocks, difference = [observation], observation[..., :p]
        for first in [0, *range(d, d + (self.length - 2) * p, p)][: self.length - 1]:
            difference = difference - state[..., first : first + p]
            blocks.append(difference)
        if self.length > 1:
            actions = d + (self.length - 1) * p
            blocks += [self.shown(action, state), state[..., actions : self.state_size - self.width]]
        return (
            torch.cat(blocks, dim=-1) if isinstance(state, torch.Tensor) else np.concatenate(blocks, axis=-1)
        )

    def shown(self, action: Any, state: Any) -> Any:
        """Actions as the numbers [..., width] that they are in states like `state`."""
        if isinstance(state, torch.Tensor):
            action = torch.as_tensor(action)
            if self.num_actions:
                action = action[..., None] == torch.arange(self.num_actions)
            return action.to(state.dtype).expand(*state.shape[:-1], self.width)
        if self.num_actions:
            action = np.asarray(action)[..., None] == np.arange(self.num_actions)
        return np.asarray(action, state.dtype)

    def along(self, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """States [K, T + 1, D] of trajectories: observations [K, T + 1, d], actions [K, T] or [K, T, a]."""
        states = [self.first(observations[:, 0])]
        for t in range(actions.shape[1]):
            states.append(self.follow(states[-1], observations[:, t + 1], actions[:, t]))
        return np.stack(states, axis=1)


def of_log(data: Transitions, length: int, remembered: int, num_actions: int) -> History | None:
    """The history of `length` observations of a log, whose first coordinates are `remembered`; None of one.

    A coordinate is foreseen to change as it just did where, in the log, that is nearer than to stay.
    """
    if length == 1:
        return None
    width = 0 if num_actions else data.action.shape[1]
    plain = History(length, data.state.shape[1], remembered, num_actions, width, [0] * remembered)
    states = with_history(data, plain)
    if not len(states):
        return plain
    errors = []
    for inertia in (0, 1):
        history = dataclasses.replace(plain, inertia=[inertia] * remembered)
        errors.append(change(history, states.state, states.next_state)[:, :remembered].std(0))
    return dataclasses.replace(plain, inertia=(errors[1] < errors[0]).astype(int).tolist())


def change(history: History | None, state: Any, next_state: Any) -> Any:
    """What a simulator predicts [N, d] of steps from `state` to `next_state` [N, D]."""
    if history is None:
        return next_state - state
    return next_state[..., : history.size] - history.foreseen(state)


def with_history(data: Transitions, history: History | None) -> Transitions:
    """The same with states of histories; steps without a whole history are left out."""
    if history is None:
        return data
    before = np.arange(len(data)) - data.starts(history.remembered)
    # In float64, so that a state is the same number by number whether it is before a step or after one.
    seen, following = data.state.astype(np.float64), data.next_state.astype(np.float64)
    state = history.first(seen)
    later = np.flatnonzero(before)
    for _ in range(1, history.length):
        state[later] = history.follow(state[later - 1], seen[later], data.action[later - 1])
    whole = before >= history.length - 1
    arrays = {name: getattr(data, name)[whole] for name in ("agent", "time", "action", "reward")}
    next_state = history.follow(state[whole], following[whole], arrays["action"])
    return dataclasses.replace(
        data,
        **arrays,
        state=state[whole].astype(np.float32),
        next_state=next_state.astype(np.float32),
        state_names=history.names(data.state_names, data.action_names),
    )


class Remembers:
    """A family whose states [..., D] are histories; rewards and ends are those of what is seen in them."""

    def __init__(self, family: Any, history: History) -> None:
        self.family, self.history = family, history

    def __getattr__(self, name: str) -> Any:
        return getattr(self.family, name)

    def remember(
        self,
        before: tuple[np.ndarray, np.ndarray] | None,
        observation: np.ndarray,
        done: np.ndarray | None = None,
    ) -> np.ndarray:
        """States [N, D] where `observation` [N, d] is seen after the states and actions `before`.

        None are before the first; episodes that are `done` [N] bool have ended before it.
        """
        first = self.history.first(observation)
        if before is None:
            return first
        states = self.history.follow(before[0], observation, before[1])
        return states if done is None else np.where(done[:, None], first, states)

    def reward(self, state: Any, action: Any, next_state: Any) -> Any:
        """Rewards [...] of steps between states [..., D]."""
        d = self.history.size
        return self.family.reward(state[..., :d], action, next_state[..., :d])

    def terminated(self, next_state: Any) -> Any:
        """Whether an episode ends in the states [..., D]."""
        return self.family.terminated(next_state[..., : self.history.size])
