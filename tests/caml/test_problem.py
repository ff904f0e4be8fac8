import dataclasses

import numpy as np
import pytest

from caml.config import Config
from caml.problem import RELEASED_SUPPORT, groups_of, make_problem, query_of, with_support
from common.errors import UserError
from mpi_utils.comm import Comm


def problem_of(**settings):
    return make_problem(Config(**settings), Comm())


def test_support_and_query_are_all_agents_once():
    for split in ("balanced", "random", "released"):
        problem = problem_of(split=split, seed=3)
        assert len(problem.support) == 12
        assert sorted([*problem.support, *query_of(problem)]) == list(range(24))


def test_a_balanced_split_takes_as_many_of_each_group():
    for seed in range(5):
        problem = problem_of(seed=seed)
        assert np.bincount(groups_of(problem)[problem.support]).tolist() == [2] * 6
        problem = problem_of(seed=seed, num_support=8)
        assert sorted(np.bincount(groups_of(problem)[problem.support])) == [1, 1, 1, 1, 2, 2]


def test_a_random_split_does_not():
    problems = [problem_of(seed=seed, split="random") for seed in range(5)]
    counts = [np.bincount(groups_of(p)[p.support], minlength=6).tolist() for p in problems]
    assert any(count != [2] * 6 for count in counts)


def test_the_released_split_is_the_authors():
    problem = problem_of(maps="released", split="released", seed=8)
    assert problem.support.tolist() == RELEASED_SUPPORT
    assert query_of(problem).tolist() == [2, 4, 5, 6, 7, 11, 12, 14, 17, 19, 20, 23]


def test_agents_follow_from_the_seed():
    first, again, other = (problem_of(seed=seed) for seed in (1, 1, 2))
    assert first.digest == again.digest and np.array_equal(first.support, again.support)
    assert first.digest != other.digest


def test_agents_of_a_family_without_groups():
    settings = {"num_groups": 2, "num_variants": 3, "num_support": 4}
    environment = "envs.examples:cart_pole_family"
    problem = problem_of(environment=environment, **settings)
    assert groups_of(problem) is None and len(query_of(problem)) == 2
    assert problem.rows(query_of(problem))["length"].shape == (2,)
    again = problem_of(environment=environment, split="random", **settings)
    assert np.array_equal(problem.support, again.support)


def test_a_problem_keeps_its_split_or_gets_one():
    drawn = problem_of(num_support=4)
    own = dataclasses.replace(drawn, support=np.array([3, 5]))
    assert with_support(Config(), own).support.tolist() == [3, 5]
    found = with_support(Config(num_support=4), dataclasses.replace(drawn, support=None))
    assert len(found.support) == 4 and len(query_of(found)) == 20
    with pytest.raises(UserError, match="--num_support 24: leaves no query agent of 24"):
        with_support(Config(num_support=24), dataclasses.replace(drawn, support=None))
