"""Settings of CAML; the command-line flags are made from this class."""

from dataclasses import dataclass
from typing import Annotated, Literal

from common.config import AT_LEAST_ZERO, POSITIVE, UNIT_INTERVAL, check, check_run_name
from common.errors import UserError


@dataclass(frozen=True)
class Config:
    """CAML (Zhang 2019, arXiv 2010.04816): k clustered policies as starts for few-shot adaptation.

    Sizes are global: more ranks change the speed, not the experiment.
    """

    environment: str = "particle"
    """What types are drawn from: particle, another family with discrete actions, or module:factory."""
    variant: Literal["released", "paper"] = "released"
    """Physics of the particle: the author's code, with which the figures were made, or the paper's text."""
    maps: Literal["identifiable", "random", "released"] = "identifiable"
    """Base maps of the particle's latent groups: told apart by what is optimal, any, or the author's."""
    num_groups: Annotated[int, POSITIVE] = 6
    """Latent groups; a family without groups just draws num_groups * num_variants types."""
    num_variants: Annotated[int, POSITIVE] = 4
    """Types of each group."""
    num_actions: Annotated[int, POSITIVE] = 4
    """Actions of the particle: 4 moves, or 5 with one that stays."""
    max_episode_len: Annotated[int, POSITIVE] = 100
    """Steps of an episode at most, in any environment; a longer one is cut."""
    num_support: Annotated[int, POSITIVE] = 12
    """Types for meta-training; the others are the query types of the evaluation."""
    split: Literal["balanced", "random", "released"] = "balanced"
    """Which types are support: of each group as many, any, or the author's 12 of 24."""

    num_features: Annotated[int, POSITIVE] = 68
    """Units of the hidden layer."""
    activation: Literal["relu", "tanh"] = "relu"
    """Its nonlinearity."""

    model_name: str = "caml"
    """Name of the run's folder."""
    checkpoint_dir: str = "checkpoints"
    """Where run folders lie."""
    checkpoint_interval: Annotated[int, POSITIVE] = 50
    """Iterations between two saves."""

    max_iters: Annotated[int, POSITIVE] = 100
    """Iterations of training; the same command again with more continues."""
    tasks_per_iteration: Annotated[int, POSITIVE] = 24
    """Types drawn and adapted to at once in an iteration; divides pool_size."""
    pool_size: Annotated[int, POSITIVE] = 48
    """Policies saved between two clusterings (n); the medoids before count too."""
    num_medoids: Annotated[int, AT_LEAST_ZERO] = 6
    """Policies kept at each clustering (k); 0: the number with the best silhouette."""
    medoid_choice: Literal["best", "random"] = "best"
    """Which medoid a task starts from: that with the best mean return over num_rollouts episodes which all
    take in turn, as when tested and as in the author's code, or any, as in the paper's Algorithm 2."""
    num_rollouts: Annotated[int, POSITIVE] = 10
    """Episodes of each update, and of the choice of a medoid (K)."""
    updates_per_task: Annotated[int, POSITIVE] = 1
    """Policy-gradient updates on a type before the policy is saved; the paper has one."""
    learning_rate: Annotated[float, POSITIVE] = 0.01
    """Adam's learning rate; every task starts with moments of zero."""
    gamma: Annotated[float, UNIT_INTERVAL] = 0.99
    """Discount."""
    baseline: Literal["step", "batch"] = "step"
    """Returns are standardised over the episodes at each step, or over all their steps at once."""
    entropy_coef: Annotated[float, AT_LEAST_ZERO] = 0.1
    """Weight of the entropy bonus; without it policies specialise in their type and groups blur."""
    num_states: Annotated[int, POSITIVE] = 100
    """States drawn from the pooled density for the divergences."""
    bandwidth: float | Literal["cross_validate"] | None = None
    """Of the kernel density; None: Scott's rule."""
    normalised_occupancy: bool = True
    """Occupancies normalised at each state, where a policy's own density of states cancels, or not."""

    seed: Annotated[int, AT_LEAST_ZERO] = 0
    """Everything random follows from it."""

    @property
    def iterations(self) -> int:
        return self.max_iters

    @property
    def most_medoids(self) -> int:
        """The most that a choice by silhouette may give: each is to be tried on a type."""
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
    num_types = config.num_groups * config.num_variants
    if config.num_support >= num_types:
        raise UserError(
            f"--num_support {config.num_support}: leaves no query type of {num_types} "
            "(--num_groups times --num_variants)"
        )
    if isinstance(config.bandwidth, float) and config.bandwidth <= 0:
        raise UserError(f"--bandwidth {config.bandwidth}: must be greater than 0")
    author = (config.num_groups, config.num_variants, config.num_support) == (6, 4, 12)
    if config.split == "released" and not author:
        raise UserError(
            "--split released: the author's split is of --num_groups 6, --num_variants 4, --num_support 12"
        )
    return config
