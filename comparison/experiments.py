"""The experiments of a comparison, a training of a method with a seed each, on one grid."""

import time
from pathlib import Path
from typing import Any

from common.errors import UserError
from comparison.config import Settings, budget_of, methods_of, numbers, recipe
from comparison.methods import METHODS, serves
from comparison.problem import num_groups
from comparison.training import Training
from envs import Problem
from experiments.grid import Experiment, Result, same

PERSIM = ("planned", "behaviour", "simulator_iters")  # settings that make a difference to this method alone


def experiments_of(settings: Settings, problem: Problem) -> tuple[list[Experiment], dict[str, str]]:
    """All experiments, the longest first; and why methods that could be left out are.

    Raises `UserError` for a method that was named and cannot serve the population.
    """
    found, left_out = [], {}
    for name, method, k in trainings(settings, problem):
        seeds = numbers(settings, "seeds")
        if reason := serves(method, Training(problem, settings, seeds[0], k)):
            if settings.methods != "all":
                raise UserError(f"--methods {method}: cannot serve {problem.environment}: {reason}")
            left_out[name] = reason
            continue
        found += [experiment(name, method, k, seed, settings, problem) for seed in seeds]
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UserError(f"no method can serve {problem.environment}: {reasons}")
    return found, left_out


def trainings(settings: Settings, problem: Problem) -> list[tuple[str, str, int]]:
    """Name, method and number of policies of each row of the table; per_group only of agents with groups.

    If per_group was named, it has a row in any case, with as many policies as there are groups.
    """
    found, n, groups = [], problem.num_agents, num_groups(problem)
    for method in methods_of(settings):
        if method == "per_group" and settings.methods == "all" and not 1 < groups < n:
            continue
        k = {"single": 1, "per_group": groups, "per_agent": n}.get(method, min(settings.num_policies, n))
        found.append((method, method, k))
        if method == "rmdp":
            budgets = [k for k in numbers(settings, "budgets") if 1 < k < n and k != settings.num_policies]
            found += [(f"rmdp_k{k}", method, k) for k in budgets]
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
        "budget": budget_of(settings, problem.environment),
        "max_episode_len": settings.max_episode_len,
        "recipe": recipe(method, problem.environment),
        **({name: getattr(settings, name) for name in PERSIM if method == "persim"}),
    }

    def made_for(result: Result) -> bool:
        return same(result.get("made_for"), identity)

    def make() -> Result:
        print(f"{name}, seed {seed}: begun", flush=True)
        began, clock = time.process_time(), time.perf_counter()
        folder = str(Path(settings.out) / "runs" / f"{name}_seed{seed}")
        result: Any = METHODS[method](Training(problem, settings, seed, num_policies, folder))
        seconds = time.process_time() - began
        print(f"{name}, seed {seed}: {result['mean']:.2f} in {seconds:.0f} s", flush=True)
        about = {"name": name, "made_for": identity, "seed": seed, "seconds": seconds}
        return {**result, **about, "wall_seconds": time.perf_counter() - clock}

    file = Path(settings.out) / "cells" / f"{name}_seed{seed}.json"
    return Experiment(f"{name}_seed{seed}", file, made_for, make)
