"""Does the divergence find the latent groups? One policy from scratch for each agent (Zhang 2019, Fig. 4)."""

from dataclasses import dataclass

import numpy as np

from caml.adapt import make_optimiser, update
from caml.clustering import k_medoids, scores
from caml.config import Config
from caml.divergence import policy_divergences
from caml.policy import Policies, num_weights, sizes_of
from caml.problem import groups_of
from caml.rollout import Rollouts
from common.runs.seeding import stream
from envs.problem import Problem


@dataclass
class Snapshot:
    """The P policies after `update` updates; returns and last rewards `[P]` are means over the episodes."""

    update: int
    divergences: np.ndarray  # [P, P]
    labels: np.ndarray  # [P] clusters
    scores: dict[str, float]  # adjusted_rand_index, normalised_mutual_information
    returns: np.ndarray
    last_rewards: np.ndarray


def divergence_study(
    config: Config, problem: Problem, checkpoints: tuple[int, ...] = (0, 10, 20, 40)
) -> list[Snapshot]:
    """Train one policy with each of P agents, all at once; after the updates `checkpoints` cluster them into
    as many medoids as there are latent groups of agents and compare.

    `config` gives the settings of adaptation and divergence, and the seed; see `caml.config.Config`.
    """
    sizes, groups = sizes_of(problem.family, config.num_features), groups_of(problem)
    if groups is None:
        raise ValueError(f"{problem.environment}: its agents have no latent groups")
    uniform = stream(config.seed, "weights").random((problem.num_agents, num_weights(*sizes)), np.float32)
    policies = Policies.fresh(uniform, *sizes, activation=config.activation)
    optimiser = make_optimiser(policies, config.learning_rate)
    rollouts, snapshots = Rollouts(problem, np.arange(problem.num_agents), config), []
    for u in range(max(checkpoints) + 1):
        played = rollouts.play(policies)
        if u in checkpoints:
            states, length = played.first_states(problem.horizon)
            divergences = policy_divergences(
                [own[:n] for own, n in zip(states, length, strict=True)],
                policies.probabilities,
                config.num_states,
                stream(config.seed, "assignment", u),
                config.bandwidth,
                config.normalised_occupancy,
            )
            labels = k_medoids(divergences, len(np.unique(groups))).labels
            returns, last = played.returns().mean(1), played.last_rewards().mean(1)
            snapshots.append(Snapshot(u, divergences, labels, scores(labels, groups), returns, last))
        update(policies, optimiser, played, config)
    rollouts.close()
    return snapshots
