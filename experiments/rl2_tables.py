"""The tables of docs/rl2.md, cell by cell; start it again, and it goes on:

    mpirun -np R python -m experiments.rl2_tables bandits|mdps|architectures|ablations \\
        --runs RUNS --table OUT [--cells n10_k5,n500_k50] [--shipped True]

Trains each cell by its recipe (experiments/rl2_recipes.py) in a folder of RUNS as `python -m train` does and
evaluates it beside the classical baselines on the same tasks. Writes OUT/TABLE.csv and OUT/TABLE.md; cells
that are in OUT already and not asked for stay as they are. Several of these commands share the work.
"""

import csv
import dataclasses
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np

import train
from common.allocator import keep_freed_memory
from common.config import AT_LEAST_ZERO, OUTPUT_FOLDER, check, check_outputs, parse_flags
from common.errors import UserError
from common.evaluation import Row, as_markdown
from common.runs import checkpoint, run_folder
from common.runs.files import write_atomic
from common.shipped import EXAMPLES
from common.shipped import shipped as where_shipped
from experiments.grid import Experiment, Result, results, same, work_together
from experiments.learning_curves import moving_mean, read, thin
from experiments.rl2_recipes import TABLES, Cell
from experiments.sweep import newest, one_at_a_time, training_run
from experiments.tables import mean_and_se, write_csv
from mpi_utils.comm import Comm, guard, set_threads
from rl2 import evaluation
from rl2.bandit_optimum import optimal_return

COLUMNS = ("cell", "seed", "method", "mean", "se", "n", "training", "env_steps", "minutes", "processor")
CURVE = ("cell", "seed", "iteration", "env_steps", "minutes", "return")
CURVE_ROWS = 100
FEW_PULLS = 10  # their optimum takes a second
NO_BASELINES = ("rl2", "oracle")
EXPERTS = {"bayes_greedy": "a planner", "gittins": "Gittins"}


@dataclasses.dataclass(frozen=True)
class Settings:
    """One table: `TABLE [flags]`."""

    cells: tuple[str, ...] = ()
    """Only these cells, e.g. n10_k5,n500_k50 (default: all of the table)."""
    runs: Annotated[str, OUTPUT_FOLDER] = ""
    """Folder of the run folders."""
    table: Annotated[str, OUTPUT_FOLDER] = ""
    """Folder of TABLE.csv and TABLE.md."""
    instances: Annotated[int, AT_LEAST_ZERO] = 0
    """Fresh tasks of each evaluation (0: 10000, 4000 or 1000, the fewer the longer they last)."""
    shipped: bool = False
    """Cells whose model is shipped are evaluated from it, not trained."""


def main(comm: Comm) -> None:
    """Run the command."""
    set_threads(comm)
    keep_freed_memory()
    make_table(sys.argv[1:], comm)


def make_table(arguments: list[str], comm: Comm) -> None:
    """Work on the cells that are asked for and not done, and write the table of those that are."""
    with comm.agree():
        name, settings = parse_arguments(arguments, comm)
        if comm.is_root:
            check_outputs(settings)
        work = {
            experiment(cell, seed, name, settings, comm): (cell, seed)
            for cell in chosen(name, settings)
            for seed in cell.seeds
        }
    work_together(list(work), comm)
    with comm.agree():
        if comm.is_root:
            write(name, settings, work)


def parse_arguments(arguments: list[str], comm: Comm) -> tuple[str, Settings]:
    """The table's name and the flags."""
    name, flags = (arguments[0], arguments[1:]) if arguments and arguments[0][0] != "-" else ("", arguments)
    settings = parse_flags(Settings, flags, "python -m experiments.rl2_tables TABLE", show=comm.is_root)
    if name not in TABLES:
        raise UserError(f"give the table first, one of {', '.join(TABLES)}: experiments.rl2_tables bandits")
    for field in ("runs", "table"):
        if not getattr(settings, field):
            raise UserError(f"--{field}: missing (see python -m experiments.rl2_tables --help)")
    check(settings)
    return name, settings


def chosen(name: str, settings: Settings) -> list[Cell]:
    """The cells that are asked for, in the table's order."""
    cells = {cell.name: cell for cell in TABLES[name]()}
    asked = [cell for word in settings.cells for cell in word.split(",")] or list(cells)
    if unknown := [cell for cell in asked if cell not in cells]:
        raise UserError(f"--cells {unknown[0]}: {name} has {', '.join(cells)}")
    return [cell for cell in cells.values() if cell.name in asked]


def experiment(cell: Cell, seed: int, name: str, settings: Settings, comm: Comm) -> Experiment:
    """A cell's training and evaluation, or the evaluation of its shipped model."""
    instances = ["--instances", str(settings.instances or cell.instances)]
    flags = [*instances, "--baselines", "all" if cell.baselines else "none"]
    protocol = evaluation.parse_settings(flags, show=False)
    if settings.shipped and cell.shipped:
        return of_shipped(cell, protocol, Path(settings.runs), comm)
    config = config_of(cell, seed, name, settings.runs, comm)
    if comm.is_root:
        train.describe("rl2", config)  # refuses a folder that holds another experiment
    run = training_run("rl2", comm.bcast_object(config), protocol, comm)
    return dataclasses.replace(run, make=with_processor(run.make, comm))


