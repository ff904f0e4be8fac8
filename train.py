"""Train one of the systems:  mpirun -np N python -m train [rl2] [flags]

The same command again resumes from the newest valid save in <checkpoint_dir>/<model_name>/. Sizes are global:
more ranks change the speed, not the experiment.
"""

import dataclasses
import importlib
import sys
from pathlib import Path

from common.allocator import keep_freed_memory
from mpi_utils import checkpoint, loop
from mpi_utils.comm import InputError, guard, set_threads

SYSTEMS = ("rl2",)
# A run folder may be moved; the rest shapes no result.
MAY_CHANGE = ("max_pol_iters", "checkpoint_interval", "checkpoint_dir", "model_name", "device")


def main(comm) -> None:
    """Parse, check and lock the run folder, build the learner, resume, train: every check before any work."""
    with comm.agree():
        name, config = parse_arguments(comm)
    run_dir = Path(config.checkpoint_dir) / config.model_name
    description = {"algorithm": name} | dataclasses.asdict(config)
    with comm.agree():
        held = claim(run_dir, description) if comm.is_root else None
    set_threads(comm)
    keep_freed_memory()
    learner = importlib.import_module(f"{name}.learner").Learner(config, comm)
    loop.run(
        learner,
        comm,
        run_dir,
        iterations=config.max_pol_iters,
        checkpoint_interval=config.checkpoint_interval,
    )
    if held:
        held.release()


def parse_arguments(comm):
    """The system's name and its checked configuration; only rank 0 prints a help text."""
    from common.config import parse

    modules = {name: importlib.import_module(f"{name}.config") for name in SYSTEMS}
    commands = {name: module.Config for name, module in modules.items()}
    name, config = parse(commands, "rl2", sys.argv[1:], "python -m train", __doc__, show=comm.is_root)
    modules[name].check_config(config)
    return name, config


def claim(run_dir: Path, description: dict):
    """Lock the run folder for this process; refuse one that holds another experiment."""
    held = checkpoint.lock(run_dir)
    if (run_dir / "config.json").exists():
        stored = checkpoint.read_config(run_dir)
        if differences := checkpoint.config_differences(stored, description, ignore=MAY_CHANGE):
            raise InputError(
                f"{run_dir} holds another experiment ({'; '.join(differences)}): "
                "give the same settings or another --model_name"
            )
    checkpoint.write_config(run_dir, description)
    return held


if __name__ == "__main__":
    guard(main)
