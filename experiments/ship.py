"""Turn a finished run into a shipped example:  python -m experiments.ship RUN NAME

Copies what evaluation needs of the newest save (no optimiser, a third of the size), the settings and the
thinned learning curve to checkpoints/examples/NAME. Training cannot be continued from it.
"""

import sys
from pathlib import Path

from common.errors import UserError
from common.evaluation import as_csv
from common.runs import checkpoint
from common.runs.run_folder import write_config
from common.shipped import EXAMPLES, shipped
from experiments.learning_curves import learning_curve, thin
from mpi_utils.comm import Comm, guard

KEPT = (
    *("policy", "agents", "assignment"),  # of a population's run
    *("trajectories", "length", "agent", "pool", "support", "query", "env_steps"),  # of CAML's
    *("simulator", "sizes", "data"),  # of PerSim's
)
CURVES = {"persim": "train/loss"}
CURVE_ROWS = 200


def main(comm: Comm) -> None:
    """Run the command."""
    if len(sys.argv) != 3:
        raise UserError("usage: python -m experiments.ship RUN NAME")
    target = shipped(EXAMPLES) / sys.argv[2]
    print(f"{target}: iteration {ship(Path(sys.argv[1]), target)}")


def ship(run: Path, target: Path) -> int:
    """Copy a run's newest save to `target`, and return its iteration."""
    config, _, contents = checkpoint.find(run)
    step, state = checkpoint.unpack(contents)
    checkpoint.save(target, step, {name: state[name] for name in KEPT if name in state})
    write_config(target, {**config, "model_name": target.name, "checkpoint_dir": EXAMPLES})
    curve = learning_curve(run / "metrics.csv", CURVES.get(config["system"], "train/return"))
    (target / "curve.csv").write_text(as_csv(thin(curve, CURVE_ROWS)))
    return step


if __name__ == "__main__":
    guard(main)
