import dataclasses

import numpy as np

from caml.config import Config
from caml.tasks import RELEASED_SUPPORT, draw_types, task_family
from mpi_utils.comm import Comm


def types_of(**settings):
    config = Config(**settings)
    return draw_types(config, task_family(config, Comm()))


def test_support_and_query_are_all_types_once():
    for split in ("balanced", "random", "released"):
        types = types_of(split=split, seed=3)
        assert len(types.support) == 12
        assert sorted([*types.support, *types.query]) == list(range(24))


def test_a_balanced_split_takes_as_many_of_each_group():
    for seed in range(5):
        types = types_of(seed=seed)
        assert np.bincount(types.group[types.support]).tolist() == [2] * 6
        types = types_of(seed=seed, num_support=8)
        assert sorted(np.bincount(types.group[types.support])) == [1, 1, 1, 1, 2, 2]


def test_a_random_split_does_not():
    types = [types_of(seed=seed, split="random") for seed in range(5)]
    counts = [np.bincount(t.group[t.support], minlength=6).tolist() for t in types]
    assert any(count != [2] * 6 for count in counts)


def test_the_released_split_is_the_authors():
    types = types_of(maps="released", split="released", seed=8)
    assert types.support.tolist() == RELEASED_SUPPORT
    assert types.query.tolist() == [2, 4, 5, 6, 7, 11, 12, 14, 17, 19, 20, 23]


def test_types_follow_from_the_seed():
    first, again, other = (types_of(seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.parameters["moves"], again.parameters["moves"])
    assert np.array_equal(first.support, again.support)
    assert not np.array_equal(first.parameters["moves"], other.parameters["moves"])


def test_types_of_a_family_without_groups():
    config = Config(environment="envs.examples:cart_pole_family", num_groups=2, num_variants=3, num_support=4)
    family = task_family(config, Comm())
    types = draw_types(config, family)
    assert types.group is None and len(types.query) == 2
    assert types[types.query]["length"].shape == (2,)
    again = draw_types(dataclasses.replace(config, split="random"), family)
    assert np.array_equal(types.support, again.support)
