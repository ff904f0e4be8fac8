"""Logs of real agents, read and checked, as transitions."""

from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from persim.data.checks import fault
from persim.data.csv_log import read_csv
from persim.data.form import Form
from persim.data.minari_log import read_minari
from persim.data.parquet_log import parquet_files, read_parquet
from persim.data.table import left_out, to_transitions
from persim.data.transitions import Transitions


def read(path: str | Path, family: Any = None, form: Form | None = None) -> Transitions:
    """The transitions in a .csv (.csv.gz), .parquet or .npz file, a folder of Parquet or a Minari dataset.

    A table has one row for each step of each agent, in any order: `agent` (text or a whole number), `time`
    (the step's number, or a moment in ISO 8601 or since 1970), `reward`, columns whose names start with
    `state` and with `action`, and optionally `episode`, one `next_state...` for each `state...`, and
    `covariate...` (one value an agent). `form.columns` says which columns are these where they have other
    names. Without next states these are in the agent's row a step later, the usual time between two rows; a
    row without one behind it gives its state only. Agents are numbered by first appearance. A .npz is what
    `Transitions.save` wrote.

    With a `family` (of `envs`) its number of states, its actions and covariates must be the log's; without,
    `form.action_kind` says whether an action is discrete, or its type: text, or whole numbers of Parquet; a
    CSV of whole numbers does not say it and is refused. A state that never changes is refused, as nothing can
    be learnt of it, unless the log is held out.
    Every fault raises `UserError` with one line, `file:line:column: what; what to do`, columns counted by
    separators (`file:array:index` where there are no lines).
    """
    path, form = Path(path), form or Form()
    data = _read(path, family, form)
    return _long_enough(path, data, form) if form.shortest > 1 else data


def _read(path: Path, family: Any, form: Form) -> Transitions:
    """The transitions at a path, by its kind."""
    name = path.name.lower()
    try:
        if path.is_dir() and parquet_files(path):
            return to_transitions(read_parquet(path, family, form), family, form)
        if not path.is_dir() and not path.is_file():  # a pipe would make us wait
            raise fault(str(path), "no such file; check the path")
        if path.is_dir() or name.endswith(".npz"):
            return _as_said(path, (read_minari if path.is_dir() else Transitions.load)(path, family), form)
        if name.endswith((".csv", ".csv.gz")):
            return to_transitions(read_csv(path, family, form), family, form)
        if name.endswith(".parquet"):
            return to_transitions(read_parquet(path, family, form), family, form)
    except OSError as error:
        raise fault(str(path), f"cannot be read ({error.strerror or error}); check the path") from None
    raise fault(
        str(path), "unknown kind of file; give .csv, .csv.gz, .parquet, .npz or a folder of Parquet or Minari"
    )


def _long_enough(path: Path, data: Transitions, form: Form) -> Transitions:
    """The agents that somewhere have `form.shortest` steps in a row; others are refused or left out."""
    length = np.arange(len(data)) - data.starts() + 1
    longest = np.zeros(data.num_agents, int)
    np.maximum.at(longest, data.agent, length)
    short = np.flatnonzero(longest < form.shortest)
    if not len(short):
        return data
    names = [data.names[i] for i in short]
    text = f"{form.shortest} steps in a row, as many as --history has observations"
    if len(short) == data.num_agents:
        raise fault(str(path), f"no agent has {text}; give a smaller --history")
    if form.gaps == "refuse" and not form.held_out:
        raise fault(str(path), f"agent {names[0]!r} does not have {text}; leave it out, or say --gaps split")
    form.tell(f"{path}: {left_out(names, form.shortest)}")
    return data.of(np.flatnonzero(longest >= form.shortest))


def _as_said(path: Path, data: Transitions, form: Form) -> Transitions:
    """Data that say themselves what they are; flags that say otherwise are refused."""
    kinds = ("continuous", "discrete")
    if form.action_kind not in ("auto", kinds[data.discrete]) and not form.held_out:
        raise UserError(f"--action_kind {form.action_kind}: the actions of {path} are {kinds[data.discrete]}")
    for flag in ("columns", "decimal"):
        if getattr(form, flag) and not form.held_out:
            raise UserError(f"--{flag}: {path} is no table; leave the flag out")
    if form.gaps == "split" and not form.held_out:
        raise UserError(f"--gaps split: {path} is no table; leave the flag out")
    return data
