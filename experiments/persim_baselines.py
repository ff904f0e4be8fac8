"""PerSim and its baselines in one table; start it again, or elsewhere too, and it goes on:

    mpirun -np R python -m experiments.persim_baselines --runs RUNS --out OUT [flags]
    python -m evaluate OUT

An experiment is a method on one dataset with one seed; its result is a file in OUT. Several of these commands
share the work: each rank takes experiments that nobody works on. PerSim's own runs are those of

    python -m experiments.sweep persim --over environment=... dataset=... seed=... --runs RUNS ...

and are trained first where they are missing. Writes baselines.json and baselines.md, in which experiments
that an earlier command had asked for stay; with `--show OUT` alone it prints them and draws baselines.png.
"""

import dataclasses
import functools
import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar

from common.allocator import keep_freed_memory
from common.config import MAY_BE_EMPTY, OUTPUT_FOLDER, POSITIVE, check, check_outputs, parse_flags
from common.errors import UserError
from common.evaluation import Row
from common.runs import checkpoint, run_folder
from common.runs.seeding import stream
from experiments import sweep
from experiments.grid import Experiment, Result, results, work_apart
from mpi_utils.comm import Comm, guard, set_threads
from persim.baselines import protocol, tables
from persim.baselines.protocol import AUGMENTED, METHODS, Budgets, run
from persim.config import DATASETS, LARGE, Config, check_config
from persim.problem import family_of, make_log
from persim.simulator import Simulator

TESTED = 5  # the test agents are the first
NEEDS = {"d3rlpy": ("bcq", "cql"), "stable_baselines3": ("morel",)}


@dataclasses.dataclass(frozen=True)
class Settings(Budgets):
    """PerSim and its baselines: environments x datasets x methods x repeats, and what each may cost."""

    environment: tuple[str, ...] = ("mountain_car", "cart_pole")
    """Environments."""
    dataset: tuple[str, ...] = DATASETS
    """Who acted."""
    method: tuple[str, ...] = METHODS
    """Methods."""
    repeat: tuple[int, ...] = (0, 1, 2)
    """Seeds of data and training."""
    num_agents: Annotated[int, POSITIVE] = 500
    """Agents with one trajectory each; the first five are tested."""
    train: Annotated[str, MAY_BE_EMPTY] = ""
    """More flags of PerSim's training, as one word: "--max_iters 40"; sizes of networks are MOReL's too."""
    runs: str = ""
    """Folder of PerSim's run folders."""
    out: Annotated[str, OUTPUT_FOLDER] = ""
    """Folder of the results and tables."""

    VALUE_ALIASES: ClassVar[dict[str, dict]] = Config.VALUE_ALIASES


@dataclasses.dataclass(frozen=True)
class Case:
    """A method on a dataset with a seed."""

    environment: str
    dataset: str
    method: str
    repeat: int

    @property
    def name(self) -> str:
        """What its results are stored under."""
        return f"{stored_name(self.environment)}__{self.dataset}__{self.method}__{self.repeat}"


def stored_name(environment: str) -> str:
    """What names of folders say for an environment: the first name that it had."""
    return {today: old for old, today in Config.VALUE_ALIASES["environment"].items()}.get(
        environment, environment
    )


def main(comm: Comm) -> None:
    """Train PerSim where it is missing, work on what is free, write the tables."""
    with comm.agree():
        if sys.argv[1:2] == ["--show"]:
            return show(sys.argv[2:], comm)
        settings = parse_settings(sys.argv[1:], comm)
        if comm.is_root:
            check_outputs(settings)
            claim(settings)
    set_threads(comm)
    keep_freed_memory()
    if any(method == "persim" or method in AUGMENTED for method in settings.method):
        sweep.sweep(persim_words(settings), comm)
    experiments = grid(settings, comm)
    work_apart([experiment for case, experiment in experiments.items() if case.method != "persim"], comm)
    with comm.agree():
        if comm.is_root:
            write(experiments, settings)


