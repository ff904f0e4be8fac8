"""How each cell of RL²'s tables is trained: flags of `python -m train rl2` for experiments.rl2_tables."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from common.shipped import EXAMPLES as FOLDER
from common.shipped import shipped as where_shipped
from experiments.rl2_baselines import BANDIT_TABLE, MDP_TABLE

EXAMPLES = where_shipped(FOLDER)

# Duan et al. 2016, tables 1 and 2: RL².
PAPER_BANDITS = dict(zip(BANDIT_TABLE, (6.7, 6.7, 6.8, 78.7, 83.5, 84.9, 401.6, 432.5, 438.9), strict=True))
PAPER_MDPS = dict(zip(MDP_TABLE, (156.2, 445.7, 936.1, 1428.8, 1913.7), strict=True))
SHIPPED = {
    "bandit_n10_k5",
    "bandit_n100_k5",
    "bandit_n100_k50",
    "mdp_n10",
    "mdp_n25",
}  # in checkpoints/examples


@dataclass(frozen=True)
class Cell:
    """A cell of a table: how it is trained, how many fresh tasks evaluate it, and the paper's returns."""

    name: str
    flags: dict[str, Any]  # of train
    instances: int
    seeds: tuple[int, ...] = (0,)
    baselines: bool = True  # whether the classical ones play those tasks too
    shipped: str = ""  # the shipped model of this cell
    paper: dict[str, float] = field(default_factory=dict)


# Nearly all of a Gittins policy is learnt by imitation; a short PPO at a low rate comes after it. A memory
# that adds up hundreds of small increments needs float32.
GITTINS: dict[str, Any] = {
    "warm_start": "gittins",
    "num_features": 64,
    "precision": "float32",
    "meta_episodes_per_policy_update": 480,
    "meta_episodes_per_learner_batch": 30,
    "warm_start_lr": 1e-2,
    "learning_rate": 1e-3,
    "learning_rate_final": 5e-5,
    "gamma": 1.0,
    "gae_lambda": 0.95,
    "entropy_coef": 0.0,
    "clip_range": 0.1,
}
# Long meta-episodes: few of them are many steps, and their values are as large as those of shorter ones only
# if rewards are scaled down. A return has the noise of all its pulls: imitation alone.
FEW: dict[str, Any] = {
    "warm_start_iters": 150,
    "max_iters": 150,
    "meta_episodes_per_policy_update": 120,
    "meta_episodes_per_learner_batch": 12,
    "num_epochs": 3,
    "learning_rate": 3e-4,
    "reward_scale": 0.006,
}
SHORT = GITTINS | {
    "precision": "auto",
    "meta_episodes_per_policy_update": 2400,
    "meta_episodes_per_learner_batch": 60,
    "warm_start_iters": 25,
    "max_iters": 30,
}
BANDITS: dict[tuple[int, int], dict[str, Any]] = {
    (10, 5): {
        "num_features": 64,
        "max_iters": 300,
        "meta_episodes_per_policy_update": 4800,
        "meta_episodes_per_learner_batch": 240,
        "num_epochs": 4,
        "learning_rate": 3e-3,
        "gamma": 1.0,
        "gae_lambda": 0.95,
        "entropy_coef": 0.01,
    },
    (10, 10): SHORT,
    (10, 50): SHORT,
    (100, 5): {
        "num_features": 64,
        "max_iters": 250,
        "meta_episodes_per_policy_update": 1920,
        "meta_episodes_per_learner_batch": 120,
        "learning_rate": 3e-3,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "entropy_coef": 0.01,
    },
    (100, 10): GITTINS | {"warm_start_iters": 40, "max_iters": 50},
    (100, 50): GITTINS | {"num_features": 128, "warm_start_iters": 50, "max_iters": 60},
    (500, 5): GITTINS | FEW,
    (500, 10): GITTINS | FEW,
    (500, 50): GITTINS | FEW | {"num_features": 128},
}
# A planner with a bonus for exploring is imitated, then PPO goes on, as in the shipped mdp_n10_warm.
PLANNER: dict[str, Any] = {
    "warm_start": "bayes_greedy",
    "meta_episodes_per_policy_update": 480,
    "meta_episodes_per_learner_batch": 30,
    "warm_start_lr": 3e-3,
    "learning_rate": 5e-4,
    "entropy_coef": 0.0,
    "clip_range": 0.15,
    "gae_lambda": 0.9,
    "warm_start_iters": 100,
}
LONG: dict[str, Any] = {
    "precision": "float32",
    "gamma": 0.99,
    "reward_scale": 0.006,
    "meta_episodes_per_policy_update": 240,
    "meta_episodes_per_learner_batch": 15,
}
# What was learnt in meta-episodes of 25 episodes plays 50 and 100 well at once, better than networks that
# begin with those: imitation goes on from there.
FROM_N25: dict[str, Any] = (
    PLANNER
    | LONG
    | {
        "start_from": str(EXAMPLES / "mdp_n25"),
        "warm_start_bonus": 1.0,
        "warm_start_lr": 1.5e-3,
        "warm_start_iters": 45,
        "learning_rate": 3e-4,
    }
)
MDPS: dict[str, dict[str, Any]] = {
    "n10": {},  # the defaults: PPO alone
    "n10_warm": PLANNER | {"warm_start_bonus": 0.5, "max_iters": 300},
    "n25": PLANNER | LONG | {"warm_start_iters": 70, "warm_start_bonus": 1.0, "max_iters": 80},
    "n50": FROM_N25 | {"max_iters": 45},
    "n75": FROM_N25 | {"max_iters": 45},
    "n100": FROM_N25 | {"max_iters": 45},
}

