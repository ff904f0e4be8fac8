"""Evaluate trained runs:  mpirun -np N python -m evaluate RUN [RUN ...] [flags]

RUN is a run folder (its newest valid save is used) or one save inside it, e.g. checkpoints/defaults or
checkpoints/defaults/step_00000120. Nothing in the folder is changed but evaluation.json and the plots.
`python -m evaluate compare --help`: several ways to personalise, side by side on one population.
"""

import importlib
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

from common.allocator import keep_freed_memory
from common.errors import UserError
from common.runs import checkpoint
from mpi_utils.comm import guard, set_threads
from persim.baselines import tables as opponents
from train import SYSTEMS


def main(comm) -> None:
    """For each run: load it, follow its paper's protocol, print a table, write rows and plots."""
    if sys.argv[1:2] == ["compare"]:
        return importlib.import_module("comparison.command").main(comm, sys.argv[2:])
    with comm.agree():
        paths, flags = split_arguments(sys.argv[1:], comm)
        if (paths[0] / opponents.FILE).is_file():
            return show_opponents(paths, flags, comm)
        runs = [open_run(path) for path in paths]
        systems = {stored.get("system") for stored, _ in runs}
        if len(systems) > 1:
            raise UserError(
                f"runs of several systems ({', '.join(sorted(systems))}): evaluate one system at a time"
            )
        evaluation = importlib.import_module(f"{systems.pop()}.evaluation")
        settings = evaluation.parse_settings(flags, show=comm.is_root)
    set_threads(comm)
    keep_freed_memory()
    reports = []
    for path, (stored, step_dir) in zip(paths, runs, strict=True):
        with comm.agree():
            step, state = checkpoint.load(step_dir)
        rows = evaluation.evaluate(stored | {"iteration": step}, state, settings, comm)
        reports.append({"run": str(path), "step": step, "config": stored, "rows": rows})
        with comm.agree():
            if comm.is_root:
                print(f"{path} (iteration {step})")
                writable = os.access(step_dir.parent, os.W_OK)
                if plot := settings.plot or (step_dir.parent / "evaluation.png" if writable else None):
                    evaluation.plot(rows, plot, evaluation.title(path.name, settings))
                    print(f"figure: {plot}")
                if writable and not settings.json:
                    write(step_dir.parent / "evaluation.json", reports[-1])
                evaluation.show(rows)
    with comm.agree():
        if comm.is_root and settings.json:
            write(Path(settings.json), reports[0] if len(reports) == 1 else reports)


def show_opponents(paths: list[Path], flags: list[str], comm) -> None:
    """Print and draw the table of PerSim's opponents that `experiments.persim_baselines` made."""
    evaluation = importlib.import_module("persim.evaluation")
    settings = evaluation.parse_settings(flags, show=comm.is_root)
    for path in paths if comm.is_root else []:
        report = opponents.read(path)
        print(opponents.as_markdown(report))
        plot = settings.plot or path / "opponents.png"
        opponents.draw(report, plot)
        print(f"figure: {plot}")


def write(path: Path, content) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def split_arguments(arguments: list[str], comm) -> tuple[list[Path], list[str]]:
    """Leading words are runs, the rest flags."""
    if arguments and arguments[0] in ("-h", "--help"):
        if comm.is_root:
            print(__doc__)
            for name in SYSTEMS:
                with suppress(SystemExit):  # each help text wants to be the last
                    importlib.import_module(f"{name}.evaluation").parse_settings(["--help"], show=True)
        raise SystemExit(0)
    count = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    if not count:
        raise UserError("no run given: python -m evaluate checkpoints/NAME [flags]")
    return [Path(word) for word in arguments[:count]], arguments[count:]


def open_run(path: Path):
    """The stored configuration of a run and the save to use."""
    run_dir = path.parent if path.name.startswith("step_") else path
    if not path.is_dir():
        raise UserError(
            f"{path}: no such run folder; `ls checkpoints checkpoints/examples` shows what there is"
        )
    stored = checkpoint.read_config(run_dir)
    if stored.get("system") not in SYSTEMS:
        raise UserError(f"{run_dir}/config.json: unknown system {stored.get('system')!r}")
    if path is not run_dir:
        return stored, path
    newest, skipped = checkpoint.newest_valid(run_dir)
    for reason in skipped:
        print(f"warning: {reason}", file=sys.stderr)
    if newest is None:
        raise UserError(f"{run_dir}: holds no valid save")
    return stored, newest


if __name__ == "__main__":
    guard(main)
