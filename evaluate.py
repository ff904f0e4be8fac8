"""Evaluate trained runs:  mpirun -np N python -m evaluate RUN [RUN ...] [flags]

RUN is a run folder (its newest valid save is used) or one save inside it, e.g. checkpoints/defaults or
checkpoints/defaults/step_00000120; RUN/best is the save of the best evaluation in training.
Nothing in the folder is changed but evaluation.json and the plots.

    python -m evaluate RUN                    the tables and figures of the method's paper
    python -m evaluate RUN --video out.gif    a film of some agents
    python -m evaluate RUN --export FOLDER    its networks as files that run without this project
    python -m evaluate RUN --help             all flags for this run; also rl2, rmdp, persim or caml --help
    python -m evaluate compare --help         several methods side by side on one population
"""

import json
import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # before a user's own envs.py or common/ beside the command

import numpy as np

import caml.evaluation
import comparison.command
import persim.evaluation
import rl2.evaluation
import rmdp.evaluation
from common import export, film
from common.allocator import keep_freed_memory
from common.config import check_outputs
from common.errors import UserError
from common.progress import Progress
from common.runs import checkpoint
from envs import EnvError, load_factory, note_of
from envs.drawing import check_drawn, drawing_of
from mpi_utils.comm import Comm, guard, script, set_threads

EVALUATIONS: dict[str, ModuleType] = {
    "rl2": rl2.evaluation,
    "rmdp": rmdp.evaluation,
    "persim": persim.evaluation,
    "caml": caml.evaluation,
}


def main(comm: Comm) -> None:
    """For each run: load it, follow its paper's protocol, print a table, write rows and plots."""
    if sys.argv[1:2] == ["compare"]:
        return comparison.command.main(comm, sys.argv[2:])
    with comm.agree():
        paths, flags = split_arguments(sys.argv[1:], comm)
        runs = [open_run(path) for path in paths] if comm.is_root else []
    runs = comm.bcast_object(runs)  # files and all: a run that is at work removes its saves
    with comm.agree():
        systems = {stored["system"] for stored, *_ in runs}
        if len(systems) > 1:
            raise UserError(
                f"runs of several systems ({', '.join(sorted(systems))}): evaluate one system at a time"
            )
        evaluation = EVALUATIONS[systems.pop()]
        settings = evaluation.parse_settings(flags, show=comm.is_root)
        if settings.export and len(paths) > 1:
            raise UserError(f"--export {settings.export}: one folder for {len(paths)} runs; give one run")
        if settings.video and len(paths) > 1:
            raise UserError(f"--video {settings.video}: one film for {len(paths)} runs; give one run")
        if settings.plot and len(paths) > 1:
            raise UserError(f"--plot {settings.plot}: one picture for {len(paths)} runs; give one run")
        if comm.is_root:
            export.check(settings.export, settings.onnx)
            check_outputs(settings)
    set_threads(comm)
    keep_freed_memory()
    if settings.video:
        return shoot(paths[0], runs[0], evaluation, settings, comm)
    reports: list[dict[str, Any]] = []
    failed: list[str] = []
    try:
        for path, (stored, step_dir, contents) in zip(paths, runs, strict=True):
            step, state = checkpoint.unpack(contents)
            with Progress(str(path), comm.is_root):
                others = (load_actor,) if evaluation is persim.evaluation else ()
                rows = evaluation.evaluate({**stored, "iteration": step}, state, settings, comm, *others)
            reports.append({"run": str(path), "step": step, "config": stored, "rows": rows})
            with comm.agree():
                if comm.is_root:
                    failed += show(path, step_dir.parent, evaluation, settings, reports)
    except KeyboardInterrupt:
        whole = f"{len(reports)} of {len(paths)} runs are evaluated, which is kept"
        raise KeyboardInterrupt(f"interrupted; {whole}; the same command begins anew") from None
    with comm.agree():
        if failed:
            raise UserError("; ".join(failed))


