"""Settings of PerSim; the command-line flags are made from this class."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from common.config import (
    AT_LEAST_ZERO,
    MAY_BE_EMPTY,
    POSITIVE,
    UNIT_INTERVAL,
    Applies,
    Group,
    check,
    check_run_name,
)
from common.errors import UserError
from envs.families import DISCRETE_FAMILIES

DATASETS = ("pure", "random", "pure_eps_20", "pure_eps_40")
# Networks of the authors' code (March 2021): factors, hidden layers of the state and action encoders.
SMALL = {"state_features": 256, "state_layers": 1, "action_features": 50, "action_layers": 0}
LARGE = {"state_features": 512, "state_layers": 4, "action_features": 512, "action_layers": 2}
NAMED = ("mountain_car", "cart_pole", "half_cheetah_body")  # whose states have names
LOG_FLAGS = ("columns", "action_kind", "decimal", "gaps")
OF_LOGS = Applies("a log, --dataset PATH", lambda c: c.dataset not in DATASETS)
OF_MADE = Applies("data that are made, not a log", lambda c: c.dataset in DATASETS)
OF_STATES = Applies("environments whose states have names", lambda c: c.environment in NAMED)
OF_POLICY = Applies("a policy to be learnt: --policy_iters above 0", lambda c: c.policy_iters)
OF_PPO = Applies("--policy_gradient ppo", lambda c: c.policy_iters and c.policy_gradient == "ppo")
OF_DERIVATIVES = Applies("--policy_gradient model", lambda c: c.policy_iters and c.policy_gradient == "model")
OF_VECTORS = Applies("continuous actions", lambda c: c.environment not in DISCRETE_FAMILIES)
OF_DEEP = Applies("encoders of several hidden layers", lambda c: c.state_layers > 1)
OWN = {"num_factors": 5, **SMALL, "action_layers": 1}  # of other data than the authors'
PATIENTS = ("diabetes", "diabetes_relative")
BY_DERIVATIVES = {
    "policy_gradient": "model",
    "policy_rollouts": 256,
    "rollout_len": 16,
    "policy_minibatches": 25,
    "policy_features": 256,
    "pessimism": 12.0,
    "policy_learning_rate": 2e-3,
}
NETWORKS: dict[str, dict[str, Any]] = {
    "mountain_car": {"num_factors": 3, **SMALL},
    "cart_pole": {"num_factors": 5, **SMALL},
    "half_cheetah_body": {"num_factors": 15, "precision": "auto", **LARGE, **BY_DERIVATIVES},
    **dict.fromkeys(PATIENTS, {"dataset": "pure", "num_agents": 30, "learn_reward": True, **OWN}),
    "unknown": OWN,
}
PAPER = {
    "max_iters": 300,
    "num_minibatches": 0,
    "learning_rate": 1e-3,
    "schedule": "steps",
    "normalise": False,
    "huber_delta": 0.0,
    "refit": False,
    "input_weight_decay": 0.0,
}
# Measured: these reach the paper's loss on unseen steps many times sooner, and end far below it.
FAST = {
    "max_iters": 300,
    "num_minibatches": 100,
    "learning_rate": 2e-2,
    "schedule": "cosine",
    "normalise": True,
    "huber_delta": 0.01,
    "refit": True,
    "input_weight_decay": 0.0,
}
OWN_FAST = {**FAST, "batch_size": 512, "learning_rate": 5e-3, "huber_delta": 1.0}
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "mountain_car": {**PAPER, "batch_size": 512},
        "cart_pole": {**PAPER, "batch_size": 64},
        "half_cheetah_body": {**PAPER, "batch_size": 1024, "normalise": True},
        **dict.fromkeys((*PATIENTS, "unknown"), {**PAPER, "batch_size": 512, "normalise": True}),
    },
    "fast": {
        "mountain_car": {
            **FAST,
            "batch_size": 512,
            "max_iters": 200,
            "learning_rate": 1e-2,
            "input_weight_decay": 0.1,
        },
        "cart_pole": {**FAST, "batch_size": 256, "input_weight_decay": 0.02},
        "half_cheetah_body": {**FAST, "batch_size": 1024, "learning_rate": 1e-3, "huber_delta": 1.0},
        **dict.fromkeys(PATIENTS, {**OWN_FAST, "max_iters": 15, "batch_size": 256}),
        "unknown": OWN_FAST,
    },
}


@dataclass(frozen=True)
class Config:
    """PerSim (Agarwal et al. 2021, arXiv 2102.06961): a simulator for each agent, from one log of each.

    Sizes are global: more ranks change the speed, not the experiment. Defaults follow --environment, whose
    networks are those of the authors' code, and --recipe.
    """

    environment: Annotated[
        Literal["mountain_car", "cart_pole", "half_cheetah_body", "diabetes", "diabetes_relative", "unknown"],
        Group("population"),
    ] = "mountain_car"
    """The dynamics that agents share but for hidden covariates; unknown: those of the log in --dataset."""
    dataset: str = "random"
    """Who acted: pure, random, pure_eps_20, pure_eps_40; or the path of a log (csv, parquet, npz, Minari)."""
    columns: Annotated[str, MAY_BE_EMPTY, OF_LOGS] = ""
    """Which columns of the log are what, where their names do not say it:
    agent=patient,time=timestamp,state=glucose+pulse,action=insulin; others are left out. A role that is not
    given is found by name; reward=none: the log has none."""
    action_kind: Annotated[Literal["auto", "continuous", "discrete"], OF_LOGS] = "auto"
    """Whether the log's action is a quantity or one of several choices; auto: as the environment has it, or
    by its type (words are choices, numbers with a decimal point quantities; whole numbers of a CSV may be
    either: say it)."""
    decimal: Annotated[str, MAY_BE_EMPTY, OF_LOGS] = ""
    """The decimal sign of a CSV, a point or a comma; empty: found out."""
    gaps: Annotated[Literal["refuse", "split"], OF_LOGS] = "refuse"
    """What a missing value does: it is refused, or ends a window as a gap in time does, counted and told;
    agents without enough steps in a row are then left out, and told, too."""
    history: Annotated[int, POSITIVE] = 1
    """Observations, and the actions between them, that make a state: what one observation hides may show in
    several."""
    hide: Annotated[str, MAY_BE_EMPTY, OF_STATES] = ""
    """States of the environment that nobody sees, with commas between: velocity,angular_velocity."""
    num_agents: Annotated[int, POSITIVE, OF_MADE] = 500
    """Agents, each with one trajectory; the first five are the test agents (a log has its own agents)."""
    log_steps: Annotated[int, AT_LEAST_ZERO, OF_MADE] = 0
    """Steps of each trajectory at most, e.g. 2016 for a week of a diabetes patient; 0: an episode's."""

    walls: bool = False
    """Numbers at which many states of the log stop, as at a wall, are stops of the simulators, too."""

    num_factors: Annotated[int, POSITIVE, Group("policy")] = 3
    """Rank r of the factorisation."""
    num_models: Annotated[int, POSITIVE] = 5
    """Members of the ensemble, trained at once."""
    learn_reward: bool = False
    """Rewards are learnt too, as one more state; else planning has their formula."""
    pooled: bool = False
    """All agents share one factor: what can be learnt without a simulator of each, for comparison."""
    state_features: Annotated[int, POSITIVE] = 256
    """Units of each hidden layer of the state encoder."""
    state_layers: Annotated[int, POSITIVE] = 1
    """Its hidden layers."""
    action_features: Annotated[int, POSITIVE, OF_VECTORS] = 50
    """Units of each hidden layer of the action encoder; discrete actions have a table instead."""
    action_layers: Annotated[int, AT_LEAST_ZERO, OF_VECTORS] = 0
    """Its hidden layers."""

    device: Annotated[str, Group("running")] = "cpu"
    """Where training runs, e.g. cuda."""
    seed: Annotated[int, AT_LEAST_ZERO] = 0
    """Everything random follows from it."""

    recipe: Annotated[Literal["fast", "paper"], Group("learning")] = "fast"
    """What the defaults of training are; paper: the schedule of the authors' code."""
    max_iters: Annotated[int, POSITIVE] = 200
    """Iterations of training."""
    num_minibatches: Annotated[int, AT_LEAST_ZERO] = 100
    """Gradient steps of an iteration; 0: one pass over all transitions."""
    batch_size: Annotated[int, POSITIVE] = 512
    """Transitions of a gradient step, other ones for each member."""
    learning_rate: Annotated[float, POSITIVE] = 1e-2
    """Adam's learning rate at the start."""
    schedule: Literal["cosine", "steps"] = "cosine"
    """It falls to nearly zero by a cosine, or is halved after 1/2 and at the end of max_iters."""
    normalise: bool = True
    """States and their differences are divided by their deviations; the paper has raw units for discrete
    actions."""
    huber_delta: Annotated[float, AT_LEAST_ZERO] = 0.01
    """Huber's delta: errors count by their square up to this many deviations of a difference, by their size
    beyond, so that a few impacts do not outweigh all that is smooth; 0: by their square, as in the paper."""
    input_weight_decay: Annotated[float, AT_LEAST_ZERO] = 0.1
    """Decay of the weights by which states enter the state encoder: those of a state that changes nothing
    vanish, so that predictions hold far from where it was seen."""
    refit: bool = True
    """At the end diverged members, stuck in a local optimum, are pruned from predictions, and agents' factors
    are fitted anew, each to its own steps and to what agents are like."""
    precision: Annotated[Literal["auto", "float32", "bfloat16"], OF_DEEP] = "float32"
    """Arithmetic inside the encoders in training; weights and predictions stay float32. auto: bfloat16 if the
    processor has it."""
    gradient: Literal["written", "autograd"] = "written"
    """Autograd, or the same gradient written out in NumPy, which is faster; this serves discrete actions and
    one hidden layer on a processor, all else takes autograd."""

    policy_iters: Annotated[int, AT_LEAST_ZERO, Group("learned_policy")] = 0
    """Iterations, after those of the simulators, that train one policy for all agents inside them; it sees
    the state and the agent's latent factors. 0: none, planning alone acts."""
    policy_gradient: Annotated[Literal["ppo", "model"], OF_POLICY] = "ppo"
    """How: by PPO on what is predicted, or, where actions are continuous, by the derivative of predicted
    returns through the simulators (model)."""
    clone_steps: Annotated[int, POSITIVE, OF_DERIVATIVES] = 4000
    """Gradient steps, of 1,024 rows of the log, that clone its behaviour: so the policy begins."""
    clone_weight: Annotated[float, AT_LEAST_ZERO, OF_DERIVATIVES] = 30.0
    """What the squared distance from the log's own behaviour costs, in deviations of rewards."""
    policy_rollouts: Annotated[int, POSITIVE, OF_POLICY] = 1000
    """Rollouts of an iteration, from logged states on, shared over agents."""
    rollout_len: Annotated[int, POSITIVE, OF_POLICY] = 50
    """Steps of a rollout; where it ends before, another goes on."""
    pessimism: Annotated[float, AT_LEAST_ZERO, OF_POLICY] = 1.0
    """What a step costs, in rewards, at which the ensemble's members are one deviation apart."""
    gamma: Annotated[float, UNIT_INTERVAL, OF_POLICY] = 0.99
    """Discount."""
    gae_lambda: Annotated[float, UNIT_INTERVAL, OF_POLICY] = 0.95
    """Lambda of generalised advantage estimation."""
    clip_range: Annotated[float, POSITIVE, OF_PPO] = 0.2
    """PPO's clipping of probability ratios."""
    entropy_coef: Annotated[float, AT_LEAST_ZERO, OF_PPO] = 0.005
    """Weight of the entropy bonus."""
    num_epochs: Annotated[int, POSITIVE, OF_PPO] = 4
    """Passes over the steps of an iteration."""
    policy_minibatches: Annotated[int, POSITIVE, OF_POLICY] = 20
    """Gradient steps of a pass; with the derivative, of an iteration, `rollout_len` predicted steps each."""
    policy_learning_rate: Annotated[float, POSITIVE, OF_POLICY] = 1e-3
    """Adam's learning rate at the start; it falls linearly to 0."""
    policy_features: Annotated[int, POSITIVE, OF_POLICY] = 64
    """Units of each of the two hidden layers of policy and value."""

    model_name: Annotated[str, Group("output")] = "persim"
    """Name of the run's folder."""
    checkpoint_dir: str = "checkpoints"
    """Where run folders lie."""
    checkpoint_interval: Annotated[int, POSITIVE] = 50
    """Iterations between two saves."""

    ALIASES: ClassVar[dict[str, str]] = {
        "error_clip": "huber_delta",
        "settle": "refit",
        "input_decay": "input_weight_decay",
    }
    VALUE_ALIASES: ClassVar[dict[str, dict]] = {"environment": {"half_cheetah": "half_cheetah_body"}}

    @classmethod
    def defaults(cls, given: Mapping[str, Any]) -> "Config":
        """The defaults of the environment and the recipe that are given, or usual."""
        environment, recipe = given.get("environment"), given.get("recipe")
        environment = environment if environment in NETWORKS else cls.environment
        recipe = recipe if recipe in RECIPES else cls.recipe
        chosen: Any = {"environment": environment, "recipe": recipe}
        return cls(**chosen, **NETWORKS[environment], **RECIPES[recipe][environment])

    @property
    def by_content(self) -> tuple[str, ...]:
        """Settings that say where data are and how they are read: runs compare what was read instead."""
        return ("dataset", *LOG_FLAGS) if self.dataset not in DATASETS else ()

    @property
    def iterations(self) -> int:
        """Iterations of training: of the simulators, then of the policy."""
        return self.max_iters + self.policy_iters


