"""A table of logged steps, one row each, and the transitions that it holds."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from common.errors import UserError
from persim.data import clock
from persim.data.checks import check, fault, refuse
from persim.data.columns import Columns
from persim.data.form import Form
from persim.data.transitions import Transitions

MAX_ACTIONS = 1000  # more different whole numbers in a log of unknown kind are measurements
MAX_NAME = 100  # characters
SHOWN = 5  # names in a line
NO_LABEL = ("", "NA", "N/A", "NULL", "NAN")  # none is a category


@dataclasses.dataclass(frozen=True)
class Table:
    """R rows as read: `agent` [R] int64 indexes `names`; `values` maps columns of numbers to [R] float64.

    `time` [R] float64 is in seconds since 1970 where `dated`, else in the file's own unit; `episode` [R]
    numbers an agent's episodes by first appearance, None without such a column. `action_kind` is what the
    type of the first action column says, continuous or discrete, or "" where it does not say it; `categories`
    are the texts that are numbered there, None where there are numbers. A missing value is NaN. `place(row,
    column)` tells where a value stands in the file, or with row None the column's name.
    """

    path: str
    columns: Columns
    names: list[str]
    agent: np.ndarray
    time: np.ndarray
    dated: bool
    episode: np.ndarray | None
    values: dict[str, np.ndarray]
    action_kind: str
    categories: list[str] | None
    place: Callable[[int | None, str], str]


@dataclasses.dataclass(frozen=True)
class Steps:
    """N rows `used` that have a next state, by agent and time, the rows `following` [N] that hold it, and
    their numbers `time` [N]; a step takes `step`."""

    used: np.ndarray
    following: np.ndarray
    time: np.ndarray
    step: tuple[float, str]


def to_transitions(table: Table, family: Any = None, form: Form | None = None) -> Transitions:
    """The transitions of a table, checked by themselves and against `family`; see `persim.data.logs.read`."""
    form = form or Form()
    _check_names(table)
    tell_alike(table.path, table.names, form)
    table, labels = _labelled(table, form)
    steps = _steps(table, form)
    used, following, columns = steps.used, steps.following, table.columns

    def stack(names: list[str], rows: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # beyond 32 bits becomes infinite, and is refused as that
            return np.stack([table.values[name][rows].astype(np.float32) for name in names], axis=1)

    discrete = _is_discrete(table, used, family, form)
    if discrete:
        _check_actions(table, used, family)
    names, agent = table.names, table.agent[used]
    kept = np.arange(len(names))
    if form.held_out or form.gaps == "split":
        kept, agent = np.unique(agent, return_inverse=True)
        if not form.held_out and len(kept) < len(names):
            form.tell(f"{table.path}: {left_out(sorted({*names} - {names[i] for i in kept}))}")
        names = [names[i] for i in kept]
    first = np.unique(table.agent, return_index=True)[1][kept]
    origin = {
        "next_state": (following, columns.next_state or columns.state),
        "state": (used, columns.state),
        "action": (used, columns.action),
        "reward": (used, [columns.reward]),
        "time": (used, [columns.time]),
        "agent": (used, [columns.agent]),
        "names": (first, [columns.agent]),
        "covariates": (first, columns.covariate),
        **{f"covariate.{s}": (first, [c]) for c, s in _short(columns.covariate)},
    }

    def place(array: str, row: int | None = None, column: int = 0) -> str:
        rows, names = origin[array]
        return table.place(None if row is None else int(rows[row]), names[column])

    data = Transitions(
        names=names,
        agent=agent,
        time=steps.time,
        state=stack(columns.state, used),
        action=table.values[columns.action[0]][used].astype(np.int64)
        if discrete
        else stack(columns.action, used),
        reward=stack([columns.reward], used)[:, 0] if columns.reward else np.zeros(len(used), np.float32),
        next_state=stack(columns.next_state or columns.state, following),
        state_names=Columns.short(columns.state),
        action_names=Columns.short(columns.action),
        covariates={s: table.values[c][first] for c, s in _short(columns.covariate)} or None,
        action_labels=labels,
        step=steps.step,
    )
    check(data, place, family, form.held_out)
    _check_covariates(table)
    return data


def _short(names: list[str]) -> Iterator[tuple[str, str]]:
    return zip(names, Columns.short(names), strict=True)


def _check_names(table: Table) -> None:
    bad = np.array([not 0 < len(name) <= MAX_NAME for name in table.names])[table.agent]
    text = f"agent is missing or too long; give 1 to {MAX_NAME} characters"
    refuse(bad, lambda i: table.place(i, table.columns.agent), lambda i: text)


def _check_whole(table: Table, column: str, rows: np.ndarray, hint: str) -> None:
    values = table.values[column][rows]
    bad = ~(np.abs(values) < 2**53) | (values != np.floor(values))  # NaN is not below

    def what(i: int) -> str:
        kind = "is missing" if np.isnan(values[i]) else f"is {values[i]:g}, not a whole number"
        return f"{column} {kind}; {hint}"

    refuse(bad, lambda i: table.place(int(rows[i]), column), what)


def _check_actions(table: Table, used: np.ndarray, family: Any) -> None:
    """Refuse what is no number of an action; those of a family are checked against it."""
    column = table.columns.action[0]
    _check_whole(table, column, used, "give the number of the action")
    values, most = table.values[column][used], MAX_ACTIONS - 1
    refuse(
        ((values < 0) | (values > most)) & (family is None),
        lambda i: table.place(int(used[i]), column),
        lambda i: (
            f"{column} is {values[i]:.0f}, outside 0 to {most}; number actions from 0, or say "
            "--action_kind continuous"
        ),
    )


def _labelled(table: Table, form: Form) -> tuple[Table, list[str] | None]:
    """A table whose categories of actions are numbered by their labels, those of the run or in alphabetical
    order, and the labels; None where actions are numbers."""
    if table.categories is None:
        return table, None
    column, categories = table.columns.action[0], table.categories
    pairs = [(text, text.upper() in NO_LABEL) for text in categories]
    labels = form.labels or sorted(text for text, absent in pairs if not absent)
    shown = ", ".join(labels[:SHOWN]) + ", ..." * (len(labels) > SHOWN)
    codes = table.values[column].astype(np.int64)
    refuse(
        np.array([not absent and text not in labels for text, absent in pairs])[codes],
        lambda i: table.place(i, column),
        lambda i: f"{column} is {categories[codes[i]][:40]!r}; the run knows {shown}",
    )
    if not form.held_out:
        form.tell(f"{table.path}: {column} is one of {len(labels)} categories: {shown}")
    number = {label: i for i, label in enumerate(labels)}
    values = np.array([np.nan if absent else number[text] for text, absent in pairs])[codes]
    return dataclasses.replace(table, values={**table.values, column: values}), labels


def _steps(table: Table, form: Form) -> Steps:
    """Which rows follow one another; tells what was found out about the times."""
    columns = table.columns
    at_fault = ~np.isfinite(table.time)
    refuse(
        at_fault,
        lambda i: table.place(i, columns.time),
        lambda i: f"{columns.time} is missing; give the number of the step, or a moment",
    )
    time, unit, kind = table.time, "s" if table.dated else "", "ISO 8601" if table.dated else ""
    if not table.dated and (scale := clock.epoch(time)):
        time, unit, kind = time / clock.EPOCHS[scale], "s", f"{scale} since 1970"
    keys = (table.agent,) if table.episode is None else (table.episode, table.agent)
    order = np.lexsort((time, *keys))
    agent, time = table.agent[order], time[order]
    same = agent[1:] == agent[:-1]
    within = same if table.episode is None else same & (np.diff(table.episode[order]) == 0)
    difference = np.diff(time)

    def name(i: int) -> str:
        return repr(table.names[agent[i]])

    def at(i: int) -> str:
        return table.place(int(order[i + 1]), columns.time)

    def when(i: int) -> str:
        return f"{table.time[order[i]]:.15g}" if not table.dated else f"{np.datetime64(round(time[i]), 's')}"

    text = "more than once; keep one row for each step"
    text += "" if columns.episode else ", or add a column `episode` where times start anew"
    refuse(within & (difference == 0), at, lambda i: f"agent {name(i)} has time {when(i)} {text}")

    given = form.step[0] if form.step and form.step[1] == unit else None
    usual = clock.usual_step(difference[within])
    step = given or usual
    follows = within & clock.is_step(difference, step)
    if columns.next_state:
        follows = within & _continued(table, order)
    tell_time(table, form, kind, (step, unit), order, within & ~follows)
    acted = np.ones(len(order), bool)
    if form.gaps == "split":
        seen, acted = (whole[order] for whole in _whole(table))
        _tell_missing(table, form, int((~acted).sum()))
        follows = follows & acted[:-1] & seen[1:]
    number = clock.numbered(agent, np.floor(time) if not unit else 0 * time, difference / step, follows)
    if columns.next_state:
        return Steps(order[acted], order[acted], number[acted], (step, unit))
    if given and within.any() and not follows.any():
        raise fault(
            table.place(None, columns.time),
            f"no two rows of an agent are a step of the run, {clock.spelled(given, unit)}, apart; most are "
            f"{clock.spelled(usual, unit)}; give times in the unit of the run's log",
        )
    if not form.held_out and form.gaps == "refuse":
        _check_alone(table, order, agent, follows, clock.spelled(step, unit))
    return Steps(order[:-1][follows], order[1:][follows], number[:-1][follows], (step, unit))


def _continued(table: Table, order: np.ndarray) -> np.ndarray:
    """Whether the next states of ordered rows are the states of the rows behind them."""
    pairs = zip(table.columns.next_state, table.columns.state, strict=True)
    values = table.values
    return np.all(
        [values[a][order[:-1]].astype("f4") == values[b][order[1:]].astype("f4") for a, b in pairs], axis=0
    )


def _whole(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Whether rows [R] have a state, and whether they have all that a step has, too."""
    columns, values = table.columns, table.values

    def present(names: list[str]) -> np.ndarray:
        return np.logical_and.reduce([~np.isnan(values[name]) for name in names])

    rewards = [columns.reward] if columns.reward else []
    seen = present(columns.state)
    return seen, seen & present([*columns.action, *columns.next_state, *rewards])


