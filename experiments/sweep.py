"""Train and evaluate a grid of runs and fill a table; start it again, or elsewhere too, and it goes on:

    mpirun -np R python -m experiments.sweep rmdp --over algorithm=em,random num_policies=1,2 seed=0,1,2 \\
        --runs RUNS --table OUT [--evaluate "flags of evaluate"] -- [flags of train]
    python -m experiments.sweep --redraw OUT

Every combination is one run, as `python -m train` makes it, in a folder of RUNS. Several of these commands
share the work: each takes runs that no other holds. --redraw makes tables and figures from OUT's CSV files.
"""

import dataclasses
import hashlib
import itertools
import json
import re
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import caml.evaluation
import persim.evaluation
import rl2.evaluation
import rmdp.evaluation
import train
from common.allocator import keep_freed_memory
from common.config import (
    OUTPUT_FOLDER,
    Applies,
    check_outputs,
    from_stored,
    idle,
    parse_flags,
    without_effect,
)
from common.errors import UserError
from common.evaluation import Row
from common.runs import checkpoint, run_folder
from common.runs.files import write_atomic
from experiments import figures, tables
from experiments.grid import Experiment, Result, results, same, work_together
from experiments.learning_curves import learning_curve, thin
from mpi_utils.comm import Comm, guard, set_threads

EVALUATIONS: dict[str, ModuleType] = {
    "rl2": rl2.evaluation,
    "rmdp": rmdp.evaluation,
    "persim": persim.evaluation,
    "caml": caml.evaluation,
}
CURVE_ROWS = 100
PARTS = ("agent", "episode", "policy")  # columns of rows that are about a part of a run
OF_RUNS = Applies("a grid of runs, without --redraw", lambda s: not s.redraw)
PATIENCE = 60.0  # seconds to wait while another process writes the table


@dataclasses.dataclass(frozen=True)
class Settings:
    """A grid of runs of one system: `SYSTEM [these flags] -- [flags of train for all runs]`."""

    over: Annotated[tuple[str, ...], OF_RUNS] = ()
    """What varies: field=value,value,... of the system's settings."""
    runs: Annotated[str, OUTPUT_FOLDER, OF_RUNS] = ""
    """Folder of the run folders."""
    table: Annotated[str, OUTPUT_FOLDER, OF_RUNS] = ""
    """Folder of table.csv, curves.csv, table.md and the figures."""
    evaluate: Annotated[str, OF_RUNS] = ""
    """Flags of the system's evaluation, as one word: "--episodes 20"."""
    metric: str = ""
    """What the table and the figure of budgets show (default: the first metric of the rows)."""
    curve: Annotated[str, OF_RUNS] = "train/return"
    """The column of metrics.csv of the learning curves."""
    redraw: str = ""
    """Only draw the tables and figures of this folder again, from its CSV files."""


def main(comm: Comm) -> None:
    """Run the command."""
    set_threads(comm)
    keep_freed_memory()
    sweep(sys.argv[1:], comm)


def sweep(arguments: list[str], comm: Comm) -> None:
    """Check all runs, work on the free ones until none or only locked ones are left, write the table."""
    with comm.agree():
        system, settings, flags = parse_arguments(arguments, comm)
        if settings.redraw:
            if comm.is_root:
                draw(Path(settings.redraw), settings.metric)
            return
        if comm.is_root:
            check_outputs(settings)
        configs = configurations(system, settings, flags, comm)
        protocol = EVALUATIONS[system].parse_settings(settings.evaluate.split(), show=comm.is_root)
        for config, _ in configs if comm.is_root else []:
            train.describe(system, config)  # refuses a folder that holds another experiment
    configs = comm.bcast_object(configs)  # other ranks may not see the run folders
    values = {training_run(system, config, protocol, comm): swept for config, swept in configs}
    work_together(list(values), comm)
    with comm.agree():
        if comm.is_root:
            write_tables(values, settings)


def training_run(
    system: str, config: Any, protocol: Any, comm: Comm, file: str = "evaluation.json"
) -> Experiment:
    """A run of a system, trained as `python -m train` does it, and the evaluation of its newest save.

    All ranks work on it together.
    """
    folder = train.folder(config)

    def made_for(result: Result) -> bool:
        step, _, digest = newest(folder)
        stored = result.get("settings")
        if step < config.iterations or result.get("save") != digest or not isinstance(stored, dict):
            return False
        return same(dataclasses.asdict(from_stored(type(protocol), stored)), dataclasses.asdict(protocol))

    def make() -> Result:
        if comm.bcast_object(newest(folder)[0] if comm.is_root else 0) < config.iterations:
            if comm.is_root:
                print(f"training {folder}", flush=True)
            if not train.run(system, config, comm):
                raise SystemExit(0)  # a signal came: the loop has saved and said so
        _, path, digest = comm.bcast_object(newest(folder) if comm.is_root else None)
        with comm.agree():
            step, state = checkpoint.load(path)
            stored = run_folder.read_config(folder)
        rows = EVALUATIONS[system].evaluate({**stored, "iteration": step}, state, protocol, comm)
        settings = dataclasses.asdict(protocol)
        about = {"run": str(folder), "step": step, "config": stored, "save": digest, "settings": settings}
        return {**about, "rows": rows}

    return Experiment(folder.name, folder / file, made_for, make, lambda: train.claim(system, config))


