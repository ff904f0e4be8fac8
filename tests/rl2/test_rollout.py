import dataclasses

import numpy as np
import torch

import rl2
from envs import make_family
from rl2.config import Config
from rl2.policy import Actor, RecurrentPolicy
from rl2.rollout import episode_returns, play, play_meta_episodes

SMALL = Config(num_features=8, meta_episode_len=25, precision="float32")


def played(seed=0):
    torch.manual_seed(0)
    family = make_family("tabular_mdp", num_states=4, num_actions=3, max_episode_len=10)
    policy = RecurrentPolicy(SMALL, family.observation_space, family.action_space)
    env = family.make_vec(family.sample(np.random.default_rng(seed), 6), rng=np.random.default_rng(seed + 1))
    return policy, play(policy, env, 25, np.random.default_rng(seed + 2))


def test_inputs_tell_what_happened_before():
    policy, batch = played()
    pair_at = 4 + 3 + 2
    for t in range(1, 25):
        assert torch.equal(batch.inputs[t, :, :4].argmax(-1), batch.observation[t])
        assert torch.equal(batch.inputs[t, :, 4:7].argmax(-1), batch.action[t - 1])
        assert torch.equal(batch.inputs[t, :, 7], batch.reward[t - 1])
        assert torch.equal(batch.inputs[t, :, 8], batch.done[t - 1])
        pair = batch.observation[t - 1] * 3 + batch.action[t - 1]
        assert torch.equal(batch.inputs[t, :, pair_at : pair_at + 12].argmax(-1), pair)
    assert batch.done.sum(0).tolist() == [2] * 6  # steps 10 and 20 end episodes
    assert (batch.observation[[0, 10, 20]] == 0).all()  # and the next begins in state 0
    _, value = policy.unroll(batch.inputs, batch.observation)
    assert torch.allclose(value, batch.value, atol=1e-5)


def test_an_actor_plays_what_the_policy_would():
    """The same draws give the same meta-episodes as those to learn from."""
    policy, batch = played()
    family = make_family("tabular_mdp", num_states=4, num_actions=3, max_episode_len=10)
    env = family.make_vec(family.sample(np.random.default_rng(0), 6), np.random.default_rng(1))
    actor = Actor(policy, family.action_space, np.random.default_rng(2))
    reward, done = play_meta_episodes(env, actor, 25)
    assert np.array_equal(reward, batch.reward) and np.array_equal(done, batch.done)


def test_the_same_draws_give_the_same_meta_episodes():
    first, again, other = played()[1], played()[1], played(seed=9)[1]
    for field in dataclasses.fields(first):
        value = getattr(first, field.name)
        assert value is None or torch.equal(value, getattr(again, field.name))
    assert not torch.equal(first.reward, other.reward)


def test_episode_returns_by_hand():
    reward = np.array([[1.0, 1], [2, 2], [4, 4], [8, 8]])
    done = np.array([[0, 1], [1, 0], [0, 0], [0, 1]])
    expected = [[3, 1], [12, 14], [np.nan, np.nan]]  # the first task's last episode is cut off
    assert np.array_equal(episode_returns(reward, done, 3), expected, equal_nan=True)
    assert np.array_equal(episode_returns(reward, done, 1), [[3, 1]])


def test_a_stored_run_acts_in_one_line():
    actor = rl2.load("checkpoints/examples/bandit_n10_k5")
    family = make_family("bandit", num_actions=5)
    env = family.make_vec({"means": np.tile([0.1, 0.1, 0.9, 0.1, 0.1], (50, 1))}, np.random.default_rng(0))
    reward, _ = play_meta_episodes(env, actor, 10)
    assert reward.sum(0).mean() > 5  # chance has 2.6
