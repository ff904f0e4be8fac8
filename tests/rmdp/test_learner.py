"""The learner: what an iteration carries over, ranks that agree, and agents whose wants are met."""

import dataclasses

import numpy as np
import pytest
import torch

from common.errors import UserError
from mpi_utils.comm import Comm
from rmdp.config import Config, check_config
from rmdp.learner import HEAD, Learner

TINY = check_config(
    Config(
        environment="resource_gathering",
        num_agents=11,
        num_policies=3,
        num_features=8,
        steps_per_policy=64,
        envs_per_policy=4,
        num_epochs=2,
        num_minibatches=4,
        warm_start_iters=2,
        max_iters=6,
    )
)
SIZES = ("num_agents", "num_policies", "num_features", "steps_per_policy", "envs_per_policy")
SIZES += ("num_epochs", "num_minibatches", "warm_start_iters", "max_iters")
CHEETAH = dataclasses.replace(check_config(Config()), **{name: getattr(TINY, name) for name in SIZES})


def flat(state, prefix=""):
    """Leaves of a nested state by path."""
    for name, value in state.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", np.asarray(value)


def same(a, b):
    a, b = dict(flat(a)), dict(flat(b))
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("config", [TINY, CHEETAH], ids=["gathering", "half_cheetah"])
@pytest.mark.parametrize("start", [1, 3])
@pytest.mark.parametrize("algorithm", ["em", "end_to_end", "cluster", "random"])
def test_a_loaded_learner_continues_bit_for_bit(config, algorithm, start):
    config = dataclasses.replace(config, algorithm=algorithm)
    learner = Learner(config, Comm())
    for i in range(start):
        learner.train_iteration(i)
    state = learner.state_dict()
    other = Learner(config, Comm())
    other.load_state_dict(state)
    assert same(other.state_dict(), state)
    for i in range(start, 6):
        learner.train_iteration(i)
    assert not same(learner.state_dict(), state)
    for i in range(start, 6):
        other.train_iteration(i)
    assert same(other.state_dict(), learner.state_dict())


@pytest.mark.parametrize("algorithm", ["em", "end_to_end"])
def test_alone_it_does_not_matter_whose_rows_the_critic_has(algorithm, monkeypatch):
    config, states = dataclasses.replace(TINY, algorithm=algorithm), []
    for limit in (0, TINY.num_agents):
        monkeypatch.setattr("rmdp.learner.WHOLE_CRITIC", limit)
        learner = Learner(config, Comm())
        assert learner.whole_critic == (limit > 0)
        for i in range(4):
            learner.train_iteration(i)
        states.append(learner.state_dict())
    assert same(*states)


@pytest.mark.parametrize("network", ["shared", "separate"])
@pytest.mark.parametrize("limit", [0, TINY.num_agents])
def test_what_ranks_compare_is_all_of_policies_critic_and_moments(network, limit, monkeypatch):
    monkeypatch.setattr("rmdp.learner.WHOLE_CRITIC", limit)
    learner = Learner(dataclasses.replace(TINY, policy_network=network), Comm())
    learner.train_iteration(0)
    compared = list(learner.tensors_in_sync().values())
    own = {name for name in HEAD if not limit}  # each rank's rows of the critic
    wanted = [*learner.policies.state_dict().values()]
    wanted += [value for name, value in learner.critic.state_dict().items() if name not in own]
    for value in wanted:
        assert sum(value.data_ptr() == other.data_ptr() for other in compared) == 1
    moments = len(learner.optimiser.state) if limit else 1  # parameters; of rows, each rank has its own
    kinds = len(learner.optimiser.state[0])
    assert len(compared) == len(wanted) + kinds * moments


def test_em_is_soft_until_the_warm_start_ends_and_then_lets_agents_choose():
    learner = Learner(TINY, Comm())
    start = learner.members.weights().detach().clone()
    np.testing.assert_allclose(start.sum(0), 1, rtol=1e-6)
    assert start.max() < 1
    assert learner.train_iteration(0)["train/flips"] == 0
    assert learner.members.weights().max() < 1
    learner.train_iteration(1)  # the last of the warm start ends with an E-step
    assert set(learner.members.weights().flatten().tolist()) == {0, 1}
    learner.welfare.reward[:] = 0.0
    learner.welfare.reward[1] = 100.0  # everybody is best served by policy 1
    assert learner.train_iteration(2)["train/flips"] > 0
    sizes = np.bincount(learner.members.policy_of, minlength=3)
    assert sizes.tolist() == [1, 9, 1]  # and no policy is left empty


def test_cluster_serves_everybody_by_all_policies_until_half_time():
    learner = Learner(dataclasses.replace(TINY, algorithm="cluster"), Comm())
    for i in range(2):
        learner.train_iteration(i)
    np.testing.assert_allclose(learner.members.weights(), 1 / 3)
    learner.train_iteration(2)
    assert sorted(set(learner.members.weights().flatten().tolist())) == [0, 1]


