"""Whoever reads an environment keeps copies: one that reuses all its arrays gives what a sound one gives."""

import dataclasses
from contextlib import closing

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

import caml.rollout
import rl2.rollout
from caml.policy import Policies, num_weights
from common.rollout import Recorder, play
from common.runs.seeding import stream
from mpi_utils.comm import Comm
from persim.data.trajectories import Follows, log_episodes
from rl2.config import Config
from rl2.fixed_horizon import FixedHorizon
from rl2.policy import Actor, RecurrentPolicy
from rmdp.config import Config as RmdpConfig
from rmdp.own_dynamics import StepEnv
from rmdp.policy import Policies as RmdpPolicies
from rmdp.rollout import Environments

N, T = 3, 12
SPACES = {np.float32: Box(-99, 99, (2,), np.float32), np.float64: Box(-99, 99, (2,), np.float64)}


class Clock:
    """Environment e shows (step, e + action sum); its episodes have 3 + e steps; the reward is the step."""

    single_action_space = Discrete(2)
    num_envs = N

    def __init__(self, reuses, dtype):
        self.reuses, self.dtype, self.closed = reuses, dtype, False
        self.single_observation_space = SPACES[dtype]
        self.arrays = [np.zeros((N, 2), dtype), np.zeros(N, np.float32)]
        self.arrays += [np.zeros(N, bool), np.zeros(N, bool)]
        self.infos = {"final_obs": np.zeros((N, 2), dtype), "_final_obs": np.zeros(N, bool)}

    def give(self, array, values):
        array[:] = values
        return array if self.reuses else array.copy()

    def show(self):
        return np.stack([self.t, self.sum], 1)

    def reset(self, **_):
        self.t, self.sum = np.zeros(N), np.arange(N, dtype=float)
        for key in ("final_obs", "_final_obs"):
            self.infos[key][:] = 0
        return self.give(self.arrays[0], self.show()), {}

    def step(self, actions):
        self.t, self.sum = self.t + 1, self.sum + actions
        reward, ended = self.t.copy(), self.t == 3 + np.arange(N)
        ends = {"final_obs": self.show(), "_final_obs": ended}
        infos = {key: self.give(self.infos[key], value) for key, value in ends.items()}
        self.t, self.sum = np.where(ended, 0, self.t), np.where(ended, np.arange(N), self.sum)
        none = np.zeros(N, bool)
        values = (self.show(), reward, none, ended)
        return *(self.give(a, v) for a, v in zip(self.arrays, values, strict=True)), infos

    def close(self):
        self.closed = True


class Clocks:
    """A family of one environment, which is kept."""

    name, max_episode_len, action_space = "clocks", 5, Discrete(2)

    def __init__(self, reuses, dtype):
        self.env, self.observation_space = Clock(reuses, dtype), SPACES[dtype]

    def make_vec(self, parameters, rng=None):
        return self.env


def recurrent(family):
    torch.manual_seed(0)
    config = Config(num_features=8, meta_episode_len=T, precision="float32")
    return RecurrentPolicy(config, family.observation_space, family.action_space)


def by_rl2(family):
    steps = rl2.rollout.play(recurrent(family), family.env, T, np.random.default_rng(0))
    return [value for value in vars(steps).values() if value is not None]


def by_rl2_with_an_expert(family):
    class Watches:
        def reset(self, num):
            self.told = []

        def act(self, observation):
            return np.zeros(N, np.int64)

        def observe(self, *step):
            self.told.append(step[:1] + step[3:])

    expert = Watches()
    rl2.rollout.play(recurrent(family), family.env, T, np.random.default_rng(0), expert)
    return [np.stack(part) for part in zip(*expert.told, strict=True)]


def by_rl2s_actor(family):
    actor = Actor(recurrent(family), family.action_space, np.random.default_rng(0))
    rewards, ends = rl2.rollout.play_meta_episodes(family.env, actor, T)
    return [rewards, ends, *actor.remembered(rewards[-1], ends[-1]).last]


def by_hand(family):
    """As in the README: the actor itself has to keep copies."""
    actor = Actor(recurrent(family), family.action_space, np.random.default_rng(0))
    actor.reset(N)
    actions, observation, reward, done = [], family.env.reset()[0], None, None
    for _ in range(T):
        actions.append(actor.act(observation, reward, done))
        observation, reward, _, done, _ = family.env.step(actions[-1])
    return [np.stack(actions)]


def by_rmdp(family):
    config = dataclasses.replace(RmdpConfig.defaults({"environment": "cart_pole"}), num_policies=1)
    torch.manual_seed(0)
    policies = RmdpPolicies(config, family.observation_space, family.action_space)
    spaces = (family.observation_space, family.action_space)
    environments = Environments(StepEnv(family.env), 1, N, slice(0, N), spaces, outcome_size=1)
    return list(vars(environments.play(policies, T, np.random.default_rng(0), Comm())).values())


def by_caml(family):
    sizes = (2, 8, 2)
    weights = np.random.default_rng(1).random((1, num_weights(*sizes)), np.float32)
    policies = Policies.fresh(weights, *sizes)
    return list(vars(caml.rollout.collect(policies, family.env, T, np.random.default_rng(0))).values())


def acting(family):
    return Follows(lambda state, rng: (rng.random(N) * 2).astype(np.int64), np.random.default_rng(0))


def by_evaluation(family):
    record = Recorder()
    episodes = play(family.env, acting(family), T, record)
    return [*episodes, *(np.stack(part) for part in vars(record).values())]


def by_a_log(family):
    log = log_episodes(family, {"e": np.arange(N)}, acting(family), None, T)
    return [log.agent, log.time, log.state, log.action, log.reward, log.next_state]


def by_a_fixed_horizon(family):
    with closing(FixedHorizon(family, 6).make_vec({})) as env:
        first, rng = env.reset()[0], stream(0, "acting")
        steps = [env.step((rng.random(N) * 2).astype(np.int64)) for _ in range(T)]
    final = [step[4]["final_obs"] for step in steps if step[4]]
    return [first, *(np.stack(part) for part in list(zip(*steps, strict=True))[:4]), np.stack(final)]


READERS = [by_rl2, by_rl2_with_an_expert, by_rl2s_actor, by_hand, by_rmdp, by_caml]
READERS += [by_evaluation, by_a_log, by_a_fixed_horizon]


@pytest.mark.parametrize("dtype", SPACES)
@pytest.mark.parametrize("reader", READERS)
def test_reused_arrays_read_as_new_ones(reader, dtype):
    sound, reused = (reader(Clocks(reuses, dtype)) for reuses in (False, True))
    assert len(sound) == len(reused) > 0
    for a, b in zip(sound, reused, strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))


def test_they_read_what_episodes_ended_with():
    log = by_a_log(Clocks(True, np.float32))
    agent, time, next_state = log[0], log[1], log[5]
    np.testing.assert_array_equal(next_state[:, 0], time + 1)
    assert np.bincount(agent).tolist() == [3, 4, 5]
    family = Clocks(True, np.float32)
    final = by_rmdp(family)[1][0]  # [T, N, 2]
    assert final[:, 0, 0].tolist() == [1, 2, 3] * 4 and final[:, 2, 0].tolist() == [1, 2, 3, 4, 5] * 2 + [
        1,
        2,
    ]
