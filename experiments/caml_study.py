"""The figures of docs/caml.md:  mpirun -np N python -m experiments.caml_study OUT --runs RUNS [flags]

Divergence studies on several kinds of populations, and few-shot adaptation of trained runs beside all
baselines, for several seeds. Writes study.csv, few_shot.csv, tables.md and figure.png to OUT. What is done
lies in RUNS and is not done again: an interrupted command goes on where it was.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np

from caml import evaluation, figures
from caml.clustering import attainable_rand_index
from caml.config import Config, check_config
from caml.divergence_study import divergence_study
from caml.problem import groups_of, identities, make_problem
from common.allocator import keep_freed_memory
from common.config import MAY_BE_EMPTY, POSITIVE, check, parse_flags
from common.errors import UserError
from common.runs import checkpoint
from common.runs.files import write_atomic
from envs.particle import TARGET
from experiments import caml_tables
from experiments.runs import Cell, newest, rows_of, work
from experiments.tables import write_rows
from mpi_utils.comm import guard, set_threads

REACH = 0.97  # of one action in 100 steps of the released physics
AS_RELEASED = {"entropy_coef": 0.0, "baseline": "batch"}
STUDIES = {
    "identifiable": {},
    "released": {"maps": "released"},
    "random": {"maps": "random"},
    "identifiable, no entropy bonus": {"entropy_coef": 0.0},
    "identifiable, the author's baseline": {"baseline": "batch"},
    "identifiable, neither": AS_RELEASED,
}
VARIANTS = {
    "caml, any medoid in training": {"medoid_choice": "random"},
    "caml, no entropy bonus": {"entropy_coef": 0.0},
    "caml, the author's baseline": {"baseline": "batch"},
    "caml, all three": AS_RELEASED | {"medoid_choice": "random"},
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """OUT is the folder of tables and figure."""

    runs: Annotated[str, MAY_BE_EMPTY] = ""
    """Folder of the run folders."""
    seeds: tuple[int, ...] = tuple(range(10, 20))
    """Seeds of populations and runs; the settings were chosen on seeds 0 to 4."""
    max_iters: Annotated[int, POSITIVE] = 100
    """Iterations of each run."""
    baselines: str = "all"
    """As of `evaluate`."""


def main(comm) -> None:
    with comm.agree():
        out, settings = parse(sys.argv[1:], comm)
    set_threads(comm)
    keep_freed_memory()
    studies = [
        [name, seed, *row]
        for name, changes in STUDIES.items()
        for seed in settings.seeds
        for row in study(name, config_of(settings, seed, changes), settings, comm)
    ]
    shots, rows = [], []
    for seed in settings.seeds:
        rows = few_shot("caml", config_of(settings, seed, {}), seed, settings, comm)
        shots += in_columns(seed, rows)
        for name, changes in VARIANTS.items():
            found = few_shot(name, config_of(settings, seed, changes), seed, settings, comm)
            shots += in_columns(seed, [row for row in found if row["method"] == "caml"], name)
        halving = halve(config_of(settings, seed, {}), seed, comm)
        shots += in_columns(seed, halving, "caml, halving")
    with comm.agree():
        if comm.is_root:
            write(out, studies, shots, rows)


def parse(arguments: list[str], comm) -> tuple[Path, Settings]:
    """The folder to write to, and the flags."""
    out, flags = (arguments[0], arguments[1:]) if arguments and arguments[0][0] != "-" else ("", arguments)
    settings = parse_flags(Settings, flags, "python -m experiments.caml_study OUT", show=comm.is_root)
    check(settings)
    if not out or not settings.runs or not settings.seeds:
        raise UserError("usage: python -m experiments.caml_study OUT --runs RUNS [--seeds 10 11 12]")
    evaluation.parse_settings(["--baselines", settings.baselines], show=False)
    return Path(out), settings


def config_of(settings: Settings, seed: int, changes: dict) -> Config:
    """A run's settings; the folder is named after what differs from the defaults."""
    name = "__".join(["caml", *(f"{field}-{value}" for field, value in changes.items()), f"seed-{seed}"])
    where = {"checkpoint_dir": settings.runs, "model_name": name}
    return check_config(Config(seed=seed, max_iters=settings.max_iters, **where, **changes))


