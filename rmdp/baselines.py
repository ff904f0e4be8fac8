"""Random actions, and one policy for all, with the agents and starts of an evaluation (own dynamics only)."""

import dataclasses
from typing import Any

import numpy as np

from common.baselines import train
from common.evaluation import Row
from envs import Problem
from rmdp.config import Config
from rmdp.learner import Learner
from rmdp.policy import Policies
from rmdp.report import welfare_rows

RANDOM, ONE = "random_actions", "one_policy"
BASELINES = (RANDOM, ONE)


def one_policy(config: Config, problem: Problem, budget: float, comm: Any) -> tuple[Policies, int]:
    """r-MDP with k = 1, trained for `budget` environment steps, and the steps it took; a collective."""
    iterations = max(1, round(budget / config.steps_per_policy))
    alone = dataclasses.replace(config, num_policies=1, max_iters=iterations, algorithm="random")
    learner = Learner(alone, comm, problem)
    return learner.policies, int(train(learner, iterations, ONE)["train/env_steps"])


def rows(config: Config, method: str, returns: np.ndarray, env_steps: int, share: float) -> list[Row]:
    """Rows from returns `[n, E]` of one baseline, which trained for a `share` of the run's steps."""
    columns = {"env_steps": env_steps, "share_of_steps": share}
    return welfare_rows(config, returns, method, **columns)


def show(baselines: list[Row]) -> None:
    """Print a table of these rows, if there are any."""
    if not baselines:
        return
    print(f"{'baseline':22s}{'welfare':>9s}{'se':>8s}{'worst 10 %':>12s}  trained for")
    for name in BASELINES:
        found = {r["metric"]: r for r in baselines if r["method"] == name}
        if not found:
            continue
        welfare, worst = found["social_welfare"], found["worst_decile"]
        error = "-" if welfare["se"] is None else f"{welfare['se']:.2f}"
        steps = f"{welfare['env_steps']:,} steps ({welfare['share_of_steps']:.0%} of the run's)"
        print(f"{name:22s}{welfare['mean']:9.2f}{error:>8s}{worst['mean']:12.2f}  {steps}")