def show(words: list[str], comm: Comm) -> None:
    """Print and draw the table in the folder that the only word names."""
    if len(words) != 1:
        raise UserError("--show OUT: give the one folder of a table")
    if comm.is_root:
        tables.show(Path(words[0]))


def parse_settings(flags: list[str], comm: Comm) -> Settings:
    """The flags, checked."""
    flags = sweep.attached(flags, "--train")
    settings = parse_flags(Settings, flags, "python -m experiments.persim_baselines", show=comm.is_root)
    check(settings)
    known = {"environment": ("mountain_car", "cart_pole", "half_cheetah_body"), "dataset": DATASETS}
    for name, choices in (known | {"method": METHODS}).items():
        for value in getattr(settings, name):
            if value not in choices:
                raise UserError(f"--{name} {value}: choose among {', '.join(choices)}")
    if not settings.repeat or min(settings.repeat) < 0:
        raise UserError(f"--repeat {' '.join(map(str, settings.repeat))}: give seeds of 0 or more")
    for environment in settings.environment:
        training(settings, show=comm.is_root, environment=environment)
    for library, methods in NEEDS.items():
        wanted = [m for m in settings.method if any(algorithm in m for algorithm in methods)]
        if wanted and find_spec(library) is None:
            text = f"--method {wanted[0]}: needs {library}; pip install 'personalised-meta-rl[baselines]'"
            raise UserError(text)
    return settings


def training(settings: Settings, show: bool = False, **chosen) -> Config:
    """What PerSim is trained with, but for `chosen`."""
    words = [f"--environment={chosen['environment']}", *settings.train.split()]
    config = parse_flags(Config, words, "--train", show=show)
    return check_config(dataclasses.replace(config, num_agents=settings.num_agents, **chosen))


def claim(settings: Settings) -> None:
    """Note the budgets in OUT; refuse a folder whose results have others, or whose table is damaged."""
    out, budgets = Path(settings.out), budgets_of(settings)
    stored = tables.read(out)["budgets"] if tables.find(out) else budgets
    if (out / "config.json").exists():
        stored = run_folder.read_config(out)
    if changed := run_folder.config_differences(stored, budgets):
        raise UserError(f"{out}: has other budgets ({'; '.join(changed)}); give another --out")
    run_folder.write_config(out, budgets)


def budgets_of(settings: Settings) -> dict:
    """What all results of a table have in common."""
    names = [field.name for field in dataclasses.fields(Budgets)]
    return {name: getattr(settings, name) for name in ("num_agents", "train", *names)}


def grid(settings: Settings, comm: Comm) -> dict[Case, Experiment]:
    """All cases, a seed of all methods after the other. True dynamics have no data, and only seed 0."""
    cases = [
        Case(environment, dataset if method != "true_model" else "none", method, repeat)
        for repeat in settings.repeat
        for environment in settings.environment
        for dataset in settings.dataset
        for method in settings.method
        if method != "true_model" or not repeat
    ]
    return {case: experiment(case, settings, comm) for case in cases}


def experiment(case: Case, settings: Settings, comm: Comm) -> Experiment:
    """Work on a case; on PerSim itself the sweep has worked, so that is only looked up."""
    folder = Path(settings.out) / "cells" / case.name
    file = folder / "result.json"
    if case.method == "persim":
        file = persim_folder(case, settings) / "evaluation.json"

    def make() -> Result | None:
        began, data = time.monotonic(), make_data(case.environment, case.dataset, case.repeat, settings)
        if case.method in AUGMENTED and data.simulator is None:
            return None  # another process still trains the simulators
        rows = [{**dataclasses.asdict(case), **row} for row in run(case.method, data)]
        seconds = round(time.monotonic() - began, 1)
        print(f"rank {comm.rank}: {case.name} in {seconds} s", flush=True)
        return {"rows": rows, "seconds": seconds}

    # What results were made for is that of the whole folder, see `claim`.
    return Experiment(
        case.name, file, lambda result: bool(result.get("rows")), make, lambda: run_folder.lock(folder)
    )