def check_config(config: Config, with_data: bool = True) -> Config:
    """Refuse settings that cannot work, each with one line.

    `with_data` is False for a run whose data are given otherwise, or need not be there any more.
    """
    check(config)
    check_run_name(config)
    if config.policy_iters and config.policy_gradient == "model" and config.environment in DISCRETE_FAMILIES:
        raise UserError(f"--policy_gradient model: actions of {config.environment} are choices; give ppo")
    if config.environment in PATIENTS and not config.learn_reward:
        raise UserError(f"--learn_reward False: {config.environment} is planned with a learned reward only")
    if with_data:
        check_dataset(config)
    return config


def check_dataset(config: Config) -> None:
    """Refuse data that cannot be had, or that are too few."""
    check_decimal(config.decimal)
    if config.learn_reward and re.search(r"(^|,)\s*reward\s*=\s*none\s*(,|$)", config.columns):
        raise UserError("--learn_reward: --columns says reward=none; name the column of the reward")
    if config.dataset not in DATASETS:
        if not Path(config.dataset).exists():
            raise UserError(
                f"--dataset {config.dataset}: neither {', '.join(DATASETS)} nor the path of a log; correct it"
            )
    elif config.environment in PATIENTS and config.dataset not in ("pure", "random"):
        raise UserError(f"--dataset {config.dataset}: {config.environment} has pure and random; give one")
    elif config.environment == "unknown":
        raise UserError(f"--environment unknown: {config.dataset} data cannot be made; give a log's path")
    elif config.num_factors > config.num_agents and not config.pooled:
        raise UserError(
            f"--num_factors {config.num_factors}: more factors than the {config.num_agents} agents "
            "(--num_agents); choose fewer"
        )


def check_decimal(decimal: str) -> None:
    """Refuse a decimal sign that is none."""
    if decimal not in ("", ".", ","):
        raise UserError(f"--decimal {decimal!r}: give . or ,")
