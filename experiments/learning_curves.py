"""Draw the learning curves of runs:  python -m experiments.learning_curves OUT.png RUN [RUN ...]

A RUN is a run folder (metrics.csv) or a shipped example (curve.csv, which may be thinned). The return is that
of training, with actions sampled, as a moving mean over 10 rows; the table printed is in minutes of
collecting and updating.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from common.config import PICTURE, check_output
from common.errors import UserError
from common.evaluation import Row
from common.plots import curves_figure
from mpi_utils.comm import Comm, guard

WINDOW = 10
LEVELS = (140, 150, 155, 157, 157.3, 160)
PARTS_OF_TIME = ("collect", "update", "adapt", "cluster")


def main(comm: Comm) -> None:
    """Draw the figure and print the table."""
    if len(sys.argv) < 3:
        raise UserError("usage: python -m experiments.learning_curves OUT.png RUN [RUN ...]")
    check_output(sys.argv[1], sys.argv[1], PICTURE)
    curves = {}
    for run in map(Path, sys.argv[2:]):
        rows = read(run)
        minutes = np.array([float(row["minutes"]) for row in rows])
        mean = moving_mean(np.array([float(row["return"]) for row in rows]))
        curves[run.name] = (minutes, mean, np.zeros_like(mean))
        reached = {level: minutes[mean >= level] for level in LEVELS}
        text = ", ".join(
            f"{level}: {f'{at[0]:.1f} min' if len(at) else '-'}" for level, at in reached.items()
        )
        print(f"{run.name}: {text}; {minutes[-1]:.1f} min in all, last {mean[-1]:.1f}")
    curves_figure(sys.argv[1], curves, xlabel="minutes", ylabel="return in training", title="Learning curves")


def read(run: Path) -> list[Row]:
    """Rows `iteration, env_steps, minutes, return` of a run or of a shipped example."""
    if (run / "metrics.csv").exists():
        return learning_curve(run / "metrics.csv")
    try:
        with open(run / "curve.csv", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"{run}: has neither metrics.csv nor curve.csv ({error.strerror})") from error


def learning_curve(path: Path, column: str = "train/return") -> list[Row]:
    """Rows `iteration, env_steps, minutes` of work so far, and a column of metrics by its last name."""
    seconds, rows = 0.0, []
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            if column not in row and column != "train/return":
                raise UserError(f"{path}: has no column {column!r}; choose one of {', '.join(row)}")
            seconds += sum(float(row.get(f"time/{part}_s") or 0) for part in PARTS_OF_TIME)
            if not row.get(column):  # nothing to report yet, as before the first episode has ended
                continue
            rows.append(
                {
                    "iteration": int(row["iteration"]),
                    "env_steps": int(float(row.get("train/env_steps") or 0)),
                    "minutes": round(seconds / 60, 3),
                    column.split("/")[-1]: float(f"{float(row[column]):.6g}"),
                }
            )
    return rows


def thin(rows: list[Row], most: int) -> list[Row]:
    """At most `most` rows, evenly spaced, first and last among them."""
    if len(rows) <= most:
        return rows
    return [rows[i] for i in np.linspace(0, len(rows) - 1, most).round().astype(int)]


def moving_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the last `WINDOW` of the values [n] at each of them."""
    sums, end = np.cumsum([0.0, *values]), np.arange(1, len(values) + 1)
    start = np.maximum(end - WINDOW, 0)
    return (sums[end] - sums[start]) / (end - start)


if __name__ == "__main__":
    guard(main)
