"""Train one of the systems:  mpirun -np N python -m train [rl2] [flags]

The same command again resumes from the newest valid save in <checkpoint_dir>/<model_name>/. Sizes are global:
more ranks change the speed, not the experiment.
"""

import dataclasses
import importlib
import sys
from pathlib import Path

from common.allocator import keep_freed_memory
from common.errors import UserError
from common.runs import checkpoint
from mpi_utils import loop
from mpi_utils.comm import guard, set_threads

SYSTEMS = ("rl2", "rmdp", "persim", "caml")
# A run folder may be moved; the rest shapes no result.
MAY_CHANGE = ("max_pol_iters", "max_iters", "checkpoint_interval", "checkpoint_dir", "model_name", "device")


def main(comm) -> None:
    """Parse, check and lock the run folder, build the learner, resume, train: every check before any work."""
    with comm.agree():
        name, config = parse_arguments(sys.argv[1:], comm)
    with comm.agree():
        held = claim(name, config) if comm.is_root else None
    set_threads(comm)
    keep_freed_memory()
    run(name, config, comm)
    if held:
        held.release()


def run(name: str, config, comm) -> bool:
    """Train in a claimed run folder, from its newest valid save; True when all iterations are done."""
    learner = importlib.import_module(f"{name}.learner").Learner(config, comm)
    return loop.run(
        learner,
        comm,
        folder(config),
        iterations=config.iterations,
        checkpoint_interval=config.checkpoint_interval,
    )


def parse_arguments(arguments: list[str], comm):
    """The system's name and its checked configuration; only rank 0 prints a help text."""
    from common.config import parse

    modules = {name: importlib.import_module(f"{name}.config") for name in SYSTEMS}
    commands = {name: module.Config for name, module in modules.items()}
    name, config = parse(commands, "rl2", arguments, "python -m train", __doc__, show=comm.is_root)
    return name, modules[name].check_config(config)


def folder(config) -> Path:
    """The run folder."""
    return Path(config.checkpoint_dir) / config.model_name


def claim(name: str, config):
    """Lock the run folder for this process; refuse one that holds another experiment."""
    held = checkpoint.lock(folder(config))
    try:
        checkpoint.write_config(folder(config), describe(name, config))
    except BaseException:
        held.release()
        raise
    return held


def describe(name: str, config) -> dict:
    """What config.json is to hold; refuse a run folder whose own says otherwise."""
    run_dir, description = folder(config), {"system": name} | dataclasses.asdict(config)
    if (run_dir / "config.json").exists():
        stored = checkpoint.read_config(run_dir)
        if differences := checkpoint.config_differences(stored, description, ignore=MAY_CHANGE):
            raise UserError(
                f"{run_dir} holds another experiment ({'; '.join(differences)}): "
                "give the same settings or another --model_name"
            )
    return description


if __name__ == "__main__":
    guard(main)
