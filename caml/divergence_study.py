"""Does the divergence find the latent groups? One policy from scratch for each type (Zhang 2019, Fig. 4)."""

from dataclasses import dataclass

import numpy as np

from caml.adapt import make_optimiser, update
from caml.clustering import k_medoids, scores
from caml.divergence import policy_divergences
from caml.policy import Policies, num_weights
from caml.rollout import Actors, num_inputs_of
from common.runs.seeding import stream


@dataclass
class Snapshot:
    """The P policies after `update` updates; returns and last rewards `[P]` are means over the episodes."""

    update: int
    divergences: np.ndarray  # [P, P]
    labels: np.ndarray  # [P] clusters
    scores: dict[str, float]  # adjusted_rand_index, normalised_mutual_information
    returns: np.ndarray
    last_rewards: np.ndarray


def divergence_study(config, family, parameters, groups, checkpoints=(0, 10, 20, 40)) -> list[Snapshot]:
    """Train one policy on each of P types, all at once; at `checkpoints` cluster them into as many medoids as
    there are latent `groups [P]` and compare.

    `config` gives the settings of adaptation and divergence, and the seed; see `caml.config.Config`.
    """
    num_types, groups = len(groups), np.asarray(groups)
    sizes = num_inputs_of(family.observation_space), config.num_features, int(family.action_space.n)
    uniform = stream(config.seed, "weights").random((num_types, num_weights(*sizes)), np.float32)
    policies = Policies.fresh(uniform, *sizes, config.activation)
    optimiser = make_optimiser(policies, config.learning_rate)
    actors, snapshots = Actors(family, parameters, config), []
    for u in range(max(checkpoints) + 1):
        episodes = actors.play(policies)
        if u in checkpoints:
            states, length = episodes.trajectory(config.max_episode_len)
            divergences = policy_divergences(
                [own[:n] for own, n in zip(states, length, strict=True)],
                policies.probabilities,
                config.num_states,
                stream(config.seed, "assignment", u),
                config.bandwidth,
                config.normalised_occupancy,
            )
            labels = k_medoids(divergences, len(np.unique(groups))).labels
            returns, last = episodes.returns().mean(1), episodes.last_rewards().mean(1)
            snapshots.append(Snapshot(u, divergences, labels, scores(labels, groups), returns, last))
        update(policies, optimiser, episodes, config)
    actors.close()
    return snapshots
