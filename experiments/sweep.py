"""Train and evaluate a grid of runs and fill a table; start it again, or elsewhere too, and it goes on:

    mpirun -np R python -m experiments.sweep rmdp --over algorithm=em,random num_policies=1,2 seed=0,1,2 \\
        --runs RUNS --table OUT [--evaluate "flags of evaluate"] -- [flags of train]
    python -m experiments.sweep --redraw OUT

Every combination is one run, as `python -m train` makes it, in a folder of RUNS. Several of these commands
share the work: each takes runs that no other holds. --redraw makes tables and figures from OUT's CSV files.
"""

import dataclasses
import importlib
import itertools
import re
import sys
import time
from pathlib import Path

import train
from common.allocator import keep_freed_memory
from common.config import parse_flags
from common.errors import UserError
from common.runs import run_folder
from common.runs.files import write_atomic
from experiments import figures, tables
from experiments.runs import Cell, rows_of, work
from experiments.ship import learning_curve, thin
from mpi_utils.comm import guard, set_threads

CURVE_ROWS = 100
PARTS = ("agent", "episode", "policy")  # columns of rows that are about a part of a run
PATIENCE = 60.0  # seconds to wait while another process writes the table


@dataclasses.dataclass(frozen=True)
class Settings:
    """A grid of runs of one system: `SYSTEM [these flags] -- [flags of train for all runs]`."""

    over: tuple[str, ...] = ()
    """What varies: field=value,value,... of the system's settings."""
    runs: str = ""
    """Folder of the run folders."""
    table: str = ""
    """Folder of table.csv, curves.csv, table.md and the figures."""
    evaluate: str = ""
    """Flags of the system's evaluation, as one word: "--episodes 20"."""
    metric: str = ""
    """What the table and the figure of budgets show (default: the first metric of the rows)."""
    curve: str = "train/return"
    """The column of metrics.csv of the learning curves."""
    redraw: str = ""
    """Only draw the tables and figures of this folder again, from its CSV files."""


def main(comm) -> None:
    set_threads(comm)
    keep_freed_memory()
    sweep(sys.argv[1:], comm)


def sweep(arguments: list[str], comm) -> None:
    """Check all cells, work on the free ones until none or only locked ones are left, write the table."""
    with comm.agree():
        system, settings, flags = parse_arguments(arguments, comm)
        if settings.redraw:
            if comm.is_root:
                draw(Path(settings.redraw), settings.metric)
            return
        cells = grid(system, settings, flags, comm)
        evaluation = importlib.import_module(f"{system}.evaluation")
        protocol = evaluation.parse_settings(settings.evaluate.split(), show=comm.is_root)
        for cell in cells if comm.is_root else []:
            train.describe(system, cell.config)  # refuses a folder that holds another experiment
    left = list(cells)
    while left:
        locked = [cell for cell in left if not work(system, cell, evaluation, protocol, comm)]
        if len(locked) == len(left):
            break
        left = locked
    with comm.agree():
        if comm.is_root:
            write_tables(cells, protocol, settings)


def parse_arguments(arguments: list[str], comm) -> tuple[str, Settings, list[str]]:
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


def grid(system: str, settings: Settings, flags: list[str], comm) -> list[Cell]:
    """All cells, each with its checked configuration."""
    given = {word.split("=")[0].lstrip("-").replace("-", "_") for word in flags if word.startswith("--")}
    over = {}
    for word in settings.over:
        field, _, values = word.partition("=")
        over[field] = values.split(",")
        if not all(over[field]) or len(set(over[field])) < len(over[field]):
            raise UserError(f"--over {word}: give field=value,value,..., each value once")
    if len(over) < len(settings.over):
        raise UserError(f"--over {' '.join(settings.over)}: a field is given twice")
    if twice := given & (over.keys() | {"model_name", "checkpoint_dir"}):
        raise UserError(f"--{min(twice)}: the sweep sets it; leave it out behind --")
    cells = []
    for combination in itertools.product(*over.values()):
        values = dict(zip(over, combination, strict=True))
        name = "__".join(f"{field}-{value}" for field, value in values.items())
        name = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        swept = [f"--{field}={value}" for field, value in values.items()]
        where = ["--checkpoint_dir", settings.runs, "--model_name", name]
        try:
            _, config = train.parse_arguments([system, *flags, *swept, *where], comm)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        cells.append(Cell(values, config))
    if len({cell.folder for cell in cells}) < len(cells):
        raise UserError("--over: two runs would share a folder; values must differ in letters and digits")
    return cells


def write_tables(cells: list[Cell], protocol, settings: Settings) -> None:
    """Write everything in the table's folder from the runs that are done, and tell which are not."""
    with one_at_a_time(Path(settings.runs)):
        done = {i: rows for i, cell in enumerate(cells) if (rows := rows_of(cell, protocol)) is not None}
        out, fields = Path(settings.table), list(cells[0].values)
        rows, curves = [], []
        for i, its_rows in done.items():
            values = list(cells[i].values.values())
            whole = [row for row in its_rows if not any(part in row for part in PARTS)]
            rows += [[*values, *(row[name] for name in tables.ROW)] for row in whole]
            curve = list(learning_curve(cells[i].folder / "metrics.csv", settings.curve))
            curves += [[*values, *row] for row in thin(curve, CURVE_ROWS)]
        out.mkdir(parents=True, exist_ok=True)
        tables.write_rows(out / "table.csv", [*fields, *tables.ROW], rows)
        tables.write_rows(out / "curves.csv", [*fields, *tables.CURVE, settings.curve.split("/")[-1]], curves)
        if done:
            draw(out, settings.metric)
    print(f"{len(done)} of {len(cells)} runs in {out / 'table.md'}", flush=True)
    if left := [cell.folder.name for i, cell in enumerate(cells) if i not in done]:
        print(f"still being trained elsewhere: {', '.join(left)}; the same command later adds them")


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


def one_at_a_time(folder: Path):
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
