"""Episodes of many policies at once: what counts, and what they are drawn from."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from caml.config import Config
from caml.medoid_selection import mean_returns, take_turns
from caml.policy import Policies, num_weights
from caml.rollout import Rollouts, collect
from envs import make_family
from envs.problem import Problem


class Countdown:
    """Environment e ends after lengths[e] steps (0: never); it shows 10 e + t, and step t pays t + 1."""

    single_action_space = Discrete(2)

    def __init__(self, lengths, discrete=False):
        self.lengths, self.num_envs = np.array(lengths), len(lengths)
        self.single_observation_space = Discrete(99) if discrete else Box(0, 99, (1,), np.float32)

    def shown(self):
        number = 10 * np.arange(self.num_envs) + self.t
        return (
            number if isinstance(self.single_observation_space, Discrete) else number[:, None].astype(float)
        )

    def reset(self):
        self.t = np.zeros(self.num_envs, int)
        return self.shown(), {}

    def step(self, actions):
        self.t += 1
        reward, ended, infos = self.t.astype(float), self.t == self.lengths, {}
        if ended.any():
            final = np.empty(self.num_envs, object)
            for e in ended.nonzero()[0]:
                final[e] = self.shown()[e]
            infos = {"final_obs": final}
            self.t[ended] = 0
        half = np.arange(self.num_envs) % 2 == 0
        return self.shown(), reward, ended & half, ended & ~half, infos


def policies_of(num_policies, num_inputs, num_actions=2, seed=0):
    sizes = num_inputs, 8, num_actions
    rng = np.random.default_rng(seed)
    return Policies.fresh(rng.random((num_policies, num_weights(*sizes)), np.float32), *sizes)


def test_what_follows_the_end_of_an_episode_does_not_count():
    episodes = collect(policies_of(2, 1), Countdown([2, 3, 1, 0]), 4, np.random.default_rng(0))
    assert episodes.alive.shape == (4, 2, 2)
    alive = [[1, 1, 1, 1], [1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1]]
    assert episodes.alive.reshape(4, 4).tolist() == np.array(alive, bool).tolist()
    assert episodes.reward.reshape(4, 4).tolist() == [[1, 1, 1, 1], [2, 2, 0, 2], [0, 3, 0, 3], [0, 0, 0, 4]]
    assert episodes.returns().tolist() == [[3, 6], [1, 10]]
    assert episodes.last_rewards().tolist() == [[2, 3], [1, 4]]
    assert episodes.final_observation[..., 0].tolist() == [[2, 13], [21, 34]]
    states, length = episodes.first_states(6)
    assert length.tolist() == [2, 1]
    assert states[..., 0].tolist() == [[0, 1, 0, 0, 0, 0], [20, 0, 0, 0, 0, 0]]


def test_it_stops_when_all_have_ended():
    episodes = collect(policies_of(1, 1), Countdown([2, 3]), 50, np.random.default_rng(0))
    assert len(episodes.reward) == 3
    assert episodes.final_observation[0, :, 0].tolist() == [2, 13]


def test_discrete_observations_come_as_one_hot_vectors():
    episodes = collect(policies_of(2, 99), Countdown([1, 2], discrete=True), 5, np.random.default_rng(0))
    assert episodes.observation.sum(-1).tolist() == np.ones((2, 2, 1)).tolist()
    assert episodes.observation[1, 1, 0].argmax() == 11
    assert episodes.final_observation.argmax(-1).tolist() == [[1], [12]]


def test_actions_follow_the_softmax_of_the_logits():
    policies = policies_of(2, 1, 3)
    for name in ("first.weight", "first.bias", "head.weight"):
        policies.tensors[name].data.zero_()
    wanted = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    policies.tensors["head.bias"].data[:] = torch.tensor(wanted).log()[..., None]
    env = Countdown([0] * 200)
    env.single_action_space = Discrete(3)
    action = collect(policies, env, 50, np.random.default_rng(0)).action
    shares = (action[..., None] == np.arange(3)).mean((0, 2))
    np.testing.assert_allclose(shares, wanted, atol=0.02)


@pytest.mark.parametrize("cuts", [(0, 5), (0, 2, 5), (0, 1, 3, 5)])
def test_shares_of_agents_play_what_all_play(cuts):
    family, config = make_family("particle", max_episode_len=8), Config(max_episode_len=8, num_rollouts=3)
    problem = Problem("particle", family, family.sample(np.random.default_rng(0), 5))
    policies = policies_of(5, 2, 4)
    whole = Rollouts(problem, np.arange(5), config, 7)
    expected = [whole.play(policies), whole.play(policies.take(torch.arange(5).repeat_interleave(3)))]
    assert not np.array_equal(expected[0].action.reshape(8, 15), expected[1].action.reshape(8, 15))
    for start, stop in zip(cuts, cuts[1:], strict=False):
        own = slice(start, stop)
        rollouts = Rollouts(problem, np.arange(5), config, 7, own)
        few = policies.take(own)
        found = [rollouts.play(few), rollouts.play(few.take(torch.arange(len(few)).repeat_interleave(3)))]
        assert np.array_equal(found[0].action, expected[0].action[:, own])
        assert np.array_equal(found[1].reward, expected[1].reward[:, 3 * start : 3 * stop])
        assert rollouts.num_steps.tolist() == [2 * 3 * 8] * (stop - start)


# --- medoids


def test_medoids_take_turns_and_the_mean_of_their_episodes_counts():
    medoids = policies_of(3, 1)
    order = take_turns(medoids, 2, 4).tensors["head.bias"]
    assert torch.equal(order, medoids.tensors["head.bias"][[0, 1, 2, 0, 0, 1, 2, 0]])
    played = collect(
        take_turns(medoids, 2, 4), Countdown([1, 2, 3, 2, 3, 1, 1, 3]), 9, np.random.default_rng(0)
    )
    # Returns of episodes: 1, 3, 6, 3 and 6, 1, 1, 6; medoid 0 has the first and the last of each.
    assert mean_returns(played, 2, 3).tolist() == [[2, 3, 6], [6, 1, 1]]


def test_a_medoid_without_an_episode_is_never_the_best():
    played = collect(policies_of(2, 1), Countdown([1, 2]), 9, np.random.default_rng(0))
    assert mean_returns(played, 1, 4).tolist() == [[1, 3, -np.inf, -np.inf]]
