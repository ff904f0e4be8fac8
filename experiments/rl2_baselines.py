"""The classical baselines beside the paper's tables:  python -m experiments.rl2_baselines [flags]

`--instances N --settings bandit-10-5 mdp-10 ...` choose the work, `--tune` plays the grids behind the
constants. All baselines of a setting play the same tasks. `z` is the distance to the paper's mean in standard
errors of the difference, the paper's being that of 1,000 instances. Settings in brackets make a baseline
that the paper does not have.
"""

import argparse
from collections.abc import Iterable
from contextlib import closing
from typing import Any

import numpy as np

from common.evaluation import standard_error
from envs import make_family
from rl2.baselines import BANDITS, MDPS, make_baseline
from rl2.rollout import play_meta_episodes

EPISODE_LENGTH = 10
PAPER_INSTANCES = 1000
# Duan et al. 2016, tables 1 and 2.
BANDIT_METHODS = "random gittins thompson optimistic_thompson ucb1 epsilon_greedy greedy".split()
BANDIT_TABLE = {  # (pulls, arms)
    (10, 5): (5.0, 6.6, 5.7, 6.5, 6.7, 6.6, 6.6),
    (10, 10): (5.0, 6.6, 5.5, 6.2, 6.7, 6.6, 6.6),
    (10, 50): (5.1, 6.5, 5.2, 5.5, 6.6, 6.5, 6.5),
    (100, 5): (49.9, 78.3, 74.7, 77.9, 78.0, 75.4, 74.8),
    (100, 10): (49.9, 82.8, 76.7, 81.4, 82.4, 77.4, 77.1),
    (100, 50): (49.8, 85.2, 64.5, 67.7, 84.3, 78.3, 78.0),
    (500, 5): (249.8, 405.8, 402.0, 406.7, 405.8, 388.2, 380.6),
    (500, 10): (249.0, 437.8, 429.5, 438.9, 437.1, 408.0, 395.0),
    (500, 50): (249.6, 463.7, 427.2, 437.6, 457.6, 413.6, 402.8),
}
MDP_METHODS = "random psrl opsrl ucrl2 beb epsilon_greedy greedy".split()
MDP_TABLE = {  # episodes
    10: (100.1, 138.1, 144.1, 146.6, 150.2, 132.8, 134.8),
    25: (250.2, 408.8, 425.2, 424.1, 427.8, 377.3, 368.8),
    50: (499.7, 904.4, 930.7, 918.9, 917.8, 823.3, 769.3),
    75: (749.9, 1417.1, 1449.2, 1427.6, 1422.6, 1293.9, 1172.9),
    100: (999.4, 1939.5, 1973.9, 1942.1, 1935.1, 1778.2, 1578.5),
}
SETTINGS = [f"bandit-{n}-{k}" for n, k in BANDIT_TABLE] + [f"mdp-{n}" for n in MDP_TABLE]
TRUE_PRIOR = {"prior_mean": 1.0, "prior_weight": 1.0}
STRONGER_BANDITS = {"epsilon_greedy": {"random_ties": True}}
STRONGER_MDPS = {
    "psrl": TRUE_PRIOR,
    "opsrl": TRUE_PRIOR,
    "ucrl2": {**TRUE_PRIOR, "scale": 0.06},
    "beb": {**TRUE_PRIOR, "scale": 1.0},
    "epsilon_greedy": TRUE_PRIOR,
    "greedy": TRUE_PRIOR,
}
BANDIT_GRID = {
    "optimistic_thompson": ("num_draws", (1, 5, 20, 50)),
    "ucb1": ("scale", (0.05, 0.1, 0.15, 0.2, 0.3)),
    "epsilon_greedy": ("epsilon", (0.0, 0.01, 0.03, 0.05, 0.1, 0.2)),
}
MDP_GRID = {
    "opsrl": ("num_draws", (1, 2, 5, 10, 20)),
    "ucrl2": ("scale", (0.03, 0.1, 0.2, 0.3, 0.4, 0.6)),
    "beb": ("scale", (0.5, 1.0, 1.25, 1.5, 2.0, 3.0)),
    "epsilon_greedy": ("epsilon", (0.02, 0.05, 0.1, 0.2, 0.3)),
}


