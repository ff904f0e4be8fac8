"""The experiments of a comparison, a training of a method with a seed each, on one grid."""

import time
from pathlib import Path
from typing import Any

from common.config import renamed
from comparison.config import Settings, methods_of, numbers, recipe
from comparison.methods import METHODS
from envs import Problem
from experiments.grid import Experiment, Result, same
from rl2.config import Config as RL2Config


def experiments_of(settings: Settings, problem: Problem) -> list[Experiment]:
    """All experiments, the longest first."""
    found, n = [], problem.num_agents
    for method in methods_of(settings):
        budgets = {method: {"single": 1, "per_agent": n}.get(method, min(settings.num_policies, n))}
        if method == "rmdp":
            further = [k for k in numbers(settings, "budgets") if 1 < k < n and k != settings.num_policies]
            budgets |= {f"rmdp_k{k}": k for k in further}
        for name, k in budgets.items():
            seeds = numbers(settings, "seeds")
            found += [experiment(name, method, k, seed, settings, problem) for seed in seeds]
    return found


def experiment(
    name: str, method: str, num_policies: int, seed: int, settings: Settings, problem: Problem
) -> Experiment:
    """One training of one method, and its evaluation on all agents; `name` tells it apart from others."""
    identity = {
        "method": method,
        "k": num_policies,
        "seed": seed,
        "population": problem.digest,
        "episodes": settings.episodes,
        "effort": settings.effort,
        "max_episode_len": settings.max_episode_len,
        "recipe": recipe(method, problem.environment),
        **({"planned": settings.planned} if method == "persim" else {}),
    }

    def made_for(result: Result) -> bool:
        stored: Any = result.get("made_for")
        if not isinstance(stored, dict) or not isinstance(stored.get("recipe"), dict):
            return False
        if method == "rl2":  # older results have the older names
            stored = {**stored, "recipe": renamed(RL2Config, stored["recipe"])}
        return same(stored, identity)

    def make() -> Result:
        print(f"{name}, seed {seed}: begun", flush=True)
        began, clock = time.process_time(), time.perf_counter()
        result = METHODS[method](problem, settings, seed, num_policies)
        seconds = time.process_time() - began
        print(f"{name}, seed {seed}: {result['mean']:.2f} in {seconds:.0f} s", flush=True)
        about = {"name": name, "made_for": identity, "seed": seed, "seconds": seconds}
        return {**result, **about, "wall_seconds": time.perf_counter() - clock}

    file = Path(settings.out) / "cells" / f"{name}_seed{seed}.json"
    return Experiment(f"{name}_seed{seed}", file, made_for, make)
