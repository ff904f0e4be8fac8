"""The figures of docs/caml.md:  mpirun -np N python -m experiments.caml_study OUT --runs RUNS [flags]

Divergence studies on several kinds of populations, and few-shot adaptation of trained runs beside all
baselines, for several seeds. Writes study.csv, few_shot.csv, tables.md and figure.png to OUT. What is done
lies in RUNS and is not done again: an interrupted command goes on where it was.
"""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from caml import evaluation, figures
from caml.clustering import attainable_rand_index
from caml.config import Config, check_config
from caml.divergence_study import divergence_study
from caml.problem import identities, make_problem
from common.allocator import keep_freed_memory
from common.config import (
    MAY_BE_EMPTY,
    OUTPUT_FOLDER,
    POSITIVE,
    check,
    check_outputs,
    from_stored,
    parse_flags,
)
from common.errors import UserError
from common.evaluation import Row
from common.runs import files
from common.runs.files import write_atomic
from envs.particle import TARGET
from experiments import caml_tables
from experiments.grid import Experiment, Result, results, same, work_apart, work_together
from experiments.sweep import training_run
from experiments.tables import write_csv
from mpi_utils.comm import Comm, guard, set_threads

REACH = 0.97  # of one action in 100 steps of the released physics
AS_RELEASED: dict[str, Any] = {"entropy_coef": 0.0, "baseline": "batch"}
STUDY_COLUMNS = (
    *("population", "seed", "update", "adjusted_rand_index", "attainable_index"),
    *("last_reward", "attainable_reward"),
)
SHOT_COLUMNS = ("seed", "method", "metric", "update", "mean", "env_steps")
HALVING = "caml, halving"
STUDIES: dict[str, dict[str, Any]] = {
    "identifiable": {},
    "released": {"maps": "released"},
    "random": {"maps": "random"},
    "identifiable, no entropy bonus": {"entropy_coef": 0.0},
    "identifiable, the author's baseline": {"baseline": "batch"},
    "identifiable, neither": AS_RELEASED,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "caml, any medoid in training": {"medoid_choice": "random"},
    "caml, no entropy bonus": {"entropy_coef": 0.0},
    "caml, the author's baseline": {"baseline": "batch"},
    "caml, all three": AS_RELEASED | {"medoid_choice": "random"},
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """OUT is the folder of tables and figure."""

    runs: Annotated[str, MAY_BE_EMPTY, OUTPUT_FOLDER] = ""
    """Folder of the run folders."""
    seeds: tuple[int, ...] = tuple(range(10, 20))
    """Seeds of populations and runs; the settings were chosen on seeds 0 to 4."""
    max_iters: Annotated[int, POSITIVE] = 100
    """Iterations of each run."""
    baselines: str = "all"
    """As of `evaluate`."""

    ALIASES: ClassVar[dict[str, str]] = {"opponents": "baselines"}


def main(comm: Comm) -> None:
    """Work on all studies and runs that are not done, and write tables and figure of those that are."""
    with comm.agree():
        out, settings = parse(sys.argv[1:], comm)
    set_threads(comm)
    keep_freed_memory()
    studies = [
        study(name, config_of(settings, seed, changes), settings)
        for name, changes in STUDIES.items()
        for seed in settings.seeds
    ]
    runs = {
        run: (seed, name) for seed in settings.seeds for name, run in few_shot(settings, seed, comm).items()
    }
    work_apart(studies, comm)
    work_together(list(runs), comm)
    with comm.agree():
        if comm.is_root:
            scores = [
                dict(zip(STUDY_COLUMNS, [one.name, result["config"]["seed"], *row], strict=True))
                for one, result in results(studies).items()
                for row in result["rows"]
            ]
            done = {
                runs[run]: [today(row) for row in result["rows"]]
                for run, result in results(list(runs)).items()
            }
            write(out, scores, done)


def parse(arguments: list[str], comm: Comm) -> tuple[Path, Settings]:
    """The folder to write to, and the flags."""
    out, flags = (arguments[0], arguments[1:]) if arguments and arguments[0][0] != "-" else ("", arguments)
    settings = parse_flags(Settings, flags, "python -m experiments.caml_study OUT", show=comm.is_root)
    check(settings)
    out = os.path.expanduser(out)
    if out and comm.is_root:
        check_outputs(settings)
        files.check_output(Path(out), folder=True)
    if not out or not settings.runs or not settings.seeds:
        raise UserError("usage: python -m experiments.caml_study OUT --runs RUNS [--seeds 10 11 12]")
    evaluation.parse_settings(["--baselines", settings.baselines], show=False)
    return Path(out), settings


def config_of(settings: Settings, seed: int, changes: dict[str, Any]) -> Config:
    """A run's settings; the folder is named after what differs from the defaults."""
    name = "__".join(["caml", *(f"{field}-{value}" for field, value in changes.items()), f"seed-{seed}"])
    own: dict[str, Any] = {
        "seed": seed,
        "max_iters": settings.max_iters,
        "checkpoint_dir": settings.runs,
        "model_name": name,
    }
    return check_config(Config(**own, **changes))


def study(name: str, config: Config, settings: Settings) -> Experiment:
    """A divergence study, whose rows have the columns `STUDY_COLUMNS` from update on."""

    def made_for(result: Result) -> bool:
        stored = from_stored(type(config), result.get("config", {}))
        return same(dataclasses.asdict(stored), dataclasses.asdict(config))

    def make() -> Result:
        print(f"study: {name}, seed {config.seed}", flush=True)
        problem = make_problem(config, Comm())
        reward = float(best_last_rewards(problem.rows(slice(None))["moves"]).mean())
        best = attainable_rand_index(problem.rows(slice(None))["group"], identities(problem))
        found = divergence_study(config, problem, evaluation.CHECKPOINTS)
        rows = [
            [s.update, s.scores["adjusted_rand_index"], best, float(s.last_rewards.mean()), reward]
            for s in found
        ]
        return {"config": dataclasses.asdict(config), "rows": rows}

    file = Path(settings.runs) / "studies" / f"{config.model_name}.json"
    return Experiment(name, file, made_for, make)


def best_last_rewards(moves: np.ndarray) -> np.ndarray:
    """The most `[n]` that the released particle's last step can pay: minus the squared distance from the
    target to the hull of where 100 steps of one action lead, on whose edges the nearest point lies.
    """
    ends = REACH * moves.astype(np.float64)
    first, second = ends[:, :, None], ends[:, None]
    edge = second - first  # [n, A, A, 2]
    along = ((TARGET["released"] - first) * edge).sum(-1, keepdims=True)
    share = (along / np.maximum((edge**2).sum(-1, keepdims=True), 1e-12)).clip(0, 1)
    return -((first + share * edge - TARGET["released"]) ** 2).sum(-1).min((1, 2))


def few_shot(settings: Settings, seed: int, comm: Comm) -> dict[str, Experiment]:
    """Runs of a seed with their evaluations: of CAML beside its baselines, of its variants, with halving."""

    def run(changes: dict, flags: str, file: str = "evaluation.json") -> Experiment:
        protocol = evaluation.parse_settings([*flags.split(), "--seed", str(seed)], show=False)
        return training_run("caml", config_of(settings, seed, changes), protocol, comm, file)

    alone = "--baselines none --study False"
    return {
        "caml": run({}, f"--baselines {settings.baselines} --study True"),
        **{name: run(changes, alone) for name, changes in VARIANTS.items()},
        HALVING: run({}, f"{alone} --medoid_selection halving", "halving.json"),
    }


def today(row: Row) -> Row:
    """A row of an evaluation; older ones say type for agent."""
    row = {**row, "method": row["method"].replace("_type", "_agent")}
    return {**row, "agent": row.pop("entity_type")} if "entity_type" in row else row


def in_columns(seed: int, name: str, rows: list[Row]) -> list[Row]:
    """Of rows of an evaluation the means over query agents, with the columns `SHOT_COLUMNS`.

    CAML's own are called `name`; of a variant's run there are no others.
    """
    steps = {row["method"]: int(row["mean"]) for row in rows if row["metric"] == "env_steps"}
    return [
        {
            "seed": seed,
            "method": name if row["method"] == "caml" else row["method"],
            "metric": row["metric"],
            "update": row["update"],
            "mean": row["mean"],
            "env_steps": steps[row["method"]],
        }
        for row in rows
        if row.get("agent") == "all"
    ]


def write(out: Path, studies: list[Row], runs: dict[tuple[int, str], list[Row]]) -> None:
    """The tables, and the figure with curves of all seeds, and end points and maps of the last."""
    shots = [shot for (seed, name), rows in runs.items() for shot in in_columns(seed, name, rows)]
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "study.csv", studies, STUDY_COLUMNS)
    write_csv(out / "few_shot.csv", shots, SHOT_COLUMNS)
    write_atomic(out / "tables.md", caml_tables.markdown(studies, shots).encode())
    plain = {seed: rows for (seed, name), rows in runs.items() if name == "caml"}
    if plain:
        last = list(plain)[-1]
        methods = {row["method"] for row in plain[last]}
        pooled = caml_tables.pooled([shot for shot in shots if shot["method"] in methods])
        rest = [row for row in plain[last] if row.get("agent") is None]
        title = f"Unseen agents, {len(plain)} seeds; end points and maps of seed {last}"
        figures.plot(pooled + rest, out / "figure.png", title)
    print(f"tables and figure in {out}", flush=True)


if __name__ == "__main__":
    guard(main)
