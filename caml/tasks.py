"""The types: drawn from a family, and split into those to train on and those to be tested on."""

from dataclasses import dataclass

import numpy as np
from gymnasium.spaces import Discrete

from common.errors import UserError
from common.runs.seeding import stream
from envs import agreed_factory, make_family

RELEASED_SUPPORT = [0, 1, 3, 8, 9, 10, 13, 15, 16, 18, 21, 22]  # of 24: the author's code


@dataclass
class Types:
    """n types, their latent groups (None if the family has none), and the numbers of support and query."""

    parameters: dict[str, np.ndarray]  # [n, ...]
    group: np.ndarray | None  # [n]
    support: np.ndarray
    query: np.ndarray

    def __getitem__(self, index) -> dict[str, np.ndarray]:
        """Parameters of the types with these numbers."""
        return {name: values[index] for name, values in self.parameters.items()}


def task_family(config, comm):
    """The family of `config.environment`; a user's factory is imported by rank 0 and sent to all ranks."""
    factory = agreed_factory(config.environment, comm)
    with comm.agree():
        names = ("variant", "num_actions", "max_episode_len", "maps", "num_groups")
        sizes = {name: getattr(config, name) for name in names if config.environment == "particle"}
        family = make_family(factory or config.environment, **sizes)
        if not isinstance(family.action_space, Discrete):
            raise UserError(f"--environment {config.environment}: CAML needs discrete actions, not a Box")
    return family


def draw_types(config, family) -> Types:
    """The population of a run and its split, from the seed."""
    rng, num_types = stream(config.seed, "tasks"), config.num_groups * config.num_variants
    if config.environment == "particle":
        parameters = family.population(rng, config.num_groups, config.num_variants)
    else:
        parameters = family.sample(rng, num_types)
    group = parameters.get("group")
    order = rng.permutation(num_types)
    if config.split == "balanced" and group is not None:
        shuffled = group[order]
        turn = np.tril(shuffled[:, None] == shuffled, -1).sum(1)  # first of its group, second, ...
        order = order[turn.argsort(kind="stable")]
    if config.split == "released":
        order = np.concatenate([RELEASED_SUPPORT, np.setdiff1d(order, RELEASED_SUPPORT)])
    support, query = np.split(order, [config.num_support])
    return Types(parameters, group, np.sort(support), np.sort(query))


def identities(config, types: Types):
    """Labels `[n]` of what can be told apart by what is best on a type: latent groups with one label overlap.

    Of a particle these are the actions that go right or up; another family's groups count as distinct.
    """
    if config.environment != "particle":
        return types.group
    towards_the_target = types.parameters["moves"].sum(-1) > 0  # noise is at most half of the main direction
    return towards_the_target @ 2 ** np.arange(towards_the_target.shape[1])
