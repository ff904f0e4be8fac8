"""Settings of r-MDP; the command-line flags are made from this class."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from common.config import (
    AT_LEAST_ZERO,
    MAY_BE_EMPTY,
    POSITIVE,
    UNIT_INTERVAL,
    Applies,
    Group,
    Within,
    check,
    check_run_name,
)
from common.errors import UserError
from envs import FAMILIES, SHARED_FAMILIES
from envs.families import DISCRETE_FAMILIES
from envs.target_speed import ROBOTS
from rmdp.welfare import parse_welfare

# Where they differ from those of target speeds (Ivanov & Ben-Porat 2024, the authors' code).
GATHERING: dict[str, Any] = {
    "learning_rate": 5e-4,
    "entropy_coef": 5e-2,
    "entropy_coef_final": 1e-3,
    "gamma": 1.0,
    "adam_eps": 1e-8,
    "normalise_observations": False,
}
# Where each agent has dynamics of its own; utilities are returns of whole episodes there.
OWN_DYNAMICS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "entropy_coef": 1e-2,
    "utility_decay": 0.5,
    "envs_per_policy": 0,
}
# Meals decide more of a return than doses do, so days are played eight times; exploring ends with training.
DIABETES: dict[str, Any] = OWN_DYNAMICS | {
    "max_iters": 80,
    "steps_per_policy": 9216,
    "envs_per_policy": 32,
    "envs_per_start": 8,
    "num_minibatches": 16,
    "num_epochs": 5,
    "warm_start_iters": 20,
    "policy_network": "separate",
    "initial_log_std": -1.5,
    "final_log_std": -3.0,
    "learning_rate": 3e-3,
    "learning_rate_final": 3e-4,
    "adam_eps": 1e-8,
    "gamma": 0.995,
    "gae_lambda": 1.0,
    "utility_decay": 0.8,
}
OWN_DYNAMICS_ALGORITHMS = ("em", "random", "given")

OF_OWN = Applies("an environment whose agents have dynamics of their own", lambda c: not shared(c))
OF_GIVEN = Applies("--algorithm given", lambda c: c.algorithm == "given")
OF_EM = Applies("--algorithm em", lambda c: c.algorithm == "em")
OF_SOFT = Applies(
    "--algorithm end_to_end or em, of agents that share dynamics",
    lambda c: c.algorithm in ("end_to_end", "em") and shared(c),
)
OF_RETURNS = Applies(
    "--algorithm em, or agents that share dynamics", lambda c: c.algorithm == "em" or shared(c)
)
OF_UTILITIES = Applies(
    "--welfare other than mean, of agents that have dynamics of their own",
    lambda c: c.welfare != "mean" and not shared(c),
)
OF_BOXES = Applies("continuous actions", lambda c: c.environment not in DISCRETE_FAMILIES)


@dataclass(frozen=True)
class Config:
    """Personalized RL with a budget of policies (Ivanov & Ben-Porat 2024): k policies for n agents.

    Sizes are global: more ranks change the speed, not the experiment. Defaults are those of the authors' code
    for the environment.
    """

    ALIASES: ClassVar[dict[str, str]] = {"utility_averaging": "utility_decay"}
    BEFORE: ClassVar[dict[str, Any]] = {"action_scaling": "none"}
    OTHER_DEFAULTS: ClassVar[tuple[str, ...]] = ("envs_per_policy",)

    environment: Annotated[str, Group("population")] = "half_cheetah"
    """Dynamics that all agents share, who differ in their preferences: half_cheetah, hopper, walker2d, ant,
    resource_gathering. Or dynamics that differ: any other environment, or module:factory."""
    num_agents: Annotated[int, POSITIVE] = 100
    """Agents of the population (resource gathering has 25 cells: with 25 agents, each lives in one)."""
    target_low: float | None = 0.0
    """Lowest target speed, m/s; None where there are no target speeds."""
    target_high: float | None = 4.0
    """Highest target speed, m/s; None where there are no target speeds."""
    population: Annotated[str, MAY_BE_EMPTY] = ""
    """A file of agents (written by envs.Population.save) in place of drawing them; it holds num_agents."""

    max_episode_len: Annotated[int, AT_LEAST_ZERO] = 0
    """Steps of an episode at most; 0: the environment's own."""

    algorithm: Annotated[
        Literal["em", "end_to_end", "cluster", "random", "oracle", "given"], Group("policy")
    ] = "em"
    """How agents get their policy: alternating with learning (em), by a softmax that PPO's loss trains
    (end_to_end), by K-means of their rewards (cluster), at random, by likeness of preferences (oracle), or by
    a parameter of the population, one policy for each of its values (given)."""
    assign_by: Annotated[str, MAY_BE_EMPTY, OF_GIVEN] = ""
    """The parameter by which agents get their policy (given), e.g. the age group."""
    num_policies: Annotated[int, POSITIVE] = 5
    """The budget: policies that agents are assigned to."""
    welfare: str = "mean"
    """What training maximises: the mean of the agents' returns, as in the paper; or, of utilities between an
    agent's floor and its own best, nash (the geometric mean), p=P (a p-mean, P at most 1), cvar=A (the mean
    of the worst share A), or worst (the least)."""
    reference: Annotated[str, MAY_BE_EMPTY, OF_UTILITIES] = ""
    """A run whose policies tell each agent's own best, where the environment does not state it."""
    start_from: Annotated[str, MAY_BE_EMPTY, OF_OWN] = ""
    """A run with fewer policies for the same agents: policies begin as those that their agents have there. Of
    a run with one fewer, that policy is split whose agents are worst off."""
    policy_network: Literal["shared", "separate"] = "shared"
    """One trunk with a head for each policy, as in the paper's code, or a network for each."""
    num_features: Annotated[int, POSITIVE] = 64
    """Units of each of the two hidden layers."""
    initial_log_std: Annotated[float, Within(-20, 5), OF_BOXES] = -1.0
    """Logarithm of the standard deviation of continuous actions at the start."""
    final_log_std: Annotated[float | None, Within(-20, 5), OF_BOXES] = None
    """Falls linearly to this; None: it is trained."""
    initial_action: Annotated[float, Within(-1, 1), OF_BOXES] = 0.0
    """Mean of continuous actions at the start, in -1..1."""
    action_scaling: Annotated[Literal["box", "none"], OF_BOXES] = "box"
    """Continuous actions of a policy in -1..1 are stretched to the bounds of the environment's Box; or they
    are in the environment's units (none), as before there was a choice."""
    normalise_observations: bool = True
    """Running mean and deviation of observations, one of each for every policy."""

    max_iters: Annotated[int, POSITIVE, Group("running")] = 1000
    """Iterations of training; the same command again with more continues."""
    steps_per_policy: Annotated[int, POSITIVE] = 2048
    """Steps of each policy in one iteration."""
    envs_per_policy: Annotated[int, AT_LEAST_ZERO] = 32
    """Environments in which each policy acts side by side; divides steps_per_policy. 0, where agents have
    dynamics of their own: as many as still play whole episodes in an iteration, at most 32."""
    envs_per_start: Annotated[int, POSITIVE, OF_OWN] = 1
    """Environments of a policy that begin alike and draw alike (common random numbers); divides
    envs_per_policy. What a step is worth is then told by those beside it at the same time, not by chance."""
    seed: Annotated[int, AT_LEAST_ZERO] = 0
    """Everything random follows from it."""

    warm_start_iters: Annotated[int, AT_LEAST_ZERO, Group("learning"), OF_EM] = 50
    """Iterations with a soft assignment, before each agent goes to the policy that is best for it (em)."""
    utility_decay: Annotated[float, UNIT_INTERVAL, OF_RETURNS] = 0.95
    """What an iteration (or a survey) keeps of the running returns, by which agents are assigned."""
    assignment_lr: Annotated[float, POSITIVE, OF_SOFT] = 2e-3
    """Learning rate of the softmax assignment (end_to_end)."""
    num_epochs: Annotated[int, POSITIVE] = 10
    """Passes over the collected steps."""
    num_minibatches: Annotated[int, POSITIVE] = 32
    """Gradient steps of a pass; divides steps_per_policy."""
    clip_range: Annotated[float, POSITIVE] = 0.2
    """Clip range of the probability ratio."""
    target_kl: Annotated[float, POSITIVE] = 0.05
    """Passes end once the divergence from the policy that acted exceeds this."""
    gamma: Annotated[float, UNIT_INTERVAL] = 0.99
    """Discount."""
    gae_lambda: Annotated[float, UNIT_INTERVAL] = 0.95
    """Lambda of generalised advantage estimation."""
    entropy_coef: Annotated[float, AT_LEAST_ZERO] = 1e-3
    """Weight of the entropy bonus at the start; it falls exponentially."""
    entropy_coef_final: Annotated[float, AT_LEAST_ZERO] = 1e-4
    """The least weight of the entropy bonus."""
    learning_rate: Annotated[float, POSITIVE] = 3e-4
    """Adam's learning rate at the start; it falls exponentially."""
    learning_rate_final: Annotated[float, POSITIVE] = 1e-4
    """The least learning rate."""
    adam_eps: Annotated[float, POSITIVE] = 1e-5
    """Adam's epsilon."""
    max_grad_norm: Annotated[float, POSITIVE] = 0.5
    """Gradients are clipped at this norm."""
    gradient: Literal["written", "autograd"] = "written"
    """Gradients of the losses: written out in NumPy, which is faster, or PyTorch's of the formulas."""

    model_name: Annotated[str, Group("output")] = "rmdp"
    """Name of the run's folder."""
    checkpoint_dir: str = "checkpoints"
    """Where run folders lie."""
    checkpoint_interval: Annotated[int, POSITIVE] = 50
    """Iterations between two saves."""

    @classmethod
    def defaults(cls, given: dict[str, Any]) -> "Config":
        """The authors' settings for the environment in `given`."""
        name = given.get("environment", cls.environment)
        config = cls(environment=name, target_low=None, target_high=None)
        if name in ROBOTS:
            return dataclasses.replace(config, target_low=0.0, target_high=ROBOTS[name].high)
        if name.startswith("diabetes"):
            start = 0.0 if name == "diabetes_relative" else -0.5
            return dataclasses.replace(config, **DIABETES, initial_action=start)
        return dataclasses.replace(config, **GATHERING if name in SHARED_FAMILIES else OWN_DYNAMICS)

    @property
    def by_content(self) -> tuple[str, ...]:
        """Files that may lie elsewhere later: agents are compared, the others are needed once."""
        return tuple(name for name in ("population", "start_from", "reference") if getattr(self, name))

    @property
    def iterations(self) -> int:
        """Iterations in all, under the name that all systems have for it."""
        return self.max_iters


