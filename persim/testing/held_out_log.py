"""Predictions held against a log that was not trained on: all that a real population can be tested by."""

import dataclasses
import difflib
from typing import Any

import numpy as np

from common.errors import UserError
from common.evaluation import Row
from persim import new_agents
from persim.config import Config
from persim.data.form import Form
from persim.data.logs import read
from persim.data.table import SHOWN, plain
from persim.data.transitions import Transitions
from persim.history import with_history
from persim.learned_reward import NAME, with_reward
from persim.limits import walls_in
from persim.simulator import Simulator
from persim.testing import prediction, report, trust

SHORTEST = 2  # steps of a window; one has no spread that a fit could explain


def evaluate(
    path: str,
    data: dict[str, Any],
    simulator: Simulator,
    config: Config,
    num_trajectories: int,
    num_observed: int,
    names: str = "",
    form: Form | None = None,
) -> list[Row]:
    """Rows on each agent of the log at `path`: the next states, from every window's first state on.

    `data` is what the run's save says of what it learnt from. Agents that the run knows, by name, have their
    simulators (method `persim`, or `pooled`); the others have factors from their first `num_observed` steps
    (`from_steps`), and are tested on what follows. At most `num_trajectories` windows of each count.
    `names`, with commas between, are those of the agents to test (default: all). The log is read as the run's
    own was, in `form`'s columns where it gives any.
    """
    log, whole = read_held_out(path, data, simulator, config, form or Form(), names)
    pooled, number = config.pooled, {name: i for i, name in enumerate(data["names"])}
    known = np.array([name in number for name in log.names])
    groups = {"pooled" if pooled else "persim": (known, 0)}
    if not pooled:
        groups["from_steps"] = (~known, num_observed)
    rows = []
    for method, (agents_of, skip) in groups.items():
        found = {int(i): own for i in np.flatnonzero(agents_of) if (own := spans(whole, int(i), skip))}
        if not found:
            continue
        agents = list(found)
        if method == "from_steps":
            factor = new_agents.from_steps(simulator, *new_agents.first_steps(whole, skip, agents))
            models = simulator.at(factor=factor)
        else:
            models = simulator.at([0 if pooled else number[log.names[i]] for i in agents])
        task = windows(whole, [own[:num_trajectories] for own in found.values()])
        labels = [log.names[i] for i in agents]
        predicted, variance = prediction.forecast(models, task)
        judged, begins = trust.judge(task, predicted, variance, data), np.zeros(task.counts.shape[:2], int)
        for a, own in enumerate(found.values()):
            begins[a, : min(len(own), num_trajectories)] = [
                whole.time[first] for first, _ in own[:num_trajectories]
            ]
        size = simulator.target_size - config.learn_reward
        task, predicted, variance = prediction.only(size, task, predicted, variance)
        make_rows = report.Rows(path, method)
        rows += make_rows.predictions(labels, task, predicted)
        rows += trust.rows(make_rows, labels, judged, walls_in(data), task, predicted, variance, begins)
    if not rows:
        raise UserError(
            f"--log {path}: no agent has {SHORTEST} steps in a row to be predicted"
            + ("" if pooled else f" (of agents that the run does not know, after {num_observed})")
        )
    return rows


def read_held_out(
    path: str, data: dict[str, Any], simulator: Simulator, config: Config, form: Form, names: str
) -> tuple[Transitions, Transitions]:
    """The log at `path` as it is, and with the states of the simulator; see `evaluate`."""
    step = data.get("step")  # saves of before do not say it
    form = dataclasses.replace(
        form,
        columns=form.columns or config.columns,
        decimal=form.decimal or config.decimal,
        action_kind="discrete" if simulator.num_actions else "continuous",
        labels=data.get("action_labels"),
        step=(float(step[0]), str(step[1])) if step else None,
        held_out=True,
        shortest=config.history,
    )
    log = chosen(path, read(path, form=form), names)
    whole = with_reward(log) if config.learn_reward else log
    check_same(path, whole, data, simulator)
    whole = with_history(whole, simulator.history)
    tell_known(path, log.names, list(data["names"]), form)
    return log, whole