def config_of(cell: Cell, seed: int, name: str, runs: str, comm: Comm) -> Any:
    """The settings of a cell's run."""
    words = [f"--{flag}={value}" for flag, value in cell.flags.items()]
    folder = f"{name}_{cell.name}" + (f"_seed{seed}" if len(cell.seeds) > 1 else "")
    where = ["--checkpoint_dir", runs, "--model_name", folder, "--seed", str(seed)]
    return train.parse_arguments(["rl2", *words, *where], comm)[1]


def with_processor(make: Callable[[], Result | None], comm: Comm) -> Callable[[], Result | None]:
    """`make`, which also stores on what it was done."""

    def made() -> Result | None:
        result = make()
        return None if result is None else {**result, "processor": f"{comm.size} x {processor()}"}

    return made


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def of_shipped(cell: Cell, protocol: Any, runs: Path, comm: Comm) -> Experiment:
    """The evaluation of a shipped model."""
    folder = where_shipped(EXAMPLES) / cell.shipped
    _, save, digest = newest(folder)
    if save is None:
        raise UserError(f"{folder}: holds no valid save of the shipped model")

    def made_for(result: Result) -> bool:
        return result.get("save") == digest and same(result.get("settings"), dataclasses.asdict(protocol))

    def make() -> Result:
        with comm.agree():
            step, state = checkpoint.load(save)
            stored = run_folder.read_config(folder)
        rows = evaluation.evaluate({**stored, "iteration": step}, state, protocol, comm)
        about = {"run": str(folder), "step": step, "config": stored, "save": digest}
        return {**about, "settings": dataclasses.asdict(protocol), "rows": rows}

    return Experiment(cell.shipped, runs / "shipped" / f"{cell.shipped}.json", made_for, make)


def write(name: str, settings: Settings, work: dict[Experiment, tuple[Cell, int]]) -> None:
    """Both files, from what is done and from what OUT holds of other cells."""
    out = Path(settings.table)
    with one_at_a_time(Path(settings.runs)):
        done = results(list(work))
        rows, curves = [], []
        for run, result in done.items():
            cell, seed = work[run]
            curve = [row | {"cell": cell.name, "seed": seed} for row in read(Path(result["run"]))]
            rows += rows_of(cell, seed, result, curve)
            curves += thin(curve, CURVE_ROWS)
        out.mkdir(parents=True, exist_ok=True)
        write_csv(out / f"{name}.csv", joined(name, out / f"{name}.csv", rows), COLUMNS)
        if len(TABLES[name]()[0].seeds) > 1:
            file = out / f"{name}_curves.csv"
            write_csv(file, joined(name, file, curves), CURVE)
        write_atomic(out / f"{name}.md", markdown(name, out).encode())
    print(f"table: {out / f'{name}.md'}", flush=True)


def rows_of(cell: Cell, seed: int, result: Result, curve: list[Row]) -> list[Row]:
    """Returns of all methods that played; what training took stands beside its own."""
    found = []
    for row in result["rows"]:
        if row["metric"] == "return":
            own = {
                "cell": cell.name,
                "seed": seed,
                **{key: row[key] for key in ("method", "mean", "se", "n")},
            }
            if row["method"] == "rl2":
                last = {key: curve[-1][key] for key in ("env_steps", "minutes")}
                own |= last | {"training": training(result["config"], result["step"])}
                own["processor"] = result.get("processor", "")
            found.append(own)
    return found


def training(config: Row, step: int) -> str:
    """How a run was trained for `step` iterations, in words."""
    start = f" from {Path(config['start_from']).name}" if config.get("start_from") else ""
    if config.get("warm_start", "none") == "none":
        return "PPO" + start
    alone = config["warm_start_iters"] >= step
    return f"imitation of {EXPERTS[config['warm_start']]}{start}{'' if alone else ', then PPO'}"


def joined(name: str, file: Path, rows: list[Row]) -> list[Row]:
    """Rows of a table's file with these in place of those of the same cells and seeds, in its order."""
    new = {(row["cell"], str(row["seed"])) for row in rows}
    kept = [row for row in stored(file) if (row["cell"], row["seed"]) not in new]
    order = [cell.name for cell in TABLES[name]()]
    kept = [row for row in kept if row["cell"] in order]
    return sorted([*kept, *rows], key=lambda row: (order.index(row["cell"]), int(row["seed"])))


def stored(file: Path) -> list[Row]:
    """Rows of a CSV file, as text; none if there is no such file."""
    if not file.exists():
        return []
    with open(file, newline="") as text:
        return list(csv.DictReader(text))