def study(name: str, config: Config, settings: Settings, comm) -> list[list]:
    """Rows (update, adjusted Rand index, the best attainable, last reward, the best attainable); rank 0's,
    computed once.
    """
    path = Path(settings.runs) / "studies" / f"{config.model_name}.json"
    problem = make_problem(config, comm)
    rows = None
    with comm.agree():
        if comm.is_root and path.exists():
            stored = json.loads(path.read_bytes())
            rows = stored["rows"] if stored["config"] == dataclasses.asdict(config) else None
        if comm.is_root and rows is None:
            print(f"study: {name}, seed {config.seed}", flush=True)
            reward = float(best_last_rewards(problem.agents["moves"]).mean())
            best = attainable_rand_index(groups_of(problem), identities(problem))
            found = divergence_study(config, problem, evaluation.CHECKPOINTS)
            rows = [
                [s.update, s.scores["adjusted_rand_index"], best, float(s.last_rewards.mean()), reward]
                for s in found
            ]
            path.parent.mkdir(parents=True, exist_ok=True)
            content = {"config": dataclasses.asdict(config), "rows": rows}
            write_atomic(path, json.dumps(content).encode())
    return comm.bcast_object(rows)


def best_last_rewards(moves):
    """The most `[n]` that the released particle's last step can pay: minus the squared distance from the
    target to the hull of where 100 steps of one action lead, on whose edges the nearest point lies.
    """
    ends = REACH * moves.astype(np.float64)
    first, second = ends[:, :, None], ends[:, None]
    edge = second - first  # [n, A, A, 2]
    along = ((TARGET["released"] - first) * edge).sum(-1, keepdims=True)
    share = (along / np.maximum((edge**2).sum(-1, keepdims=True), 1e-12)).clip(0, 1)
    return -((first + share * edge - TARGET["released"]) ** 2).sum(-1).min((1, 2))


def few_shot(name: str, config: Config, seed: int, settings: Settings, comm) -> list[dict]:
    """Rows of a run's evaluation, trained and evaluated unless that is done."""
    plain = name == "caml"
    flags = ["--baselines", settings.baselines if plain else "none", "--seed", str(seed)]
    protocol = evaluation.parse_settings([*flags, "--study", str(plain)], show=False)
    cell = Cell({}, config)
    if not work("caml", cell, evaluation, protocol, comm):
        raise UserError(f"{cell.folder}: another process works on it; start this command again later")
    rows = None
    with comm.agree():
        rows = rows_of(cell, protocol) if comm.is_root else None
    return comm.bcast_object(rows)


def halve(config: Config, seed: int, comm) -> list[dict]:
    """Rows of the same run with successive halving."""
    with comm.agree():
        _, state = checkpoint.load(newest(Cell({}, config))[1])
    flags = ["--baselines", "none", "--study", "False", "--medoid_selection", "halving", "--seed", str(seed)]
    protocol = evaluation.parse_settings(flags, show=False)
    return evaluation.evaluate(dataclasses.asdict(config), state, protocol, comm)


def in_columns(seed: int, rows: list[dict], name: str = "") -> list[list]:
    """(seed, method, metric, update, mean over query agents, training steps) of rows of an evaluation."""
    steps = {row["method"]: row["mean"] for row in rows if row["metric"] == "env_steps"}
    return [
        [seed, name or r["method"], r["metric"], r["update"], r["mean"], int(steps[r["method"]])]
        for r in rows
        if r.get("agent") == "all"
    ]


def write(out: Path, studies: list[list], shots: list[list], rows: list[dict]) -> None:
    """The tables, and the figure with curves of all seeds, and end points and maps of the last."""
    out.mkdir(parents=True, exist_ok=True)
    study_header = ["population", "seed", "update", "adjusted_rand_index", "attainable_index"]
    study_header += ["last_reward", "attainable_reward"]
    shots_header = ["seed", "method", "metric", "update", "mean", "env_steps"]
    write_rows(out / "study.csv", study_header, studies)
    write_rows(out / "few_shot.csv", shots_header, shots)
    write_atomic(out / "tables.md", caml_tables.markdown(studies, shots).encode())
    methods = {row["method"] for row in rows}
    pooled = caml_tables.pooled([shot for shot in shots if shot[1] in methods])
    rest = [row for row in rows if row.get("agent") is None]
    seeds = list(dict.fromkeys(shot[0] for shot in shots))
    title = f"Unseen agents, {len(seeds)} seeds; end points and maps of seed {seeds[-1]}"
    figures.plot(pooled + rest, out / "figure.png", title)
    print(f"tables and figure in {out}", flush=True)


if __name__ == "__main__":
    guard(main)
