"""Settings of CAML; the command-line flags are made from this class."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from common.config import (
    AT_LEAST_ZERO,
    POSITIVE,
    UNIT_INTERVAL,
    Applies,
    Group,
    Within,
    check,
    check_run_name,
)
from common.errors import UserError
from envs.families import DISCRETE_FAMILIES

# Days of diabetes patients: one update from ten of them must not throw a policy over.
DIABETES: dict[str, Any] = {
    "max_episode_len": 288,
    "learning_rate": 2e-3,
    "entropy_coef": 0.0,
    "initial_log_std": -1.5,
}
EXACT = Within(0, 2**24, above=True)  # whole numbers that float32 holds exactly

OF_BOXES = Applies("continuous actions", lambda c: c.environment not in DISCRETE_FAMILIES)
OF_PARTICLES = Applies("--environment particle", lambda c: c.environment == "particle")


@dataclass(frozen=True)
class Config:
    """CAML (Zhang 2019, arXiv 2010.04816): k clustered policies as starts for few-shot adaptation.

    Sizes are global: more ranks change the speed, not the experiment.
    """

    VALUE_ALIASES: ClassVar[dict[str, dict]] = {"bandwidth": {None: "scott"}}

    environment: Annotated[str, Group("population")] = "particle"
    """What agents are drawn from: particle, another family, or module:factory."""
    variant: Annotated[Literal["released", "paper"], OF_PARTICLES] = "released"
    """Physics of the particle: the author's code, with which the figures were made, or the paper's text."""
    maps: Annotated[Literal["identifiable", "random", "released"], OF_PARTICLES] = "identifiable"
    """Base maps of the particle's latent groups: told apart by what is optimal, any, or the author's."""
    num_groups: Annotated[int, POSITIVE] = 6
    """Latent groups; a family without groups just draws num_groups * num_variants agents."""
    num_variants: Annotated[int, POSITIVE] = 4
    """Agents of each group."""
    num_actions: Annotated[int, POSITIVE, OF_PARTICLES] = 4
    """Actions of the particle: 4 moves, or 5 with one that stays."""
    max_episode_len: Annotated[int, EXACT] = 100
    """Steps of an episode at most, in any environment; a longer one is cut."""
    num_support: Annotated[int, POSITIVE] = 12
    """Agents for meta-training; the others are the query agents of the evaluation."""
    split: Literal["balanced", "random", "released"] = "balanced"
    """Which agents are support: of each group as many, any, or the author's 12 of 24."""

    num_features: Annotated[int, POSITIVE, Group("policy")] = 68
    """Units of the hidden layer."""
    activation: Literal["relu", "tanh"] = "relu"
    """Its nonlinearity."""
    initial_log_std: Annotated[float, Within(-20, 5), OF_BOXES] = -0.5
    """Logarithm of the standard deviation of continuous actions at the start."""

    max_iters: Annotated[int, POSITIVE, Group("running")] = 100
    """Iterations of training; the same command again with more continues."""
    seed: Annotated[int, AT_LEAST_ZERO] = 0
    """Everything random follows from it."""

    tasks_per_iteration: Annotated[int, POSITIVE, Group("learning")] = 24
    """Agents drawn and adapted to at once in an iteration; divides pool_size."""
    pool_size: Annotated[int, POSITIVE] = 48
    """Policies saved between two clusterings (n); the medoids before count too."""
    num_medoids: Annotated[int, AT_LEAST_ZERO] = 6
    """Policies kept at each clustering (k); 0: the number with the best silhouette."""
    medoid_choice: Literal["best", "random"] = "best"
    """Which medoid an adaptation starts from: that with the best mean return over num_rollouts episodes which
    all take in turn, as when tested and as in the author's code, or any, as in the paper's Algorithm 2."""
    num_rollouts: Annotated[int, POSITIVE] = 10
    """Episodes of each update, and of the choice of a medoid (K)."""
    updates_per_task: Annotated[int, POSITIVE] = 1
    """Policy-gradient updates on an agent before the policy is saved; the paper has one."""
    learning_rate: Annotated[float, POSITIVE] = 0.01
    """Adam's learning rate; every adaptation starts with moments of zero."""
    gamma: Annotated[float, UNIT_INTERVAL] = 0.99
    """Discount."""
    baseline: Literal["step", "batch"] = "step"
    """Returns are standardised over the episodes at each step, or over all their steps at once."""
    entropy_coef: Annotated[float, AT_LEAST_ZERO] = 0.1
    """Weight of the entropy bonus; without it policies specialise in their agent and groups blur."""
    gradient: Literal["written", "autograd"] = "written"
    """The loss is differentiated by formulas written out, which is faster, or by autograd; up to rounding
    they give the same."""
    num_states: Annotated[int, POSITIVE] = 100
    """States drawn from the pooled density for the divergences."""
    bandwidth: Annotated[float | Literal["scott", "cross_validate"], POSITIVE] = "scott"
    """Of the kernel density: a number, Scott's rule, or the likeliest of 20 in cross-validation."""
    normalised_occupancy: bool = True
    """Occupancies normalised at each state, where a policy's own density of states cancels, or not."""

    model_name: Annotated[str, Group("output")] = "caml"
    """Name of the run's folder."""
    checkpoint_dir: str = "checkpoints"
    """Where run folders lie."""
    checkpoint_interval: Annotated[int, POSITIVE] = 50
    """Iterations between two saves."""

    @classmethod
    def defaults(cls, given: dict[str, Any]) -> "Config":
        """The settings for the environment in `given`."""
        name = given.get("environment", cls.environment)
        return cls(environment=name, **DIABETES if name.startswith("diabetes") else {})

    @property
    def iterations(self) -> int:
        """Iterations of training."""
        return self.max_iters

    @property
    def most_medoids(self) -> int:
        """The most that a choice by silhouette may give: each is to be tried with an agent."""
        half = self.pool_size // 2
        return min(half, self.num_rollouts) if self.medoid_choice == "best" else half


def check_config(config: Config) -> Config:
    """Refuse settings that cannot work together, each with one line that names the flag; return them."""
    check(config)
    check_run_name(config)
    if config.pool_size % config.tasks_per_iteration:
        raise UserError(
            f"--pool_size {config.pool_size}: must be a multiple of --tasks_per_iteration "
            f"({config.tasks_per_iteration})"
        )
    if config.num_medoids > config.pool_size:
        raise UserError(
            f"--num_medoids {config.num_medoids}: more than --pool_size ({config.pool_size}); choose fewer"
        )
    if config.medoid_choice == "best" and config.num_medoids > config.num_rollouts:
        raise UserError(
            f"--num_medoids {config.num_medoids}: more than --num_rollouts ({config.num_rollouts}) can try; "
            "choose fewer, or --medoid_choice random"
        )
    if not config.num_medoids and config.most_medoids < 2:
        raise UserError("--num_medoids 0: a choice takes --pool_size of 4 and --num_rollouts of 2 or more")
    num_agents = config.num_groups * config.num_variants
    if config.num_support >= num_agents:
        raise UserError(
            f"--num_support {config.num_support}: leaves no query agent of {num_agents} "
            "(--num_groups times --num_variants)"
        )
    author = (config.num_groups, config.num_variants, config.num_support) == (6, 4, 12)
    if config.split == "released" and not author:
        raise UserError(
            "--split released: the author's split is of --num_groups 6, --num_variants 4, --num_support 12"
        )
    return config
