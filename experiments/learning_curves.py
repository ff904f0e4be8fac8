"""Draw the learning curves of runs:  python -m experiments.learning_curves OUT.png RUN [RUN ...]

A RUN is a run folder (metrics.csv) or a shipped example (curve.csv, which may be thinned). The return is that
of training, with actions sampled, as a moving mean over 10 rows; the table printed is in minutes of
collecting and updating.
"""

import csv
import sys
from pathlib import Path

import numpy as np

from common.errors import UserError
from common.plots import curves_figure
from experiments.ship import learning_curve
from mpi_utils.comm import guard

WINDOW = 10
LEVELS = (140, 150, 155, 157, 157.3, 160)


def main(comm) -> None:
    if len(sys.argv) < 3:
        raise UserError("usage: python -m experiments.learning_curves OUT.png RUN [RUN ...]")
    curves = {}
    for run in map(Path, sys.argv[2:]):
        minutes, mean = smooth(np.array(read(run)))
        curves[run.name] = (minutes, mean, np.zeros_like(mean))
        reached = {level: minutes[mean >= level] for level in LEVELS}
        told = ", ".join(
            f"{level}: {f'{at[0]:.1f} min' if len(at) else '-'}" for level, at in reached.items()
        )
        print(f"{run.name}: {told}; {minutes[-1]:.1f} min in all, last {mean[-1]:.1f}")
    curves_figure(sys.argv[1], curves, xlabel="minutes", ylabel="return in training", title="Learning curves")


def read(run: Path) -> list[tuple[float, ...]]:
    """Rows (iteration, environment steps, minutes, return)."""
    if (run / "metrics.csv").exists():
        return list(learning_curve(run / "metrics.csv"))
    try:
        with open(run / "curve.csv", newline="") as file:
            return [tuple(map(float, row.values())) for row in csv.DictReader(file)]
    except OSError as error:
        raise UserError(f"{run}: has neither metrics.csv nor curve.csv ({error.strerror})") from error


def smooth(rows: np.ndarray):
    """Minutes and the mean of the last `WINDOW` returns, one entry a row."""
    minutes, returns = rows[:, 2], rows[:, 3]
    sums = np.cumsum(np.concatenate([np.zeros(1), returns]))
    start = np.maximum(np.arange(1, len(returns) + 1) - WINDOW, 0)
    return minutes, (sums[1:] - sums[start]) / (np.arange(1, len(returns) + 1) - start)


if __name__ == "__main__":
    guard(main)
