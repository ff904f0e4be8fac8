import numpy as np
import pytest

from envs import EnvError, make_family


def test_arms_pay_with_their_means():
    means = np.array([[0.0, 1.0, 0.25]], np.float32)
    parameters = {"means": np.repeat(means, 3, axis=0)}
    env = make_family("bandit", num_actions=3).make_vec(parameters, np.random.default_rng(0))
    env.reset()
    rewards = np.array([env.step(np.array([0, 1, 2]))[1] for _ in range(4000)])
    assert rewards.dtype == np.float32
    assert (rewards[:, 0] == 0).all() and (rewards[:, 1] == 1).all()
    assert set(np.unique(rewards)) == {0, 1}
    assert abs(rewards[:, 2].mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)


def test_each_task_reads_its_own_row():
    means = np.eye(4, dtype=np.float32)
    env = make_family("bandit", num_actions=4).make_vec({"means": means})
    env.reset(seed=0)
    for arm in range(4):
        assert env.step(np.full(4, arm))[1].tolist() == means[:, arm].tolist()


def test_one_pull_is_one_episode():
    env = make_family("bandit", num_actions=2).make_vec({"means": np.full((3, 2), 0.5, np.float32)})
    observations, infos = env.reset(seed=0)
    assert observations.tolist() == [0, 0, 0] and infos == {}
    for _ in range(3):
        observations, _, terminated, truncated, infos = env.step(np.zeros(3, int))
        assert terminated.all() and not truncated.any()
        assert observations.tolist() == infos["final_obs"].tolist() == [0, 0, 0]


def test_sampled_means_are_uniform():
    means = make_family("bandit", num_actions=10).sample(np.random.default_rng(3), 2000)["means"]
    assert means.shape == (2000, 10) and means.dtype == np.float32
    assert abs(means.mean() - 0.5) < 4 * np.sqrt(1 / 12 / means.size)
    assert abs(means.var() - 1 / 12) < 4 * np.sqrt((1 / 80 - 1 / 144) / means.size)
    assert means.min() >= 0 and means.max() < 1


def test_means_must_be_probabilities():
    with pytest.raises(EnvError, match="outside 0..1"):
        make_family("bandit", num_actions=2).make_vec({"means": np.array([[0.5, 1.5]])})
