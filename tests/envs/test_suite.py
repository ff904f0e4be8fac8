"""What holds for every environment of the meta-RL suite."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs import EnvError, make_family
from envs.families import SUITE_FAMILIES
from tests.helpers.shared_stream import (
    assert_shares_play_what_the_whole_plays,
    random_actions,
)

IDS = {
    "half_cheetah_vel": "HalfCheetahVel-v0",
    "half_cheetah_dir": "HalfCheetahDir-v0",
    "ant_dir": "AntDir-v0",
    "ant_forward_backward": "AntForwardBackward-v0",
    "ant_goal": "AntGoal-v0",
    "walker_params": "WalkerParams-v0",
    "grid_navi": "GridNavi-v0",
    "sparse_point_robot": "SparsePointRobot-v0",
}
SIZES = {  # of observations and actions; steps of an episode
    "half_cheetah_vel": (17, 6, 200),
    "half_cheetah_dir": (17, 6, 200),
    "ant_dir": (27, 8, 200),
    "ant_forward_backward": (27, 8, 200),
    "ant_goal": (29, 8, 200),
    "walker_params": (17, 6, 200),
    "grid_navi": (25, 5, 15),
    "sparse_point_robot": (2, 2, 100),
}
NEVER_EARLY = [name for name in SIZES if name not in ("ant_dir", "ant_forward_backward", "walker_params")]
each_family = pytest.mark.parametrize("name", SUITE_FAMILIES)


def test_every_task_of_the_suite_is_tried_here():
    assert SUITE_FAMILIES.keys() == IDS.keys() == SIZES.keys()


@each_family
def test_spaces_and_lengths(name):
    family, (seen, acts, length) = make_family(name), SIZES[name]
    size = [
        space.n if isinstance(space, gymnasium.spaces.Discrete) else space.shape[0]
        for space in (family.observation_space, family.action_space)
    ]
    assert size == [seen, acts] and family.max_episode_len == length
    if name != "grid_navi":
        assert (family.action_space.low == -1).all() and (family.action_space.high == 1).all()


@each_family
def test_gymnasium_checker_is_content(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*infinity. This is probably too")
        check_env(gymnasium.make(IDS[name], max_episode_len=5).unwrapped)


@each_family
def test_the_single_env_is_the_vector_env_with_one_task(name):
    single = gymnasium.make(IDS[name], max_episode_len=4)
    vector = gymnasium.make_vec(IDS[name], num_envs=1, max_episode_len=4)
    observation, observations = single.reset(seed=7)[0], vector.reset(seed=7)[0]
    for action in random_actions(make_family(name), 10, 1):
        assert np.array_equal(observation, observations[0])
        observation, reward, *ends, _ = single.step(action[0])
        observations, rewards, *all_ends, infos = vector.step(action)
        assert rewards.dtype == np.float32 and observations in vector.observation_space
        assert reward == rewards[0] and ends == [flags[0] for flags in all_ends]
        if any(ends):
            assert np.array_equal(observation, infos["final_obs"][0])
            return
    raise AssertionError("the episode had no end")


@each_family
@pytest.mark.parametrize("cut", [0, 3])
def test_shares_play_exactly_what_the_whole_plays(name, cut):
    """Also where they fall, and begin anew each at its own time."""
    family = make_family(name, max_episode_len=20)
    steps = assert_shares_play_what_the_whole_plays(family, 30, 7, cut)
    assert sum(step[2].sum() + step[3].sum() for step in steps[1:]) >= 7


@pytest.mark.parametrize("name", NEVER_EARLY)
def test_only_time_ends_an_episode(name):
    family = make_family(name)
    T = family.max_episode_len
    env = family.make_vec(family.sample(np.random.default_rng(0), 2), np.random.default_rng(1))
    env.reset()
    ends = np.array([env.step(row)[2:4] for row in random_actions(family, T + 5, 2)])
    assert not ends[:, 0].any() and (ends[:, 1].any(axis=1) == (np.arange(T + 5) == T - 1)).all()
    assert ends[T - 1, 1].all()


@each_family
def test_parameters_are_checked(name):
    family = make_family(name)
    good = family.sample(np.random.default_rng(0), 4)
    for key, array in family.check(good).items():
        assert array.dtype == good[key].dtype and np.array_equal(array, good[key])
    with pytest.raises(EnvError, match=f"{name}: .*it takes"):
        family.check({"other": np.zeros(4)})
    for key, array in good.items():
        with pytest.raises(EnvError, match=f"{name}: parameter '{key}' has shape"):
            family.check(good | {key: np.repeat(array[..., None], 2, axis=-1)})
    with pytest.raises(EnvError, match="max_episode_len is 0"):
        make_family(name, max_episode_len=0)


@pytest.mark.parametrize(
    "name, key, value, text",
    [
        ("half_cheetah_dir", "direction", 0.5, "direction of task 1 is 0.5; give 1 or -1"),
        ("walker_params", "damping", -1.0, "damping of task 1 is -1.0; give a factor above 0"),
        ("walker_params", "inertia", 0.0, "inertia of task 1 is 0.0; give a factor above 0"),
        ("grid_navi", "goal", 6, "goal of task 1 is 6; give a cell in 2..24 but 5 and 6"),
        ("ant_goal", "x", np.nan, "of task 1 is not finite"),
    ],
)
def test_impossible_tasks_are_refused(name, key, value, text):
    family = make_family(name)
    parameters = family.sample(np.random.default_rng(0), 3)
    parameters[key][1] = value
    with pytest.raises(EnvError, match=text):
        family.check(parameters)
