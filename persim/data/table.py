"""A table of logged steps, one row each, and the transitions that it holds."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from persim.data.checks import check, refuse
from persim.data.columns import Columns
from persim.data.transitions import Transitions

MAX_ACTIONS = 1000  # more different whole numbers in a log of unknown kind are measurements
MAX_NAME = 100  # characters


@dataclasses.dataclass(frozen=True)
class Table:
    """R rows as read: `agent` [R] int64 indexes `names`; `values` maps every other column to [R] float64.

    A missing value is NaN. `place(row, column)` tells where a value stands in the file, or with row None the
    column's name.
    """

    columns: Columns
    names: list[str]
    agent: np.ndarray
    values: dict[str, np.ndarray]
    place: Callable[[int | None, str], str]


def to_transitions(table: Table, family: Any = None) -> Transitions:
    """The transitions of a table, checked by themselves and against `family`; see `persim.data.logs.read`."""
    _check_names(table)
    _check_whole(table, "time", np.arange(len(table.agent)), "give the number of the step")
    order = np.lexsort((table.values["time"], table.agent))
    used, following = _steps(table, order)
    columns = table.columns

    def stack(names: list[str], rows: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # beyond 32 bits becomes infinite, and is refused as that
            return np.stack([table.values[name][rows].astype(np.float32) for name in names], axis=1)

    discrete = _is_discrete(table, used, family)
    if discrete:
        _check_whole(table, columns.action[0], used, "give the number of the action")
    first = np.unique(table.agent, return_index=True)[1]
    origin = {
        "next_state": (following, columns.next_state or columns.state),
        "state": (used, columns.state),
        "action": (used, columns.action),
        "reward": (used, ["reward"]),
        "time": (used, ["time"]),
        "agent": (used, ["agent"]),
        "names": (first, ["agent"]),
        "covariates": (first, columns.covariate),
        **{f"covariate.{s}": (first, [c]) for c, s in _short(columns.covariate)},
    }

    def place(array: str, row: int | None = None, column: int = 0) -> str:
        rows, names = origin[array]
        return table.place(None if row is None else int(rows[row]), names[column])

    data = Transitions(
        names=table.names,
        agent=table.agent[used],
        time=table.values["time"][used].astype(np.int64),
        state=stack(columns.state, used),
        action=table.values[columns.action[0]][used].astype(np.int64)
        if discrete
        else stack(columns.action, used),
        reward=stack(["reward"], used)[:, 0],
        next_state=stack(columns.next_state or columns.state, following),
        state_names=Columns.short(columns.state),
        action_names=Columns.short(columns.action),
        covariates={s: table.values[c][first] for c, s in _short(columns.covariate)} or None,
    )
    check(data, place, family)
    _check_covariates(table, first)
    return data


def _short(names: list[str]) -> Iterator[tuple[str, str]]:
    return zip(names, Columns.short(names), strict=True)


def _check_names(table: Table) -> None:
    bad = np.array([not 0 < len(name) <= MAX_NAME for name in table.names])[table.agent]
    text = f"agent is missing or too long; give 1 to {MAX_NAME} characters"
    refuse(bad, lambda i: table.place(i, "agent"), lambda i: text)


def _check_whole(table: Table, column: str, rows: np.ndarray, hint: str) -> None:
    values = table.values[column][rows]
    bad = ~(np.abs(values) < 2**53) | (values != np.floor(values))  # NaN is not below

    def what(i: int) -> str:
        kind = "is missing" if np.isnan(values[i]) else f"is {values[i]:g}, not a whole number"
        return f"{column} {kind}; {hint}"

    refuse(bad, lambda i: table.place(int(rows[i]), column), what)


def _steps(table: Table, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows [N] that have a next state, ordered by agent and time, and the rows [N] that hold it."""
    agent, time, columns = table.agent[order], table.values["time"][order], table.columns
    same, step = agent[1:] == agent[:-1], np.diff(time)

    def name(i: int) -> str:
        return repr(table.names[agent[i]])

    def at(i: int) -> str:
        return table.place(int(order[i + 1]), "time")

    text = "more than once; keep one row for each step"
    refuse(same & (step == 0), at, lambda i: f"agent {name(i)} has time {time[i]:.0f} {text}")
    if columns.next_state:
        return order, order
    text = "log every step, or add columns next_state"
    refuse(
        same & (step != 1),
        at,
        lambda i: f"agent {name(i)} goes from time {time[i]:.0f} to {time[i + 1]:.0f}; {text}",
    )
    rows = np.bincount(table.agent, minlength=len(table.names))
    text = "log at least two steps, or leave the agent out"
    refuse(
        rows[agent] == 1,
        lambda i: table.place(int(order[i]), "agent"),
        lambda i: f"agent {name(i)} has a single row and so no transition; {text}",
    )
    return order[:-1][same], order[1:][same]


def _is_discrete(table: Table, used: np.ndarray, family: Any) -> bool:
    """The family's kind of action; without one, a single column of whole numbers from 0 is discrete."""
    if len(table.columns.action) > 1:
        return False
    if family is not None:
        return isinstance(family.action_space, Discrete)
    values = table.values[table.columns.action[0]][used]
    return bool(((values >= 0) & (values < MAX_ACTIONS) & (values == np.floor(values))).all())


def _check_covariates(table: Table, first: np.ndarray) -> None:
    for column in table.columns.covariate:
        values, own = table.values[column], table.values[column][first]
        refuse(
            values != own[table.agent],
            lambda i, column=column: table.place(i, column),
            lambda i, column=column, values=values, own=own: (
                f"{column} of agent {table.names[table.agent[i]]!r} is {values[i]:g} after "
                f"{own[table.agent[i]]:g}; give one value an agent"
            ),
        )
