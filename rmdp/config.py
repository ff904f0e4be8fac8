"""Settings of r-MDP; the command-line flags are made from this class."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

from common.config import AT_LEAST_ZERO, MAY_BE_EMPTY, POSITIVE, UNIT_INTERVAL, check, check_run_name
from common.errors import UserError
from envs import SHARED_FAMILIES

# Ivanov & Ben-Porat 2024, the settings of the authors' code, where the two kinds of tasks differ.
SPEED = {
    "learning_rate": 3e-4,
    "entropy_coef": 1e-3,
    "entropy_coef_final": 1e-4,
    "gamma": 0.99,
    "adam_eps": 1e-5,
    "normalise_observations": True,
    "utility_averaging": 0.95,
}
GATHERING = {
    "learning_rate": 5e-4,
    "entropy_coef": 5e-2,
    "entropy_coef_final": 1e-3,
    "gamma": 1.0,
    "adam_eps": 1e-8,
    "normalise_observations": False,
    "utility_averaging": 0.95,
}
# Where each agent has dynamics of its own; utilities are returns of whole episodes there.
SEPARATE = SPEED | {"learning_rate": 1e-3, "entropy_coef": 1e-2, "utility_averaging": 0.5}
SEPARATE_ALGORITHMS = ("em", "random")


@dataclass(frozen=True)
class Config:
    """Personalized RL with a budget of policies (Ivanov & Ben-Porat 2024): k policies serve n agents.

    Sizes are global: more ranks change the speed, not the experiment. A setting that is None takes the value
    that the authors' code has for the environment.
    """

    environment: str = "half_cheetah"
    """Dynamics that all agents share, who differ in what they want: half_cheetah, hopper, walker2d, ant,
    resource_gathering. Or dynamics that differ: cart_pole, mountain_car, particle, module:factory."""
    algorithm: Literal["em", "end_to_end", "cluster", "random", "oracle"] = "em"
    """How agents get their policy: alternating with learning (em), by a softmax that PPO's loss trains
    (end_to_end), by K-means of their rewards (cluster), at random, or by likeness of their wants (oracle)."""
    num_agents: Annotated[int, POSITIVE] = 100
    """Agents of the population (25 cells in resource gathering: 25 serves each once)."""
    num_policies: Annotated[int, POSITIVE] = 5
    """The budget: policies that may serve them."""
    target_low: float | None = None
    """Lowest target speed; None: 0."""
    target_high: float | None = None
    """Highest target speed; None: 4 for HalfCheetah, 2.5 for Hopper and Walker2d, 3 for Ant."""
    population: Annotated[str, MAY_BE_EMPTY] = ""
    """A file of agents (written by envs.Population.save) in place of drawing them; it holds num_agents."""

    policy_network: Literal["shared", "separate"] = "shared"
    """One trunk with a head for each policy, as in the paper's code, or a network for each."""
    num_features: Annotated[int, POSITIVE] = 64
    """Units of each of the two hidden layers."""
    initial_log_std: float = -1.0
    """Logarithm of the standard deviation of actions at the start; it is trained."""
    normalise_observations: bool | None = None
    """Running mean and deviation of observations, one of each for every policy."""

    model_name: str = "rmdp"
    """Name of the run's folder."""
    checkpoint_dir: str = "checkpoints"
    """Where run folders lie."""
    checkpoint_interval: Annotated[int, POSITIVE] = 50
    """Iterations between two saves."""

    max_iters: Annotated[int, POSITIVE] = 1000
    """Iterations of training; the same command again with more continues."""
    steps_per_policy: Annotated[int, POSITIVE] = 2048
    """Steps of each policy in one iteration."""
    envs_per_policy: Annotated[int, POSITIVE] = 32
    """Environments in which each policy acts side by side; divides steps_per_policy."""
    warm_start_iters: Annotated[int, AT_LEAST_ZERO] = 50
    """Iterations with a soft assignment, before each agent goes to the policy that serves it best (em)."""
    utility_averaging: Annotated[float | None, UNIT_INTERVAL] = None
    """What an iteration (or a survey) keeps of the running returns that decide about assignments."""
    assignment_lr: Annotated[float, POSITIVE] = 2e-3
    """Learning rate of the softmax assignment (end_to_end)."""
    num_epochs: Annotated[int, POSITIVE] = 10
    """Passes over the collected steps."""
    num_minibatches: Annotated[int, POSITIVE] = 32
    """Gradient steps of a pass; divides steps_per_policy."""
    clip_range: Annotated[float, POSITIVE] = 0.2
    """Clip range of the probability ratio."""
    target_kl: Annotated[float, POSITIVE] = 0.05
    """Passes end once the divergence from the policy that acted exceeds this."""
    gamma: Annotated[float | None, UNIT_INTERVAL] = None
    """Discount."""
    gae_lambda: Annotated[float, UNIT_INTERVAL] = 0.95
    """Lambda of generalised advantage estimation."""
    entropy_coef: Annotated[float | None, AT_LEAST_ZERO] = None
    """Weight of the entropy bonus at the start; it falls exponentially."""
    entropy_coef_final: Annotated[float | None, AT_LEAST_ZERO] = None
    """The least weight of the entropy bonus."""
    learning_rate: Annotated[float | None, POSITIVE] = None
    """Adam's learning rate at the start; it falls exponentially."""
    learning_rate_final: Annotated[float, POSITIVE] = 1e-4
    """The least learning rate."""
    adam_eps: Annotated[float | None, POSITIVE] = None
    """Adam's epsilon."""
    max_grad_norm: Annotated[float, POSITIVE] = 0.5
    """Gradients are clipped at this norm."""

    seed: Annotated[int, AT_LEAST_ZERO] = 0
    """Everything random follows from it."""

    @property
    def iterations(self) -> int:
        return self.max_iters