def test_a_soft_assignment_learns_who_pays_whom():
    config = dataclasses.replace(TINY, algorithm="end_to_end", assignment_lr=0.05)
    learner = Learner(config, Comm())
    start = learner.members.weights().detach().clone()
    learner.train_iteration(0)
    learner.welfare.reward[:] = 0.0
    learner.welfare.reward[2, :5] = 1000.0  # policy 2 is good for the first five agents
    learner.train_iteration(1)
    gain = learner.members.weights().detach()[2] - start[2]
    assert (gain[:5] > 0).all() and gain[:5].min() > gain[5:].mean()


def test_utilities_are_returns_of_episodes():
    """Walks that bump the wall at once earn the home agent 0.99 and end at each step."""
    learner = Learner(dataclasses.replace(TINY, num_agents=25), Comm())
    done = torch.ones(3, 16, 4, dtype=torch.bool)
    reward = torch.zeros(3, 16, 4, 25)
    reward[..., 22] = 0.99
    learner.welfare.begin(done)
    learner.welfare.reward += reward.sum((1, 2))
    paid = (reward * learner.members.weights().detach()[:, None, None]).sum(-1)
    learner.welfare.finish(paid, done)
    utility = learner.welfare.utility()
    np.testing.assert_allclose(utility[:, 22], 0.99, rtol=1e-6)
    assert utility[:, :22].max() == 0
    report = learner.welfare.report(learner.members.weights())
    assert report["train/return"] == pytest.approx(100 * 0.99 / 25)
    assert report["train/episode_welfare"] == pytest.approx(100 * 0.99 / 25)
    assert report["train/social_welfare"] == pytest.approx(100 * 0.99 / 25)


def test_a_time_limit_is_no_end():
    """With a constant reward of 1 and a critic that knows its worth, targets are that worth across it."""
    learner = Learner(CHEETAH, Comm())
    steps = learner.actors.play(learner.policies, 16, np.random.default_rng(0), Comm())
    learner.family.rewards = lambda outcome, agents: torch.ones(*outcome.shape[:-1], CHEETAH.num_agents)
    learner.critic.head.bias.data[:] = 1 / (1 - CHEETAH.gamma)
    steps.terminated[:], steps.truncated[:] = False, False
    steps.truncated[:, 5], steps.truncated[1, 11] = True, True
    batch = learner.estimate(steps)
    np.testing.assert_allclose(batch["value_target"][0], 1 / (1 - CHEETAH.gamma), rtol=1e-5)
    steps.terminated[:, 9] = True
    ended = learner.estimate(steps)["value_target"][0].reshape(3, 16, 4, -1)
    np.testing.assert_allclose(ended[:, 9], 1.0, rtol=1e-5)
    assert (ended[:, 8] < 50).all() and (ended[:, 10:] > 99).all()


def test_chunks_of_agents_change_nothing(monkeypatch):
    for algorithm in ("em", "end_to_end"):
        config = dataclasses.replace(CHEETAH, algorithm=algorithm)
        whole = Learner(config, Comm())
        monkeypatch.setattr("rmdp.agent_shard.CHUNK", 4)
        parts = Learner(config, Comm())
        monkeypatch.undo()
        assert len(whole.own.chunks) == 1 and len(parts.own.chunks) == 3
        for i in range(2):
            a, b = whole.train_iteration(i), parts.train_iteration(i)
        for name in ("train/return", "loss/value", "loss/policy"):
            assert a[name] == pytest.approx(b[name], rel=1e-3, abs=1e-5), name
        a, b = dict(flat(whole.state_dict())), dict(flat(parts.state_dict()))
        for name, value in a.items():
            np.testing.assert_allclose(b[name], value, rtol=2e-3, atol=2e-4, err_msg=name)


def test_policies_of_agents_with_one_wish_learn_it():
    """One agent per policy on the grid: cells beside home are soon fetched in two steps, 0.98."""
    config = dataclasses.replace(
        *(TINY,),
        num_agents=25,
        num_policies=1,
        num_features=32,
        steps_per_policy=512,
        envs_per_policy=16,
        num_epochs=6,
        num_minibatches=8,
        max_iters=25,
        learning_rate=3e-3,
        entropy_coef=0.02,
    )
    learner = Learner(config, Comm())
    learner.own.parameters["cell"][:] = 21  # everybody lives left of home
    returns = [learner.train_iteration(i)["train/return"] for i in range(25)]
    assert returns[0] < 60 and returns[-1] > 90


def test_more_policies_than_agents_are_refused_in_one_line():
    with pytest.raises(UserError, match="--num_policies 12: more policies than the 11 agents"):
        check_config(dataclasses.replace(TINY, num_policies=12))
    with pytest.raises(UserError, match="--steps_per_policy 64: must be a multiple of --num_minibatches"):
        check_config(dataclasses.replace(TINY, num_minibatches=5))