def chosen(path: str, log: Transitions, agents: str) -> Transitions:
    """What the agents of these names did; all if none are named."""
    if not agents:
        return log
    names = [name.strip() for name in agents.split(",")]
    if missing := [name for name in names if name not in log.names]:
        near = difflib.get_close_matches(missing[0], log.names, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"--agents {agents}: {path} has no agent {missing[0]!r}{hint}")
    return log.of([log.names.index(name) for name in dict.fromkeys(names)])


def tell_known(path: str, names: list[str], trained: list[str], form: Form) -> None:
    """Tell how many of `names` the run trained on; warn of those that differ from its own by spelling."""
    known = set(trained)
    new = [name for name in names if name not in known]
    shown = f" ({', '.join(new[:SHOWN])}{', ...' * (len(new) > SHOWN)})" if new else ""
    form.tell(f"{path}: {len(names) - len(new)} agents that the run knows, {len(new)} new{shown}")
    alike = {plain(name): name for name in trained}
    pairs = [f"{name!r} is {alike[plain(name)]!r} there" for name in new if plain(name) in alike]
    if pairs:
        more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
        form.tell(
            f"warning: {path}: {len(pairs)} of the new agents have names that differ from the run's only "
            f"in spelling ({', '.join(pairs[:SHOWN])}{more}); spell them as the run does if they are the same"
        )


def check_same(path: str, log: Transitions, data: dict[str, Any], simulator: Simulator) -> None:
    """Refuse a log whose states and actions are not those that the run learnt from."""
    for name in ("state_names", "action_names"):
        given, wanted = getattr(log, name), list(data[name])
        if name == "state_names" and simulator.history:
            wanted = wanted[: simulator.history.size]
        if given != wanted:
            what = name.removesuffix("_names")
            raise UserError(
                f"--log {path}: has the {what} columns {', '.join(given)}, the run has {', '.join(wanted)}; "
                "give those, in that order"
            )
    if log.action_labels != (labels := data.get("action_labels")):
        told = [", ".join(own) if own else "numbers" for own in (log.action_labels, labels)]
        raise UserError(f"--log {path}: actions are {told[0]}, the run's {told[1]}; give those")
    if log.discrete != bool(simulator.num_actions):
        kinds = ("vectors of real numbers", "whole numbers")
        raise UserError(
            f"--log {path}: actions are {kinds[log.discrete]}, the run's {kinds[not log.discrete]}; "
            "correct it"
        )
    if log.discrete and log.action.max() >= simulator.num_actions:
        raise UserError(
            f"--log {path}: action {log.action.max()} is outside 0 to {simulator.num_actions - 1}, which the "
            "run knows; correct it"
        )


def spans(log: Transitions, agent: int, skip: int) -> list[tuple[int, int]]:
    """Rows [first, end) of an agent's windows of up to `NUM_STEPS` steps, after its first `skip` steps.

    Windows follow one another; a gap in time, or a jump of the state, begins a new one.
    """
    first, end = np.searchsorted(log.agent, [agent, agent + 1])
    rows = np.arange(min(first + skip, end), end)
    seen = [i for i, name in enumerate(log.state_names) if name != NAME]
    same = (log.next_state[rows[:-1]] == log.state[rows[1:]])[:, seen].all(1)
    follows = (np.diff(log.time[rows]) == 1) & same
    pieces = np.split(rows, np.flatnonzero(~follows) + 1)
    length = prediction.NUM_STEPS
    cut = [piece[at : at + length] for piece in pieces for at in range(0, len(piece), length)]
    return [(int(own[0]), int(own[-1]) + 1) for own in cut if len(own) >= SHORTEST]


def windows(log: Transitions, found: list[list[tuple[int, int]]]) -> prediction.PredictionTask:
    """The windows `found` of each of A agents, as what predictions are held against."""
    A, C, T = len(found), max(map(len, found)), prediction.NUM_STEPS
    states = np.zeros((A, C, T + 1, log.state.shape[1]))
    actions = np.zeros((A, C, T, *log.action.shape[1:]), log.action.dtype)
    counts = np.zeros((A, C, T), bool)
    for a, own in enumerate(found):
        for c, (first, end) in enumerate(own):
            length = end - first
            states[a, c, :length] = log.state[first:end]
            states[a, c, length:] = log.next_state[end - 1]
            actions[a, c, :length] = log.action[first:end]
            counts[a, c, :length] = True
    return prediction.PredictionTask({}, states, actions, counts)
