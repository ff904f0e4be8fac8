"""Turn a finished run into a shipped example:  python -m benchmarks.ship RUN NAME

Copies the policy of the newest save (no optimiser, a third of the size), the settings and the learning curve
to checkpoints/examples/NAME. Evaluation needs no more; training cannot be continued from it.
"""

import csv
import sys
from pathlib import Path

from mpi_utils import checkpoint
from mpi_utils.comm import InputError, guard

EXAMPLES = Path(__file__).parent.parent / "checkpoints" / "examples"


def main(comm) -> None:
    if len(sys.argv) != 3:
        raise InputError("usage: python -m benchmarks.ship RUN NAME")
    run, target = Path(sys.argv[1]), EXAMPLES / sys.argv[2]
    path, _ = checkpoint.newest_valid(run)
    if path is None:
        raise InputError(f"{run}: holds no valid save")
    step, state = checkpoint.load(path)
    checkpoint.save(target, step, {"policy": state["policy"]})
    config = checkpoint.read_config(run)
    checkpoint.write_config(target, config | {"model_name": sys.argv[2]})
    with open(target / "curve.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["iteration", "env_steps", "minutes", "return"])
        writer.writerows(learning_curve(run / "metrics.csv"))
    print(f"{target}: iteration {step}")


def learning_curve(path: Path):
    """Rows (iteration, environment steps, minutes of collecting and updating so far, training return)."""
    seconds = 0.0
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            seconds += float(row["time/collect_s"]) + float(row["time/update_s"])
            steps = int(float(row["train/env_steps"]))
            yield int(row["iteration"]), steps, round(seconds / 60, 3), round(float(row["train/return"]), 3)


if __name__ == "__main__":
    guard(main)