def newest(folder: Path) -> tuple[int, Path | None, str]:
    """Iteration, folder and digest of the newest valid save of a run."""
    path, _ = checkpoint.newest_valid(folder)
    if path is None:
        return 0, None, ""
    manifest = (path / checkpoint.MANIFEST).read_bytes()  # it holds the digests of all else
    return json.loads(manifest)["step"], path, hashlib.sha256(manifest).hexdigest()


def parse_arguments(arguments: list[str], comm: Comm) -> tuple[str, Settings, list[str]]:
    """The system's name, this command's settings, and the flags of train."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    own, flags = arguments[:at], arguments[at + 1 :]
    own = attached(own, "--evaluate")
    system, own = (own[0], own[1:]) if own and not own[0].startswith("-") else ("", own)
    settings = parse_flags(Settings, own, "python -m experiments.sweep SYSTEM", show=comm.is_root)
    if settings.redraw:
        return system, settings, flags
    if system not in train.SYSTEMS:
        raise UserError(
            f"give the system first, one of {', '.join(train.SYSTEMS)}: experiments.sweep rmdp [flags]"
        )
    for name in ("over", "runs", "table"):
        if not getattr(settings, name):
            raise UserError(f"--{name}: missing (see python -m experiments.sweep --help)")
    return system, settings, flags


def attached(flags: list[str], name: str) -> list[str]:
    """The flags, with the value of `name`, which begins with dashes itself, attached to it."""
    if name not in flags[:-1]:
        return flags
    at = flags.index(name)
    return [*flags[:at], f"{name}={flags[at + 1]}", *flags[at + 2 :]]


def configurations(
    system: str, settings: Settings, flags: list[str], comm: Comm
) -> list[tuple[Any, dict[str, str]]]:
    """The checked configurations of all runs, and the values of the swept fields as they were given."""
    given = {word.split("=")[0].lstrip("-").replace("-", "_") for word in flags if word.startswith("--")}
    over: dict[str, list[str]] = {}
    for word in settings.over:
        field, _, given_values = word.partition("=")
        over[field] = given_values.split(",")
        if not all(over[field]) or len(set(over[field])) < len(over[field]):
            raise UserError(f"--over {word}: give field=value,value,..., each value once")
    if len(over) < len(settings.over):
        raise UserError(f"--over {' '.join(settings.over)}: a field is given twice")
    if twice := given & (over.keys() | {"model_name", "checkpoint_dir"}):
        raise UserError(f"--{min(twice)}: the sweep sets it; leave it out behind --")
    found = []
    for combination in itertools.product(*over.values()):
        values = dict(zip(over, combination, strict=True))
        name = "__".join(f"{field}-{value}" for field, value in values.items())
        name = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        swept = [f"--{field}={value}" for field, value in values.items()]
        where = ["--checkpoint_dir", settings.runs, "--model_name", name]
        try:
            _, config = train.parse_arguments([system, *flags, *swept, *where], comm, may_be_idle=True)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        found.append((config, values))
    for name in given | over.keys():  # what all runs have may matter to some of them only
        if all(name in idle(config) for config, _ in found):
            raise UserError(without_effect(name, idle(found[0][0])[name]))
    if len({train.folder(config) for config, _ in found}) < len(found):
        raise UserError("--over: two runs would share a folder; values must differ in letters and digits")
    return found


def write_tables(values: dict[Experiment, dict[str, str]], settings: Settings) -> None:
    """Write everything in the table's folder from the runs that are done, and tell which are not."""
    with one_at_a_time(Path(settings.runs)):
        done, out = results(list(values)), Path(settings.table)
        rows: list[Row] = []
        curves: list[Row] = []
        for run, result in done.items():
            whole = [row for row in result["rows"] if all(row.get(part, "all") == "all" for part in PARTS)]
            rows += [{**row, **values[run]} for row in whole]
            curve = learning_curve(run.file.parent / "metrics.csv", settings.curve)
            curves += [{**row, **values[run]} for row in thin(curve, CURVE_ROWS)]
        out.mkdir(parents=True, exist_ok=True)
        fields = list(next(iter(values.values())))
        column = settings.curve.split("/")[-1]
        tables.write_csv(out / "table.csv", rows, [*fields, *tables.ROW])
        tables.write_csv(out / "curves.csv", curves, [*fields, *tables.CURVE, column])
        if done:
            draw(out, settings.metric)
    print(f"table: {out / 'table.md'}", flush=True)


def draw(out: Path, metric: str = "") -> None:
    """Write table.md and the figures beside table.csv and curves.csv."""
    fields, rows = tables.read_rows(out / "table.csv", tables.ROW[0])
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    main = metric or metrics[0]
    if main not in metrics:
        raise UserError(f"--metric {main}: choose one of {', '.join(metrics)}")
    shown = [name for name in dict.fromkeys([main, "training_welfare"]) if name in metrics]
    texts = [tables.markdown(tables.of_metric(rows, fields, name), fields, name) for name in shown]
    write_atomic(out / "table.md", "\n".join(texts).encode())
    figures.draw_budgets(out, tables.of_metric(rows, fields, main), fields, main)
    figures.draw_curves(out)


def one_at_a_time(folder: Path) -> run_folder.Lock:
    """A lock of the folder of all runs: held for moments, hence worth waiting for."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return run_folder.lock(folder)
        except run_folder.InUse as error:
            if time.monotonic() > deadline:
                raise UserError(f"{error} (it writes the table)") from error


if __name__ == "__main__":
    guard(main)
