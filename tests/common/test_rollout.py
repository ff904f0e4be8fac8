import numpy as np
from gymnasium.spaces import Box, Discrete

from common.rollout import Recorder, final_observations, play, to_space
from envs import make_family


class Constant:
    """Takes one action, and keeps what it was told."""

    def __init__(self, action):
        self.action, self.told = action, []

    def reset(self, num):
        self.num = num

    def act(self, observation, reward, done, running=None):
        self.told.append((observation.copy(), reward, done, running))
        return np.full(self.num, self.action)


def played(action=0, num_steps=200, record=None):
    family = make_family("cart_pole")
    actor = Constant(action)
    env = family.make_vec(family.sample(np.random.default_rng(0), 5), np.random.default_rng(1))
    return play(env, actor, num_steps, record), actor


def test_an_episode_counts_until_it_ends():
    episodes, actor = played()
    assert (episodes.returns == episodes.lengths).all()  # a step's reward is 1
    assert 8 <= episodes.lengths.min() < episodes.lengths.max() < 30
    assert len(actor.told) == episodes.lengths.max()
    assert actor.told[0][1] is None and actor.told[0][2] is None
    for i, length in enumerate(episodes.lengths):
        ended = [told[2][i] for told in actor.told[1:]]
        if length < len(actor.told):
            assert ended.index(True) + 1 == length and not actor.told[length][3][i]


def test_a_limit_of_steps_cuts_all():
    episodes, _ = played(num_steps=6)
    assert (episodes.lengths == 6).all() and (episodes.returns == 6).all()


def test_records_hold_the_last_observation_and_not_the_next_start():
    record = Recorder()
    episodes, _ = played(record=record)
    for i, length in enumerate(episodes.lengths):
        last = record.next_observation[length - 1][i]
        assert abs(last[2]) > 12 * np.pi / 180 or abs(last[0]) > 2.4, "a pole that fell"
        assert record.terminated[length - 1][i]
    for before, after, running in zip(
        record.next_observation, record.observation[1:], record.running[1:], strict=False
    ):
        np.testing.assert_array_equal(before[running], after[running])


def test_final_observations_are_copies():
    observation, final = np.zeros((3, 2)), np.ones((3, 2))
    found = final_observations(observation, {"final_obs": final}, np.array([False, True, False]))
    final[:] = 7
    np.testing.assert_array_equal(found, [[0, 0], [1, 1], [0, 0]])


def test_actions_are_stretched_to_a_box_alone():
    box = Box(-1, np.array([1, 2], np.float32))
    found = to_space(np.array([[3.0, 3.0], [-9.0, 0.5]]), box)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([[1, 2], [-1, 1.25]], np.float32))
    found = to_space(np.array([[3.0, 3.0], [-9.0, 0.5]]), box, scaled=False)
    np.testing.assert_array_equal(found, np.array([[1, 2], [-1, 0.5]], np.float32))
    np.testing.assert_array_equal(to_space(np.array([4]), Discrete(3)), [4])
