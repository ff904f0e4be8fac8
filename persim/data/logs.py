"""Logs of real agents, read and checked, as transitions."""

from pathlib import Path
from typing import Any

from persim.data.checks import fault
from persim.data.csv_log import read_csv
from persim.data.minari_log import read_minari
from persim.data.parquet_log import read_parquet
from persim.data.table import to_transitions
from persim.data.transitions import Transitions


def read(path: str | Path, family: Any = None) -> Transitions:
    """The transitions in a .csv, .parquet or .npz file, or in the folder of a Minari dataset.

    A table has one row for each step of each agent, in any order: `agent` (text or a whole number), `time`
    (the step's number), `reward`, columns whose names start with `state` and with `action`, and optionally
    one `next_state...` for each `state...`, and `covariate...` (one value an agent). Without next states
    these are in the agent's row of time + 1; then there must be no gap, and the last row of a trajectory
    gives its state only. Agents are numbered by first appearance. A .npz is what `Transitions.save` wrote.

    With a `family` (of `envs`) its number of states, its actions and covariates must be the log's; without,
    one action column of whole numbers from 0 means discrete actions. A state that never changes is refused:
    nothing can be learnt of it. Every fault raises `UserError` with one line, `file:line:column: what; what
    to do`, columns counted by commas (`file:array:index` where there are no lines).
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        if path.is_dir():
            return read_minari(path, family)
        if not path.is_file():  # a pipe would make us wait
            raise fault(str(path), "no such file; check the path")
        if suffix == ".npz":
            return Transitions.load(path, family)
        if suffix in (".csv", ".parquet"):
            return to_transitions((read_csv if suffix == ".csv" else read_parquet)(path, family), family)
    except OSError as error:
        raise fault(str(path), f"cannot be read ({error.strerror or error}); check the path") from None
    raise fault(str(path), "unknown kind of file; give .csv, .parquet, .npz or a folder of Minari")