# Memories and ablations are compared on a small budget: the best of docs/rl2.md, "Recipes tried".
BUDGET_MDP: dict[str, Any] = {
    "meta_episodes_per_policy_update": 480,
    "meta_episodes_per_learner_batch": 30,
    "learning_rate": 6e-3,
    "learning_rate_final": 1e-4,
    "gamma": 0.9,
    "gae_lambda": 0.3,
    "entropy_coef_final": 0.02,
    "max_iters": 165,
}
BUDGET_BANDIT: dict[str, Any] = {
    "environment": "bandit",
    "num_features": 64,
    "meta_episodes_per_policy_update": 960,
    "meta_episodes_per_learner_batch": 60,
    "learning_rate": 3e-3,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "entropy_coef": 0.01,
    "max_iters": 80,
}
PROBLEMS = {"mdp_n10": BUDGET_MDP, "bandit_n100_k5": BUDGET_BANDIT}
ATTENTION = {"learning_rate": 1e-3}  # the rates of gated memories are too high for it
MEMORIES: dict[str, dict[str, Any]] = {
    "lstm": {},
    "gru": {"architecture": "gru"},
    "snail": {"architecture": "snail", **ATTENTION},
    "transformer": {"architecture": "transformer", **ATTENTION},
}
ABLATIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "no_time_constants": {"memory_span": 0},
    "linear_readout": {"readout": "linear"},
    "plain_encoder": {"transition_encoder": "plain"},
    "rate_1e-3": {"learning_rate": 1e-3},
    "float32": {"precision": "float32"},
    "bfloat16": {"precision": "bfloat16"},
}
SEEDS = (0, 1)


def bandits() -> list[Cell]:
    """The nine bandits of the paper's table 1."""
    found = []
    for (n, k), flags in BANDITS.items():
        sizes = {"environment": "bandit", "num_actions": k, "meta_episode_len": n}
        paper = {"RL²": PAPER_BANDITS[n, k], "Gittins": BANDIT_TABLE[n, k][1]}
        instances = {10: 10_000, 100: 4000, 500: 1000}[n]
        name = f"n{n}_k{k}"
        found.append(Cell(name, sizes | flags, instances, paper=paper, shipped=shipped(f"bandit_{name}")))
    return found


def mdps() -> list[Cell]:
    """The five tabular MDPs of the paper's table 2; n = 10 also with a warm start."""
    found = []
    for name, flags in MDPS.items():
        n = int(name.split("_")[0][1:])
        paper = {"RL²": PAPER_MDPS[n], "OPSRL": MDP_TABLE[n][2]}
        sizes, instances = {"meta_episode_len": 10 * n}, 4000 if n == 10 else 1000
        found.append(Cell(name, sizes | flags, instances, paper=paper, shipped=shipped(f"mdp_{name}")))
    return found


def shipped(name: str) -> str:
    """The name of a shipped model, or nothing."""
    return name if name in SHIPPED else ""


def architectures() -> list[Cell]:
    """Four memories in two problems, with two seeds each."""
    return [
        Cell(f"{problem}_{name}", flags | changes, 1000, SEEDS, baselines=False)
        for problem, flags in PROBLEMS.items()
        for name, changes in MEMORIES.items()
    ]


def ablations() -> list[Cell]:
    """What was chosen for the MDP n = 10, left out or changed one at a time, with two seeds each."""
    return [
        Cell(name, BUDGET_MDP | changes, 1000, SEEDS, baselines=False) for name, changes in ABLATIONS.items()
    ]


TABLES: dict[str, Callable[[], list[Cell]]] = {
    "bandits": bandits,
    "mdps": mdps,
    "architectures": architectures,
    "ablations": ablations,
}