def _tell_missing(table: Table, form: Form, count: int) -> None:
    """Tell how many rows are no whole steps."""
    if count:
        rows = "rows that lack a value end windows" if count > 1 else "row that lacks a value ends a window"
        form.tell(f"{table.path}: {count} {rows}")


def left_out(names: list[str], steps: int = 1) -> str:
    """That agents of these names are left out, as they have not so many steps in a row."""
    shown = ", ".join(map(repr, names[:SHOWN])) + ", ..." * (len(names) > SHOWN)
    many, rows = "s" * (len(names) > 1), f"{steps} steps in a row" if steps > 1 else "a whole step"
    return f"{len(names)} agent{many} without {rows} left out: {shown}"


def _check_alone(table: Table, order: np.ndarray, agent: np.ndarray, follows: np.ndarray, step: str) -> None:
    """Refuse agents without two rows in a row."""
    rows = np.bincount(table.agent, minlength=len(table.names))
    pairs = np.bincount(agent[1:], follows, minlength=len(table.names))
    text = "log at least two steps, or leave the agent out"

    def what(i: int) -> str:
        own = "a single row" if rows[agent[i]] == 1 else f"no two rows that are {step} apart"
        return f"agent {table.names[agent[i]]!r} has {own} and so no transition; {text}"

    refuse(pairs[agent] == 0, lambda i: table.place(int(order[i]), table.columns.agent), what)


