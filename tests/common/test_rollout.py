import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RecordEpisodeStatistics
from gymnasium.wrappers.vector import RecordEpisodeStatistics as RecordAll

from common.rollout import Recorder, final_observations, keep_measures, play, to_space
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


class Walk(gymnasium.Env):
    """Ends after `length` steps and says how far it came; the first of its episodes alone counts."""

    observation_space, action_space = Box(-1, 1, (1,), np.float32), Discrete(2)

    def __init__(self, length):
        self.length, self.episode = length, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.episode = 0, self.episode + 1
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        over = self.t == self.length
        told = {"by": "foot", "metres": 10.0 * self.length + self.episode}
        told |= {"odd": 1} if self.length % 2 else {}
        return np.zeros(1, np.float32), 1.0, over, False, {"episode": told} if over else {}


class Walks:
    """Walks of some lengths, one by one or side by side."""

    max_episode_len = 6

    def __init__(self, side_by_side=False):
        if side_by_side:
            self.make_vec = self.together

    def sample(self, rng, n):
        return {"length": rng.integers(2, 6, n)}

    def make(self, task):
        return Walk(int(task["length"]))

    def together(self, parameters, rng):
        envs = [lambda length=length: Walk(int(length)) for length in parameters["length"]]
        return RecordAll(SyncVectorEnv(envs, autoreset_mode=AutoresetMode.SAME_STEP))


@pytest.mark.parametrize("side_by_side", [False, True])
def test_what_environments_report_of_the_first_episode_is_kept(side_by_side):
    family = make_family(lambda: Walks(side_by_side))
    env = family.make_vec({"length": np.array([3, 2, 5])}, np.random.default_rng(0))
    found = play(env, Constant(0), 4).measures
    assert found.keys() == {"metres", "odd"}  # none of the wrapper's
    np.testing.assert_array_equal(found["metres"], [31, 21, np.nan])  # the last was cut
    np.testing.assert_array_equal(found["odd"], [1, np.nan, np.nan])
    assert played()[0].measures == {}


def test_what_gymnasium_reports_and_what_are_no_numbers_is_left():
    env = RecordEpisodeStatistics(gymnasium.make("CartPole-v1"))
    env.reset(seed=0)
    while not (step := env.step(1))[2]:
        pass
    measures, ended = {}, np.ones(1, bool)
    keep_measures(measures, step[4], ended)
    assert measures == {}
    for told in ({"metres": ["far"]}, {"metres": [1.0, 2.0]}, {"metres": object()}, 7, None):
        keep_measures(measures, {"episode": told, "final_info": [{}]}, ended)
        assert measures == {}
