"""Turn a finished run into a shipped example:  python -m experiments.ship RUN NAME

Copies what evaluation needs of the newest save (no optimiser, a third of the size), the settings and the
thinned learning curve to checkpoints/examples/NAME. Training cannot be continued from it.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.runs import checkpoint, run_folder
from mpi_utils.comm import guard

EXAMPLES = Path(__file__).parent.parent / "checkpoints" / "examples"
KEPT = ("policy", "agents", "assignment")  # of a population's run
KEPT += ("trajectories", "length", "agent", "pool", "support", "query", "env_steps")  # of CAML's
KEPT += ("simulator", "sizes", "data")  # of PerSim's
PARTS_OF_TIME = ("collect", "update", "adapt", "cluster")
CURVES = {"persim": "train/loss"}
CURVE_ROWS = 200


def main(comm) -> None:
    if len(sys.argv) != 3:
        raise UserError("usage: python -m experiments.ship RUN NAME")
    target = EXAMPLES / sys.argv[2]
    print(f"{target}: iteration {ship(Path(sys.argv[1]), target)}")


def ship(run: Path, target: Path) -> int:
    """Copy a run's newest save to `target`, and return its iteration."""
    path, _ = checkpoint.newest_valid(run)
    if path is None:
        raise UserError(f"{run}: holds no valid save")
    step, state = checkpoint.load(path)
    checkpoint.save(target, step, {name: state[name] for name in KEPT if name in state})
    config = run_folder.read_config(run)
    here = {"model_name": target.name, "checkpoint_dir": "checkpoints/examples"}
    run_folder.write_config(target, config | here)
    column = CURVES.get(config["system"], "train/return")
    with open(target / "curve.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["iteration", "env_steps", "minutes", column.split("/")[1]])
        writer.writerows(thin(list(learning_curve(run / "metrics.csv", column)), CURVE_ROWS))
    return step


def learning_curve(path: Path, column: str = "train/return"):
    """Rows (iteration, environment steps, minutes of work so far, a column of metrics)."""
    seconds = 0.0
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            if column not in row:
                raise UserError(f"{path}: has no column {column!r}; choose one of {', '.join(row)}")
            seconds += sum(float(row.get(f"time/{part}_s") or 0) for part in PARTS_OF_TIME)
            steps = int(float(row.get("train/env_steps") or 0))
            yield int(row["iteration"]), steps, round(seconds / 60, 3), float(f"{float(row[column]):.6g}")


def thin(rows: list, most: int) -> list:
    """At most `most` rows, evenly spaced, first and last among them."""
    if len(rows) <= most:
        return rows
    return [rows[i] for i in np.linspace(0, len(rows) - 1, most).round().astype(int)]


if __name__ == "__main__":
    guard(main)
