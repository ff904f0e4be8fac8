"""Settings of PerSim; the command-line flags are made from this class."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from common.config import AT_LEAST_ZERO, POSITIVE, check, check_run_name
from common.errors import UserError

# Whose dynamics an environment has.
FAMILIES = {"mountain_car": "mountain_car", "cart_pole": "cart_pole", "half_cheetah": "half_cheetah_body"}
DATASETS = ("pure", "random", "pure_eps_20", "pure_eps_40")
# Networks of the authors' code (March 2021): factors, hidden layers of the state and action encoders.
SMALL = {"state_features": 256, "state_layers": 1, "action_features": 50, "action_layers": 0}
LARGE = {"state_features": 512, "state_layers": 4, "action_features": 512, "action_layers": 2}
NETWORKS = {
    "mountain_car": {"num_factors": 3} | SMALL,
    "cart_pole": {"num_factors": 5} | SMALL,
    "half_cheetah": {"num_factors": 15} | LARGE,
    "unknown": {"num_factors": 5} | SMALL | {"action_layers": 1},
}
PAPER = {"max_iters": 300, "num_minibatches": 0, "learning_rate": 1e-3, "schedule": "steps"}
PAPER |= {"normalise": False, "error_clip": 0.0, "settle": False, "input_decay": 0.0}
FAST = {"max_iters": 300, "num_minibatches": 100, "learning_rate": 2e-2, "schedule": "cosine"}
FAST |= {"normalise": True, "error_clip": 0.01, "settle": True, "input_decay": 0.0}
RECIPES = {
    "paper": {
        "mountain_car": PAPER | {"batch_size": 512},
        "cart_pole": PAPER | {"batch_size": 64},
        "half_cheetah": PAPER | {"batch_size": 1024, "normalise": True},
        "unknown": PAPER | {"batch_size": 512, "normalise": True},
    },
    # Measured: these reach the paper's loss on unseen steps many times sooner, and end far below it.
    "fast": {
        "mountain_car": FAST
        | {"batch_size": 512, "max_iters": 200, "learning_rate": 1e-2, "input_decay": 0.1},
        "cart_pole": FAST | {"batch_size": 256, "input_decay": 0.02},
        "half_cheetah": FAST | {"batch_size": 1024, "learning_rate": 1e-3, "error_clip": 1.0},
        "unknown": FAST | {"batch_size": 512, "learning_rate": 5e-3, "error_clip": 1.0},
    },
}


@dataclass(frozen=True)
class Config:
    """PerSim (Agarwal et al. 2021, arXiv 2102.06961): a simulator for each agent, from one log of each.

    Sizes are global: more ranks change the speed, not the experiment. A setting that is None takes the value
    of the environment: networks those of the authors' code, training that of the recipe.
    """

    environment: Literal["mountain_car", "cart_pole", "half_cheetah", "unknown"] = "mountain_car"
    """The dynamics that agents share but for hidden covariates; unknown: those of the log in --dataset."""
    dataset: str = "random"
    """Who acted: pure, random, pure_eps_20, pure_eps_40; or the path of a log (csv, parquet, npz, Minari)."""
    num_agents: Annotated[int, POSITIVE] = 500
    """Agents, each with one trajectory; the first five are the test agents (a log has its own agents)."""

    num_factors: Annotated[int | None, POSITIVE] = None
    """Rank r of the factorisation."""
    num_models: Annotated[int, POSITIVE] = 5
    """Members of the ensemble, trained at once."""
    learn_reward: bool = False
    """Rewards are learnt too, as one more state: what was earned so far; else planning has their formula."""
    pooled: bool = False
    """All agents share one factor: what can be learnt without personal simulators, for comparison."""
    state_features: Annotated[int | None, POSITIVE] = None
    """Units of each hidden layer of the state encoder."""
    state_layers: Annotated[int | None, POSITIVE] = None
    """Its hidden layers."""
    action_features: Annotated[int | None, POSITIVE] = None
    """Units of each hidden layer of the action encoder; discrete actions have a table instead."""
    action_layers: Annotated[int | None, AT_LEAST_ZERO] = None
    """Its hidden layers."""

    model_name: str = "persim"
    """Name of the run's folder."""
    checkpoint_dir: str = "checkpoints"
    """Where run folders lie."""
    checkpoint_interval: Annotated[int, POSITIVE] = 50
    """Iterations between two saves."""

    recipe: Literal["fast", "paper"] = "fast"
    """Where training settings that are None come from; paper: the schedule of the authors' code."""
    max_iters: Annotated[int | None, POSITIVE] = None
    """Iterations of training."""
    num_minibatches: Annotated[int | None, AT_LEAST_ZERO] = None
    """Gradient steps of an iteration; 0: one pass over all transitions."""
    batch_size: Annotated[int | None, POSITIVE] = None
    """Transitions of a gradient step, other ones for each member."""
    learning_rate: Annotated[float | None, POSITIVE] = None
    """Adam's learning rate at the start."""
    schedule: Literal["cosine", "steps"] | None = None
    """It falls to nearly zero by a cosine, or is halved after 1/2 and at the end of max_iters."""
    normalise: bool | None = None
    """States and their differences are divided by their deviations; the paper has raw units for discrete
    actions."""
    error_clip: Annotated[float | None, AT_LEAST_ZERO] = None
    """Errors count by their square up to this many deviations of a difference, by their size beyond, so that
    a few blows against a wall do not outweigh all that is smooth; 0: by their square, as in the paper."""
    input_decay: Annotated[float | None, AT_LEAST_ZERO] = None
    """Decay of the weights by which states enter the state encoder: those of a state that changes nothing
    vanish, so that predictions hold far from where it was seen."""
    settle: bool | None = None
    """At the end members that are stuck in a local optimum are left out of predictions, and agents' factors
    are fitted anew, each to its own steps and to what agents are like."""

    device: str = "cpu"
    """Where training runs, e.g. cuda."""
    seed: Annotated[int, AT_LEAST_ZERO] = 0
    """Everything random follows from it."""

    @property
    def iterations(self) -> int:
        return self.max_iters


def check_config(config: Config, with_data: bool = True) -> Config:
    """Refuse settings that cannot work, each with one line; return them with every None filled in.

    `with_data` is False for a stored run, whose data need not be there any more.
    """
    defaults = NETWORKS[config.environment] | RECIPES[config.recipe][config.environment]
    missing = {name: value for name, value in defaults.items() if getattr(config, name) is None}
    config = dataclasses.replace(config, **missing)
    check(config)
    check_run_name(config)
    if with_data:
        check_dataset(config)
    return config


def check_dataset(config: Config) -> None:
    """Refuse data that cannot be had, or that are too few."""
    if config.dataset not in DATASETS:
        if not Path(config.dataset).exists():
            raise UserError(
                f"--dataset {config.dataset}: neither {', '.join(DATASETS)} nor the path of a log; correct it"
            )
    elif config.environment == "unknown":
        raise UserError(f"--environment unknown: {config.dataset} data cannot be made; give a log's path")
    elif config.num_factors > config.num_agents and not config.pooled:
        raise UserError(
            f"--num_factors {config.num_factors}: more factors than the {config.num_agents} agents "
            "(--num_agents); choose fewer"
        )