def shoot(path: Path, run: tuple, evaluation: ModuleType, settings: Any, comm: Comm) -> None:
    """Film some agents of a run, and print their returns; rank 0 does, alone."""
    stored, _, contents = run
    with comm.agree():
        if comm.is_root:
            step, state = checkpoint.unpack(contents)
            with Progress(str(path)):
                scene = evaluation.scene(stored, state, settings)
                check_drawn(scene.family)
                with closing(scene.env):
                    title = f"{path.name}, iteration {step}"
                    returns = film.shoot(scene, drawing_of, settings.video, title)
            print(film.table(scene.labels, returns))
            print(f"film: {settings.video}", flush=True)


def show(
    path: Path, run_dir: Path, evaluation: ModuleType, settings: Any, reports: list[dict[str, Any]]
) -> list[str]:
    """Write the rows of all runs so far and print the last one's table; then draw its figure.

    They go beside the run where nothing else is said. Returns what is wrong with the figure, which is no
    reason to lose anything else. Raises UserError where rows would be lost.
    """
    report = reports[-1]
    writable = path.expanduser().exists() and os.access(run_dir, os.W_OK)  # not in an installed model
    rows_at = settings.json or (run_dir / "evaluation.json" if writable else None)
    if rows_at:
        write(Path(rows_at), report if len(reports) == 1 or not settings.json else reports)
    print(f"{path} (iteration {report['step']})")
    evaluation.show(report["rows"])
    note = note_of(report["config"].get("environment", ""))
    print(note, end="\n" if note else "")
    sys.stdout.flush()
    if not rows_at and getattr(sys.stdout, "lost", None):
        raise UserError(f"the rows of {path} could not be printed, and {run_dir} not written: give --json")
    plot = settings.plot or (run_dir / "evaluation.png" if writable else None)
    try:
        if plot:
            evaluation.plot(report["rows"], plot, evaluation.title(path.name, settings))
            print(f"figure: {plot}", flush=True)
    except Exception as error:  # whatever it is, the rows are what counts
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return [f"{plot}: the figure cannot be drawn ({reason}); the rows are in {rows_at or 'the table'}"]
    return []


def load_actor(policy: str, environment: str, names: list[str]) -> Any:
    """What acts by `policy` for agents with these names: another run, or a user's own module:factory.

    Runs of r-MDP and CAML know agents by their numbers in the population; names have to be these.
    """
    if ":" in policy:
        try:
            return load_factory(policy)(names)
        except EnvError as error:
            raise UserError(str(error).replace("--environment", "--policy")) from None
    stored, *_ = open_run(Path(policy))
    if stored.get("environment") != environment:
        raise UserError(f"--policy {policy}: acts in {stored.get('environment')}, not in {environment}")
    system = stored["system"]
    if system == "rl2":
        return rl2.load(policy)
    if system == "persim":
        return persim.load(policy, names)
    if strange := [name for name in names if not name.isdecimal()]:
        raise UserError(f"--policy {policy}: knows agents by numbers; {strange[0]!r} is none")
    load: Callable[..., Any] = rmdp.load if system == "rmdp" else caml.load
    return load(policy, np.array(names, int))


def write(path: Path, content: Any) -> None:
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def split_arguments(arguments: list[str], comm: Comm) -> tuple[list[Path], list[str]]:
    """Leading words are runs, the rest flags."""
    if arguments and arguments[0] in ("-h", "--help"):
        if comm.is_root:
            print(__doc__)
        raise SystemExit(0)
    if set(arguments[:1]) & EVALUATIONS.keys() and set(arguments[1:]) & {"-h", "--help"}:
        EVALUATIONS[arguments[0]].parse_settings(["--help"], show=comm.is_root)
    count = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    if not count:
        raise UserError("no run given: python -m evaluate checkpoints/NAME [flags]")
    return [Path(word) for word in arguments[:count]], arguments[count:]


def open_run(path: Path) -> tuple[dict[str, Any], Path, dict[str, bytes]]:
    """The stored configuration of a run, the save to use and its files."""
    stored, step_dir, contents = checkpoint.find(path)
    if stored.get("system") not in EVALUATIONS:
        raise UserError(f"{step_dir.parent}/config.json: unknown system {stored.get('system')!r}")
    return stored, step_dir, contents


def command() -> None:
    """The command `pmrl-evaluate`, which is `python -m evaluate`."""
    script(main)


if __name__ == "__main__":
    guard(main)