def markdown(name: str, out: Path) -> str:
    """A table from the CSV files in OUT alone."""
    rows = stored(out / f"{name}.csv")
    cells = {cell.name: [row for row in rows if row["cell"] == cell.name] for cell in TABLES[name]()}
    present = {cell.name: cell for cell in TABLES[name]() if cells[cell.name]}
    if name in ("bandits", "mdps"):
        text = against_baselines([(cell, cells[cell.name]) for cell in present.values()])
    else:
        curves = stored(out / f"{name}_curves.csv")
        text = over_seeds(list(present), cells, curves)
    missing = [cell for cell in cells if cell not in present]
    return text + (f"\nNot trained yet: {', '.join(missing)}.\n" if missing else "")


def against_baselines(cells: list[tuple[Cell, list[Row]]]) -> str:
    """Returns beside the paper's and those of the strongest baselines on the same tasks."""
    references = list(cells[0][0].paper) if cells else []
    body, processors = [], []
    for cell, rows in cells:
        own = next(row for row in rows if row["method"] == "rl2")
        others = [row for row in rows if row["method"] not in NO_BASELINES]
        others = sorted(others, key=lambda row: -float(row["mean"]))[:2]
        took = [f"{float(own['env_steps']) / 1e6:.1f}", f"{float(own['minutes']):.1f}"]
        best = [f"{row['method'].replace('_', ' ')} {value(row)}" for row in others]
        paper = [f"{cell.paper[method]:g}" for method in references]
        body.append([cell.name, f"**{value(own)}**", *paper, *best, optimum(cell), own["training"], *took])
        processors.append(own["processor"])
    head = ["cell", "RL² here", *(f"paper: {method}" for method in references)]
    head += ["strongest baseline", "second", "optimum", "training", "million steps", "minutes"]
    if not any(line[-4] for line in body):
        head, body = without(head, -4), [without(line, -4) for line in body]
    known = [name for name in dict.fromkeys(processors) if name]
    return as_markdown(head, body) + (f"\nProcessors: {'; '.join(known)}.\n" if known else "")


def optimum(cell: Cell) -> str:
    """The Bayes-optimal return of a bandit of few pulls; else nothing."""
    few = cell.flags.get("environment") == "bandit" and cell.flags["meta_episode_len"] <= FEW_PULLS
    if not few:
        return ""
    return f"{optimal_return(cell.flags['num_actions'], cell.flags['meta_episode_len']):.2f}"


def without(line: list[str], at: int) -> list[str]:
    """A line without one of its entries, counted from the end."""
    return line[:at] + line[at + 1 :]


def value(row: Row) -> str:
    """Mean ± standard error, with two digits where that is small."""
    digits = 2 if float(row["se"]) < 0.1 else 1
    return f"{float(row['mean']):.{digits}f} ± {float(row['se']):.{digits}f}"


def over_seeds(names: list[str], cells: dict[str, list[Row]], curves: list[Row]) -> str:
    """Returns after equal steps, evaluated and in training, and in training after equal minutes; over seeds.

    Minutes are equal to those of the fastest run of the same problem.
    """
    problems: dict[str, list[str]] = {}
    for name in names:
        problems.setdefault(name.rpartition("_")[0] if name.count("_") > 1 else "", []).append(name)
    text = ""
    for problem, members in problems.items():
        runs: dict[tuple[str, str], list[Row]] = {}
        for row in curves:
            if row["cell"] in members:
                runs.setdefault((row["cell"], row["seed"]), []).append(row)
        least = min(float(run[-1]["minutes"]) for run in runs.values())
        body = []
        for name in members:
            own = [run for (cell, _), run in runs.items() if cell == name]
            after = [at_minutes(run, least) for run in own]
            took = np.mean([float(run[-1]["minutes"]) for run in own])
            evaluated = [float(row["mean"]) for row in cells[name]]
            body.append([name.removeprefix(f"{problem}_"), spread(evaluated), spread(after), f"{took:.1f}"])
        steps = float(next(iter(runs.values()))[-1]["env_steps"]) / 1e6
        head = [problem or "ablation", f"return after {steps:.1f} million steps"]
        head += [f"in training after {least:.1f} minutes", "minutes in all"]
        text += ("\n" if text else "") + as_markdown(head, body)
    return text


def at_minutes(run: list[Row], minutes: float) -> float:
    """The moving mean of the return in training after so many minutes."""
    mean = moving_mean(np.array([float(row["return"]) for row in run]))
    passed = np.array([float(row["minutes"]) for row in run]) <= minutes + 1e-9
    return float(mean[passed][-1]) if passed.any() else float("nan")


def spread(values: list[float]) -> str:
    """Mean ± standard error over seeds."""
    mean, se = mean_and_se(values)
    return f"{mean:.1f} ± {'-' if np.isnan(se) else f'{se:.1f}'}"


if __name__ == "__main__":
    guard(main)
