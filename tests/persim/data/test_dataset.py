"""The datasets that are made from a seed, and the trajectories that they are made of."""

import numpy as np
import pytest

from envs import make_family
from mpi_utils.comm import Comm
from persim.data.behaviour import random_policy
from persim.data.trajectories import Follows, log_episodes, trajectories
from persim.problem import make_problem
from tests.persim.runs import configured

DATASETS = ("pure", "random", "pure_eps_20", "pure_eps_40")


def make(environment, dataset, num_agents=50, seed=0):
    config = configured(environment, dataset=dataset, num_agents=num_agents, num_factors=2, seed=seed)
    problem = make_problem(config, Comm())
    return problem.family, problem.log


@pytest.mark.parametrize("environment", ["mountain_car", "cart_pole"])
@pytest.mark.parametrize("dataset", DATASETS)
def test_each_agent_has_one_whole_trajectory(environment, dataset):
    family, data = make(environment, dataset)
    steps = np.bincount(data.agent)
    assert len(steps) == data.num_agents == 50
    assert 1 <= steps.min() and steps.max() <= family.max_episode_len
    first = np.cumsum(steps) - steps
    np.testing.assert_array_equal(data.time, np.arange(len(data)) - first[data.agent])
    inside = data.time > 0
    np.testing.assert_array_equal(data.state[inside], data.next_state[:-1][inside[1:]])
    ended = family.terminated(data.next_state.astype(np.float64))
    last = first + steps - 1
    assert not np.delete(ended, last).any()
    assert (ended[last] | (steps == family.max_episode_len)).all()


@pytest.mark.parametrize("environment", ["mountain_car", "cart_pole"])
def test_what_is_recorded_follows_the_agents_dynamics(environment):
    family, data = make(environment, "pure_eps_20")
    own = {name: values[data.agent] for name, values in data.covariates.items()}
    following = family.advance(data.state.astype(np.float64), data.action, own)
    np.testing.assert_allclose(following, data.next_state, atol=2e-6)
    np.testing.assert_allclose(family.reward(data.state, data.action, data.next_state), data.reward)


def test_the_first_agents_are_the_test_agents_and_the_others_fill_the_ranges():
    family, data = make("cart_pole", "random", 500)
    for name, (low, high) in family.covariates.items():
        np.testing.assert_array_equal(data.covariates[name][:5], family.test_agents[name])
        others = (data.covariates[name][5:] - low) / (high - low)
        assert others.min() > 0 and others.max() < 1
        np.testing.assert_allclose(np.quantile(others, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.08)


@pytest.mark.parametrize("dataset", DATASETS)
def test_seeds_reproduce_bit_for_bit(dataset):
    digests = [make("cart_pole", dataset, seed=seed)[1].digest() for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_all_datasets_differ_and_have_the_same_agents():
    data = [make("mountain_car", dataset)[1] for dataset in DATASETS]
    assert len({one.digest() for one in data}) == 4
    for one in data[1:]:
        np.testing.assert_array_equal(one.covariates["gravity"], data[0].covariates["gravity"])


def test_half_cheetah_is_recorded_at_random_too():
    family, data = make("half_cheetah_body", "random", 2)
    assert np.bincount(data.agent).tolist() == [1000, 1000] and data.action.shape == (2000, 6)
    np.testing.assert_array_equal(data.covariates["mass_scale"], [0.3, 1.7])


def test_trajectories_stand_still_after_their_end_and_pay_nothing_there():
    family = make_family("cart_pole")
    agents = {"force": np.full(40, 18.0), "length": np.full(40, 0.15)}
    played = trajectories(family, agents, random_policy(family), np.random.default_rng(0), 60)
    assert played.states.shape == (40, 61, 4) and played.actions.shape == (40, 60)
    length = played.alive.sum(1)
    assert length.max() < 60  # a short pole under hard random pushes
    np.testing.assert_array_equal(played.returns(), length)
    for e, end in enumerate(length):
        assert played.alive[e, :end].all() and not played.alive[e, end:].any()
        assert family.terminated(played.states[e, end])
        assert (played.states[e, end:] == played.states[e, end]).all()


def test_a_longer_trajectory_begins_like_a_shorter_one():
    family = make_family("mountain_car")
    agents = family.sample(np.random.default_rng(0), 7)
    short, long = (
        trajectories(family, agents, random_policy(family), np.random.default_rng(1), steps)
        for steps in (20, 50)
    )
    np.testing.assert_array_equal(short.states, long.states[:, :21])
    np.testing.assert_array_equal(short.actions, long.actions[:, :20])


def test_an_episode_of_each_agent_of_any_family_is_logged_through_its_environment():
    family = make_family("cart_pole")
    agents = {name: values[:3] for name, values in family.test_agents.items()}
    follows = Follows(random_policy(family), np.random.default_rng(0))
    log = log_episodes(family, agents, follows, np.random.default_rng(1), family.max_episode_len)
    assert log.names == ["0", "1", "2"] and log.state_names == list(family.state_names)
    own = {name: values[log.agent] for name, values in agents.items()}
    following = family.advance(log.state.astype(np.float64), log.action, own)
    np.testing.assert_allclose(following, log.next_state, atol=2e-6)
    last = np.append(np.diff(log.agent) > 0, True)
    np.testing.assert_array_equal(family.terminated(log.next_state.astype(np.float64)), last)
    particle = make_family("particle")
    tasks = particle.sample(np.random.default_rng(0), 4)
    log = log_episodes(particle, tasks, Follows(random_policy(particle), np.random.default_rng(0)), None, 7)
    assert np.bincount(log.agent).tolist() == [7] * 4 and log.state.shape[1] == len(log.state_names)