def persim_words(settings: Settings) -> list[str]:
    """The sweep of PerSim's runs."""
    seeds = ",".join(map(str, settings.repeat))
    over = [
        f"environment={','.join(map(stored_name, settings.environment))}",
        f"dataset={','.join(settings.dataset)}",
    ]
    protocol = (
        f"--upper_bound False --episodes {settings.planned_episodes} --trajectories {settings.trajectories}"
    )
    if settings.candidates != Budgets.candidates:
        protocol += f" --num_candidates {settings.candidates}"
    if settings.horizon:
        protocol += f" --horizon {settings.horizon}"
    where = ["--runs", settings.runs, "--table", str(Path(settings.out) / "persim"), "--curve", "train/loss"]
    flags = ["--num_agents", str(settings.num_agents), "--checkpoint_interval", "1000"]
    flags += settings.train.split()
    return ["persim", "--over", *over, f"seed={seeds}", *where, "--evaluate", protocol, "--", *flags]


def persim_folder(case: Case, settings: Settings) -> Path:
    """The folder that the sweep gives a run."""
    name = f"environment-{stored_name(case.environment)}__dataset-{case.dataset}__seed-{case.repeat}"
    return Path(settings.runs) / name


@functools.lru_cache(maxsize=1)  # experiments that follow each other share it
def make_data(environment: str, dataset: str, repeat: int, settings: Settings) -> protocol.Case:
    """Data, tests, and PerSim's simulators if they are trained."""
    dataset = dataset if dataset != "none" else "random"
    config = training(settings, environment=environment, dataset=dataset, seed=repeat)
    family = family_of(config)
    data = make_log(config, family)
    path, _ = checkpoint.newest_valid(persim_folder(Case(environment, dataset, "persim", repeat), settings))
    simulator = None
    if path and json.loads((path / checkpoint.MANIFEST).read_bytes())["step"] >= config.iterations:
        _, state = checkpoint.load(path)
        simulator = Simulator(**state["sizes"])
        simulator.load_state_dict(state["simulator"])
    tested = {name: values[:TESTED] for name, values in (data.covariates or {}).items()}
    budgets = Budgets(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(Budgets)})
    test_seed = int(stream(0, "evaluation").integers(2**62))  # that of PerSim's evaluation
    networks = {name: getattr(config, name) for name in LARGE}
    return protocol.Case(family, data, tested, budgets, repeat, test_seed, simulator, networks)


def write(experiments: dict[Case, Experiment], settings: Settings) -> None:
    """Add all results, whoever made them, to the tables in OUT; tell what is missing."""
    out = Path(settings.out)
    found = rows_by_case(tables.read(out)["rows"]) if tables.find(out) else {}
    done = results(list(experiments.values()))
    found |= {case: rows_of(case, done[one]["rows"]) for case, one in experiments.items() if one in done}
    if found:
        rows = [row for case in sorted(found, key=place) for row in found[case]]
        tables.write(out, {"budgets": budgets_of(settings), "rows": rows})
        print(f"table: {out / 'baselines.md'}")


def place(case: Case) -> tuple[str, str, int, int]:
    """Where a case stands in the tables."""
    return case.environment, case.dataset, METHODS.index(case.method), case.repeat


def rows_by_case(rows: list[Row]) -> dict[Case, list[Row]]:
    """The rows of a table, by what they are about."""
    found: dict[Case, list[Row]] = {}
    for row in rows:
        case = Case(*(row[field.name] for field in dataclasses.fields(Case)))
        found.setdefault(case, []).append(row)
    return found


def rows_of(case: Case, rows: list[Row]) -> list[Row]:
    """A result's rows; of a PerSim run's evaluation those that are about its simulators and one agent."""
    if case.method != "persim":
        return [{**row, **dataclasses.asdict(case)} for row in rows]
    return [
        {**dataclasses.asdict(case), "agent": row["agent"], "metric": row["metric"], "value": row["mean"]}
        for row in rows
        if row["method"] == "persim" and "agent" in row and row["metric"] in tables.METRICS
    ]


if __name__ == "__main__":
    guard(main)