def rows_of(
    table: Iterable[str], stronger: dict[str, dict], grid: dict[str, tuple], tune: bool
) -> list[tuple[str, dict]]:
    """(method, settings) of every row: the table and its stronger variants, or the grid of `--tune`."""
    if tune:
        return [(method, {name: value}) for method, (name, values) in grid.items() for value in values]
    return [(method, {}) for method in table] + list(stronger.items())


def returns(
    family: Any, num_steps: int, method: str, settings: dict, instances: int, seed: int
) -> np.ndarray:
    """Rewards summed up to every step, [num_steps, instances]; tasks and play depend on the seed alone."""
    tasks = family.sample(np.random.default_rng([seed, 0]), instances)
    rng = np.random.default_rng([seed, 1])
    dynamics = np.random.default_rng(int(rng.integers(2**31)))
    actor = make_baseline(method, tasks, num_steps, EPISODE_LENGTH, rng=rng, **settings)
    with closing(family.make_vec(tasks, dynamics)) as env:
        rewards, _ = play_meta_episodes(env, actor, num_steps)
    return rewards.cumsum(axis=0, dtype=np.float64)


def print_row(setting: str, method: str, settings: dict, values: np.ndarray, table: dict) -> None:
    """One line: returns `values` [instances] beside the paper's, which has none of further `settings`."""
    label = method + "".join(f" [{name}={value:g}]" for name, value in settings.items())
    mean, se = values.mean(), standard_error(values) or np.nan
    paper, text = None if settings else table.get(method), f"{setting:14s} {label:48s} {mean:9.2f} {se:7.2f}"
    if paper is not None:
        z = (mean - paper) / (se * np.sqrt(1 + len(values) / PAPER_INSTANCES))
        text += f" {paper:9.1f} {z:6.1f}"
    print(text)


def main() -> None:
    """Play all that is asked for and print a line for each."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.rl2_baselines", description=__doc__.split(":")[0]
    )
    parser.add_argument("--instances", type=int, default=100, help="tasks a setting (at least 2)")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS, metavar="SETTING")
    parser.add_argument(
        "--tune", action="store_true", help="the grids behind the constants, instead of the table"
    )
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    if flags.instances < 2:
        parser.error("--instances: a standard error needs at least 2")
    print(f"{'setting':14s} {'method':48s} {'mean':>9s} {'se':>7s} {'paper':>9s} {'z':>6s}")
    for (num_steps, num_arms), column in BANDIT_TABLE.items():
        if (setting := f"bandit-{num_steps}-{num_arms}") in flags.settings:
            paper = dict(zip(BANDIT_METHODS, column, strict=True))
            family = make_family("bandit", num_actions=num_arms)
            for method, settings in rows_of(BANDITS, STRONGER_BANDITS, BANDIT_GRID, flags.tune):
                total = returns(family, num_steps, method, settings, flags.instances, flags.seed)[-1]
                print_row(setting, method, settings, total, paper)
    lengths = [n for n in MDP_TABLE if f"mdp-{n}" in flags.settings]
    for method, settings in rows_of(MDPS, STRONGER_MDPS, MDP_GRID, flags.tune) if lengths else ():
        # No baseline looks at the number of episodes: a longer meta-episode begins with the shorter ones.
        family, num_steps = make_family("tabular_mdp"), max(lengths) * EPISODE_LENGTH
        total = returns(family, num_steps, method, settings, flags.instances, flags.seed)
        for n in lengths:
            paper = dict(zip(MDP_METHODS, MDP_TABLE[n], strict=True))
            print_row(f"mdp-{n}", method, settings, total[n * EPISODE_LENGTH - 1], paper)


if __name__ == "__main__":
    main()