def shared(config: Config) -> bool:
    """Whether all agents live in the same dynamics."""
    return config.environment in SHARED_FAMILIES


def check_environment(config: Config) -> None:
    """Refuse environments that are not known, and settings that they do not have."""
    name = config.environment
    if shared(config):
        return
    if name not in FAMILIES and ":" not in name:
        known = ", ".join([*SHARED_FAMILIES, *(other for other in FAMILIES if other not in SHARED_FAMILIES)])
        raise UserError(f"--environment {name}: unknown; choose one of {known}, or module:factory")
    if config.algorithm not in OWN_DYNAMICS_ALGORITHMS:
        raise UserError(
            f"--algorithm {config.algorithm}: scores all agents on the same steps, but agents of {name} have "
            f"dynamics of their own; choose one of {', '.join(OWN_DYNAMICS_ALGORITHMS)}"
        )


def check_config(config: Config) -> Config:
    """Refuse settings that cannot work together; return them, with the target speeds of the environment."""
    check_environment(config)
    check(config)
    check_run_name(config)
    parse_welfare(config.welfare)
    if config.num_policies > config.num_agents:
        raise UserError(
            f"--num_policies {config.num_policies}: more policies than the {config.num_agents} agents "
            "(--num_agents); a policy that no agent is assigned to cannot learn"
        )
    if shared(config) and not config.envs_per_policy:
        raise UserError("--envs_per_policy 0: only where agents have dynamics of their own; give 1 or more")
    for name in ("envs_per_policy", "num_minibatches"):
        if getattr(config, name) and config.steps_per_policy % getattr(config, name):
            raise UserError(
                f"--steps_per_policy {config.steps_per_policy}: must be a multiple of --{name} "
                f"({getattr(config, name)})"
            )
    alike, num = config.envs_per_start, config.envs_per_policy
    if num % alike or (alike > 1 and not num):
        raise UserError(f"--envs_per_start {alike}: must divide --envs_per_policy ({num or 'give it, too'})")
    usual, ends = Config.defaults({"environment": config.environment}), ("target_low", "target_high")
    if config.environment in ROBOTS:  # runs of earlier versions store None for the usual ends
        missing = {name: getattr(usual, name) for name in ends if getattr(config, name) is None}
        return dataclasses.replace(config, **missing)
    if any(getattr(config, name) is not None for name in ends):
        raise UserError(
            f"--target_low, --target_high: {config.environment} has no target speeds; leave them out"
        )
    return config
