"""The cells of a comparison, a method with a seed each: worked on once, by whichever rank is free."""

import importlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from common.runs import run_folder
from common.runs.files import write_atomic
from comparison.config import CAML, PER_AGENT, PERSIM, RL2, RMDP, methods_of, numbers
from comparison.problem import People

# What shapes a cell's result; the rest chooses cells.
SHAPING = ("episodes", "effort", "max_episode_len")


@dataclass(frozen=True)
class Cell:
    """One training of one method: `name` as shown, which `method`, how many policies, which seed."""

    name: str
    method: str
    num_policies: int
    seed: int

    @property
    def file(self) -> str:
        return f"{self.name}_seed{self.seed}.json"


def cells_of(settings, n: int) -> list[Cell]:
    """All cells, the longest first."""
    found = []
    for method in methods_of(settings):
        names = {method: settings.num_policies}
        if method == "single":
            names = {method: 1}
        elif method == "per_agent":
            names = {method: n}
        elif method == "rmdp":
            budgets = [k for k in numbers(settings, "budgets") if 1 < k < n and k != settings.num_policies]
            names |= {f"rmdp_k{k}": k for k in budgets}
        for name, k in names.items():
            found += [Cell(name, method, min(k, n), seed) for seed in numbers(settings, "seeds")]
    return found


def recipe_of(cell: Cell, environment: str) -> dict:
    """The method's own settings for an environment."""
    tables = {"rl2": RL2, "caml": CAML, "persim": PERSIM, "per_agent": PER_AGENT}
    table = tables.get(cell.method, RMDP)
    return table.get(environment, table[""])


def identity(cell: Cell, settings, people: People) -> dict:
    """What a stored result must have been made for."""
    shaping = {name: getattr(settings, name) for name in SHAPING}
    shaping |= {"planned": settings.planned} if cell.method == "persim" else {}
    shaping |= {"recipe": recipe_of(cell, people.environment)}
    who = {"method": cell.method, "k": cell.num_policies, "seed": cell.seed}
    return who | {"population": people.digest} | shaping


def stored(cell: Cell, settings, people: People) -> dict | None:
    """The result of a cell that is done; None if there is none for these settings."""
    try:
        result = json.loads((Path(settings.out) / "cells" / cell.file).read_bytes())
    except (OSError, ValueError):
        return None
    return result if result.get("made_for") == identity(cell, settings, people) else None


def work(cell: Cell, people: People, settings) -> bool:
    """Make a cell's result unless it is there; False if another process is at it. No collective."""
    if stored(cell, settings, people):
        return True
    folder = Path(settings.out) / "cells"
    try:
        held = run_folder.lock(folder / f".{cell.name}_seed{cell.seed}")
    except run_folder.InUse:
        return False
    with held:
        if stored(cell, settings, people):  # finished between the look and the lock
            return True
        print(f"{cell.name}, seed {cell.seed}: begun", flush=True)
        began, clock = time.process_time(), time.perf_counter()
        result = run(cell, people, settings)
        result |= {"name": cell.name, "made_for": identity(cell, settings, people)}
        result |= {"seed": cell.seed, "seconds": time.process_time() - began}
        result |= {"wall_seconds": time.perf_counter() - clock}
        write_atomic(folder / cell.file, json.dumps(result).encode() + b"\n")
    print(f"{cell.name}, seed {cell.seed}: {result['mean']:.2f} in {result['seconds']:.0f} s", flush=True)
    return True


def run(cell: Cell, people: People, settings) -> dict:
    """The outcome of a cell."""
    if cell.method in ("rmdp", "single", "per_agent"):
        module = importlib.import_module("comparison.by_rmdp")
        return module.run(people, settings, cell.seed, cell.num_policies, cell.method == "per_agent")
    return importlib.import_module(f"comparison.by_{cell.method}").run(people, settings, cell.seed)
