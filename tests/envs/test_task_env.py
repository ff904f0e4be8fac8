import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from envs import EnvError, make_family
from envs.examples import cart_pole_family, point_family
from tests.helpers.shared_stream import (
    SlicedStream,
    assert_shares_play_what_the_whole_plays,
    random_actions,
)

IDS = ["BernoulliBandit-v0", "TabularMDP-v0"]
FAMILIES = ["bandit", "tabular_mdp", cart_pole_family, point_family]


@pytest.mark.parametrize("id", IDS)
def test_gymnasium_checker_is_content(id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(id).unwrapped)


@pytest.mark.parametrize("id", IDS)
def test_make_and_make_vec(id):
    single = gymnasium.make(id, num_actions=3)
    vector = gymnasium.make_vec(id, num_envs=4, num_actions=3)
    assert single.action_space == vector.single_action_space == gymnasium.spaces.Discrete(3)
    assert vector.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observations, _ = vector.reset(seed=0)
    assert observations in vector.observation_space
    observations, rewards, terminated, truncated, _ = vector.step(vector.action_space.sample())
    assert observations in vector.observation_space and rewards.dtype == np.float32
    assert rewards.shape == terminated.shape == truncated.shape == (4,)


@pytest.mark.parametrize("id", IDS)
def test_the_single_env_is_the_vector_env_with_one_task(id):
    single, vector = gymnasium.make(id, num_actions=3), gymnasium.make_vec(id, num_envs=1, num_actions=3)
    observation, observations = single.reset(seed=7)[0], vector.reset(seed=7)[0]
    for action in np.random.default_rng(0).integers(3, size=40):
        assert observation == observations[0]
        observation, reward, *ends, _ = single.step(action)
        observations, rewards, *all_ends, infos = vector.step(np.array([action]))
        assert reward == rewards[0] and ends == [flags[0] for flags in all_ends]
        if any(ends):
            assert observation == infos["final_obs"][0]
            observation, _ = single.reset()


def test_seeds_decide_the_task_and_new_task_changes_it():
    env = gymnasium.make("TabularMDP-v0").unwrapped
    task = lambda: env.vector.parameters["reward_mean"].tolist()  # noqa: E731
    env.reset(seed=1)
    first = task()
    env.reset()
    assert task() == first
    env.reset(options={"new_task": True})
    assert task() != first
    env.reset(seed=1)
    assert task() == first


def test_given_parameters_are_kept():
    means = np.array([[0.0, 1.0]], np.float32)
    env = gymnasium.make("BernoulliBandit-v0", num_actions=2, parameters={"means": means})
    for seed in range(5):
        env.reset(seed=seed)
        assert env.step(1)[1] == 1.0
    with pytest.raises(EnvError, match="1 tasks for num_envs=3"):
        gymnasium.make_vec("BernoulliBandit-v0", num_envs=3, num_actions=2, parameters={"means": means})


def test_order_of_calls_is_enforced():
    env = gymnasium.make("BernoulliBandit-v0").unwrapped
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    env.step(0)
    with pytest.raises(ResetNeeded):
        env.step(0)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("cut", [1, 3, 6])
def test_shares_play_exactly_what_the_whole_plays(name, cut):
    """Seven tasks at once give bit for bit what two shares of them give with the shared stream."""
    assert_shares_play_what_the_whole_plays(make_family(name), 23, 7, cut)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_given_stream_is_the_only_randomness(name):
    family = make_family(name)
    parameters = family.sample(np.random.default_rng(0), 3)
    runs = []
    for reset_seed in (1, 2):
        env = family.make_vec(parameters, np.random.default_rng(9))
        observations = [env.reset(seed=reset_seed)[0]]
        observations += [env.step(row)[0] for row in random_actions(family, 12, 3)]
        runs.append(np.array(observations).tobytes())
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", ["bandit", "tabular_mdp", point_family])
def test_an_empty_share_can_be_played(name):
    """A rank may have no task at all."""
    family = make_family(name)
    env = family.make_vec(family.sample(SlicedStream(1, 4, slice(4, 4)), 0), SlicedStream(2, 4, slice(4, 4)))
    assert len(env.reset()[0]) == 0
    assert len(env.step(np.zeros(env.action_space.shape, env.single_action_space.dtype))[1]) == 0