def shared(config: Config) -> bool:
    """Whether all agents live in the same dynamics."""
    return config.environment in SHARED_FAMILIES


def check_environment(config: Config) -> None:
    """Refuse environments that are not known, and settings that they do not have."""
    name = config.environment
    if shared(config):
        return
    if name not in ("cart_pole", "mountain_car", "particle") and ":" not in name:
        known = ", ".join([*SHARED_FAMILIES, "cart_pole", "mountain_car", "particle"])
        raise UserError(f"--environment {name}: unknown; choose one of {known}, or module:factory")
    if config.algorithm not in SEPARATE_ALGORITHMS:
        raise UserError(
            f"--algorithm {config.algorithm}: scores all agents on the same steps, but agents of {name} have "
            f"dynamics of their own; choose one of {', '.join(SEPARATE_ALGORITHMS)}"
        )


def check_config(config: Config) -> Config:
    """Refuse settings that cannot work together; return them with every None filled in but target speeds."""
    check_environment(config)
    defaults = GATHERING if config.environment == "resource_gathering" else SPEED
    defaults = defaults if shared(config) else SEPARATE
    missing = {name: value for name, value in defaults.items() if getattr(config, name) is None}
    config = dataclasses.replace(config, **missing)
    check(config)
    check_run_name(config)
    if config.num_policies > config.num_agents:
        raise UserError(
            f"--num_policies {config.num_policies}: more policies than the {config.num_agents} agents "
            "(--num_agents); a policy that serves nobody cannot learn"
        )
    for name in ("envs_per_policy", "num_minibatches"):
        if config.steps_per_policy % getattr(config, name):
            raise UserError(
                f"--steps_per_policy {config.steps_per_policy}: must be a multiple of --{name} "
                f"({getattr(config, name)})"
            )
    speeds = shared(config) and config.environment != "resource_gathering"
    if not speeds and (config.target_low, config.target_high) != (None, None):
        raise UserError(
            f"--target_low, --target_high: {config.environment} has no target speeds; leave them out"
        )
    return config
