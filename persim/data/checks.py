"""What is wrong with logged transitions, and where."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.spaces import Discrete

from common.errors import UserError

if TYPE_CHECKING:
    from persim.data.transitions import Transitions

Place = Callable[..., str]  # where something was read, as text
MAX_MESSAGE = 500  # characters
MAX_DECODED = 1 << 34  # bytes of a log when it is unpacked; more, or half the memory, is a mistake or malice


def fault(place: str, what: str) -> UserError:
    """The error `place: what`, as one line of at most `MAX_MESSAGE` characters."""
    return UserError(" ".join(f"{place}: {what}".split())[:MAX_MESSAGE])


def check_size(place: str, size: int) -> None:
    """Refuse a log of `size` bytes when unpacked that would fill the memory."""
    most = min(MAX_DECODED, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    if size > most:
        text = f"holds {size / 2**30:.1f} GiB when unpacked, more than {most / 2**30:.1f}"
        raise fault(place, f"{text}; give fewer rows or columns")


def refuse(bad: np.ndarray, place: Place, what: Callable[..., str]) -> None:
    """Raise the fault `place(*index)`, `what(*index)` of the first element of `bad` that is true."""
    if bad.any():
        index = [int(i) for i in np.unravel_index(bad.argmax(), bad.shape)]
        raise fault(place(*index), what(*index))


def check(data: "Transitions", place: Place, family: Any = None, held_out: bool = False) -> None:
    """Refuse `data` (Transitions) that cannot be learnt from, or that disagree with `family`.

    `place(array, *index)` tells where an element of an array was read. Raises `UserError`, for: no rows;
    an agent that is unknown, out of order or without a row; times that do not grow; numbers that are missing
    or not finite; a state that never changes, unless `held_out`; and what `check_family` refuses.
    """
    if not len(data):
        raise fault(place("agent"), "there are no transitions; log at least two steps of each agent")
    known = (data.agent >= 0) & (data.agent < data.num_agents)
    unknown = f"is no agent; there are {data.num_agents} names"
    refuse(~known, lambda i: place("agent", i), lambda i: f"{data.agent[i]} {unknown}")
    rows = np.bincount(data.agent, minlength=data.num_agents)
    lonely = "has no transition; log at least two steps, or leave the agent out"
    refuse(rows == 0, lambda i: place("names", i), lambda i: f"agent {data.names[i]!r} {lonely}")
    later, grows = np.diff(data.agent), np.diff(data.time) > 0
    text = "order rows by agent, then time, each time once"
    refuse(later < 0, lambda i: place("agent", i + 1), lambda i: f"out of order; {text}")
    refuse((later == 0) & ~grows, lambda i: place("time", i + 1), lambda i: f"time does not grow; {text}")
    states, actions = [f"state {n!r}" for n in data.state_names], [f"action {n!r}" for n in data.action_names]
    named = {"state": states, "action": actions, "reward": ["reward"], "next_state": states}
    for array, names in named.items():
        _check_finite(getattr(data, array), array, place, names)
    for name, values in (data.covariates or {}).items():
        _check_finite(values, f"covariate.{name}", place, [f"covariate {name!r}"])
    constant = (data.state == data.state[0]).all(axis=0) & (not held_out)
    text = f"in all {len(data)} rows; nothing can be learnt of it: leave it out, or check the recording"
    refuse(
        constant,
        lambda j: place("state", 0, j),
        lambda j: f"state {data.state_names[j]!r} is {data.state[0, j]:g} {text}",
    )
    if family is not None:
        check_family(data, family, place)


def _check_finite(values: np.ndarray, array: str, place: Place, names: list[str]) -> None:
    def what(row: int, column: int = 0) -> str:
        value = values[row, column] if values.ndim == 2 else values[row]
        kind = "is missing" if np.isnan(value) else f"is {value}, beyond 32 bits"
        return f"{names[column]} {kind}; give a finite number"

    refuse(~np.isfinite(values), lambda *index: place(array, *index), what)


def check_family(data: "Transitions", family: Any, place: Place) -> None:
    """Refuse transitions whose states, actions or covariates are not those of `family`."""
    size, given = family.observation_space.shape[0], data.state.shape[1]
    if given != size:
        raise fault(place("state"), f"{given} states, but the environment has {size}; give {size}")
    space = family.action_space
    if isinstance(space, Discrete) != data.discrete:
        kinds = ["vectors of real numbers", "whole numbers"]
        text = f"actions are {kinds[data.discrete]}, the environment's are {kinds[not data.discrete]}"
        raise fault(place("action"), f"{text}; give those")
    if not data.discrete and data.action.shape[1] != space.shape[0]:
        given, size = data.action.shape[1], space.shape[0]
        raise fault(place("action"), f"{given} actions, but the environment has {size}; give {size}")
    low, high = (0, space.n - 1) if data.discrete else (space.low, space.high)
    slack = 0 if data.discrete else 1e-5  # a bound written with few digits
    text = f"outside {np.min(low):g} to {np.max(high):g}, the environment's range; correct it"
    refuse(
        (data.action < low - slack) | (data.action > high + slack),
        lambda *index: place("action", *index),
        lambda *index: f"action {data.action[tuple(index)]} is {text}",
    )
    wanted = sorted(getattr(family, "covariates", ()))
    if data.covariates is not None and sorted(data.covariates) != wanted:
        text = f"covariates are {', '.join(data.covariates)}, the environment's {', '.join(wanted) or 'none'}"
        raise fault(place("covariates"), f"{text}; give those, or no column")