def tell_time(
    table: Table, form: Form, kind: str, step: tuple[float, str], order: np.ndarray, gaps: np.ndarray
) -> None:
    """Tell the unit of time, the step, gaps and rows that were sorted, where there is anything to tell."""
    told = [f"a step is {clock.spelled(*step)}"] if kind or step[0] != 1 else []
    if kind and told:
        told = [f"{kind}, {told[0]}"]
    if count := int(gaps.sum()):
        told.append(f"{count} gap{'s' * (count > 1)} end windows")
    if table.episode is not None:
        pairs = table.agent * (table.episode.max() + 1) + table.episode
        told.append(f"{len(np.unique(pairs))} episodes of {len(table.names)} agents")
    # Rows of an agent that stand before earlier ones of it; agents may be mixed as they like.
    if (np.diff(order)[(np.diff(table.agent[order]) == 0)] < 0).any():
        told.append("rows were not in the order of time and are sorted")
    if told:
        form.tell(f"{table.path}: {table.columns.time}: {'; '.join(told)}")


def tell_alike(path: str, names: list[str], form: Form) -> None:
    """Warn of agents of one log whose names differ only in spelling."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(plain(name), []).append(name)
    pairs = [f"{own[0]!r} and {own[1]!r}" for own in found.values() if len(own) > 1]
    if pairs:
        more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
        form.tell(
            f"warning: {path}: agents {', '.join(pairs[:SHOWN])}{more} differ only in spelling and are taken "
            "for different agents; spell one agent's name alike"
        )


def plain(name: str) -> str:
    """A name without what spelling adds: case, blanks, signs, zeros in front, a whole number's .0."""
    name = re.sub(r"^(\d+)\.0+$", r"\1", name.strip())
    name = re.sub(r"[\W_]+", "", name.casefold())
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


def _is_discrete(table: Table, used: np.ndarray, family: Any, form: Form) -> bool:
    """The family's kind of action, or the given one, or that of the column's type; nothing is guessed."""
    columns = table.columns
    if form.action_kind == "discrete" and len(columns.action) > 1:
        raise UserError(
            f"--action_kind discrete: {table.path} has the action columns {', '.join(columns.action)}; one "
            "column numbers discrete actions"
        )
    if form.action_kind != "auto":
        return form.action_kind == "discrete"
    if len(columns.action) > 1:
        return False
    if family is not None:
        return isinstance(family.action_space, Discrete)
    column = columns.action[0]
    if not table.action_kind:
        text = f"{column} holds whole numbers, which may be quantities or categories"
        raise fault(
            table.place(None, column), f"{text}; say --action_kind continuous or --action_kind discrete"
        )
    values = table.values[column][used]
    if table.action_kind == "continuous" and len(values) and (values == np.floor(values)).all():
        form.tell(
            f"{table.path}: {column} is taken for a quantity, by type; if it is one of several choices: "
            "--action_kind discrete"
        )
    elif table.action_kind == "discrete" and table.categories is None:
        form.tell(
            f"{table.path}: {column} is taken for one of several choices, by type; if it is a quantity: "
            "--action_kind continuous"
        )
    return table.action_kind == "discrete"


def _check_covariates(table: Table) -> None:
    first = np.unique(table.agent, return_index=True)[1]
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
