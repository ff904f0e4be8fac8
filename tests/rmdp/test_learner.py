"""The learner: what an iteration carries over, ranks that agree, and agents whose targets are met."""

import dataclasses

import numpy as np
import pytest
import torch

from common.errors import UserError
from envs import Problem, make_family
from mpi_utils.comm import Comm
from rmdp.config import Config, check_config
from rmdp.learner import Learner
from rmdp.problem import make_problem
from rmdp.shared_dynamics import SharedDynamics
from tests.helpers.runs import flat, same

SIZES = {
    "num_agents": 11,
    "num_policies": 3,
    "num_features": 8,
    "steps_per_policy": 64,
    "envs_per_policy": 4,
    "num_epochs": 2,
    "num_minibatches": 4,
    "warm_start_iters": 2,
    "max_iters": 6,
}


def tiny(environment):
    return check_config(dataclasses.replace(Config.defaults({"environment": environment}), **SIZES))


TINY, CHEETAH = tiny("resource_gathering"), tiny("half_cheetah")


def make(config, problem=None, **options):
    """A learner; `options` are those of `SharedDynamics`."""
    problem = problem or make_problem(config, Comm())
    population = SharedDynamics(config, Comm(), problem, **options) if options else None
    return Learner(config, Comm(), problem, population)


def run(learner, start, end):
    return [learner.train_iteration(i) for i in range(start, end)]


@pytest.mark.promise("C1 resumed bit for bit")
@pytest.mark.parametrize("config", [TINY, CHEETAH], ids=["gathering", "half_cheetah"])
@pytest.mark.parametrize("start", [1, 3])
@pytest.mark.parametrize("algorithm", ["em", "end_to_end", "cluster", "random"])
def test_a_loaded_learner_continues_bit_for_bit(config, algorithm, start):
    config = dataclasses.replace(config, algorithm=algorithm)
    learner = make(config)
    run(learner, 0, start)
    state = learner.state_dict()
    other = make(config)
    other.load_state_dict(state)
    assert same(other.state_dict(), state)
    run(learner, start, 6)
    assert not same(learner.state_dict(), state)
    run(other, start, 6)
    assert same(other.state_dict(), learner.state_dict())


@pytest.mark.parametrize("algorithm", ["em", "end_to_end"])
def test_alone_it_does_not_matter_whose_rows_the_critic_has(algorithm):
    config, states = dataclasses.replace(TINY, algorithm=algorithm), []
    for whole in (False, True):
        learner = make(config, whole_critic=whole)
        run(learner, 0, 4)
        states.append(learner.state_dict())
    assert same(*states)


@pytest.mark.parametrize("network", ["shared", "separate"])
@pytest.mark.parametrize("whole", [False, True])
def test_what_ranks_compare_is_all_of_policies_critic_and_moments(network, whole):
    learner = make(dataclasses.replace(TINY, policy_network=network), whole_critic=whole)
    learner.train_iteration(0)
    compared = list(learner.tensors_in_sync().values())
    own = set() if whole else {"head.weight", "head.bias"}  # each rank's rows of the critic
    wanted = [*learner.policies.state_dict().values()]
    wanted += [value for name, value in learner.critic.state_dict().items() if name not in own]
    for value in wanted:
        assert sum(value.data_ptr() == other.data_ptr() for other in compared) == 1
    moments = len(learner.optimiser.state) if whole else 1  # parameters; of rows, each rank has its own
    kinds = len(learner.optimiser.state[0])
    assert len(compared) == len(wanted) + kinds * moments


def with_rewards(learner, reward):
    """Let the running rewards `[k, n]` of the learner be these, as if a save held them."""
    state = learner.state_dict()
    state["welfare"]["reward"] = reward
    learner.load_state_dict(state)


def test_em_is_soft_until_the_warm_start_ends_and_then_lets_agents_choose():
    learner = make(TINY)
    assignment = learner.population.assignment
    start = assignment.weights().detach().clone()
    np.testing.assert_allclose(start.sum(0), 1, rtol=1e-6)
    assert start.max() < 1
    assert learner.train_iteration(0)["train/flips"] == 0
    assert assignment.weights().max() < 1
    learner.train_iteration(1)  # the last of the warm start ends with an E-step
    assert set(assignment.weights().flatten().tolist()) == {0, 1}
    with_rewards(learner, torch.tensor([[0.0], [100], [0]]).repeat(1, 11))  # policy 1 is best for all
    assert learner.train_iteration(2)["train/flips"] > 0
    sizes = np.bincount(assignment.everyone(), minlength=3)
    assert sizes.tolist() == [1, 9, 1]  # and no policy is left empty


def test_cluster_counts_every_agent_for_all_policies_until_half_time():
    learner = make(dataclasses.replace(TINY, algorithm="cluster"))
    assignment = learner.population.assignment
    run(learner, 0, 2)
    np.testing.assert_allclose(assignment.weights(), 1 / 3)
    with pytest.raises(ValueError, match="no agent is assigned"):
        learner.actor()
    learner.train_iteration(2)
    assert sorted(set(assignment.weights().flatten().tolist())) == [0, 1]


def test_a_soft_assignment_learns_which_policy_is_good_for_whom():
    config = dataclasses.replace(TINY, algorithm="end_to_end", assignment_lr=0.05)
    learner = make(config)
    learner.train_iteration(0)
    start = learner.population.assignment.weights().detach().clone()
    reward = torch.zeros(3, 11)
    reward[2, :5] = 1000.0  # policy 2 is good for the first five agents
    with_rewards(learner, reward)
    learner.train_iteration(1)
    gain = learner.population.assignment.weights().detach()[2] - start[2]
    assert (gain[:5] > 0).all() and gain[:5].min() > gain[5:].mean()


class RewardOne:
    """A family whose every step has reward 1 for all agents."""

    def __init__(self, family):
        self.family = family

    def __getattr__(self, name):
        return getattr(self.family, name)

    def rewards(self, outcome, agents):
        return torch.ones(*outcome.shape[:-1], len(agents["target"]))


def test_a_time_limit_is_no_end():
    """With a constant reward of 1 and a critic that knows its worth, targets are that worth across it."""
    problem = make_problem(CHEETAH, Comm())
    learner = make(CHEETAH, dataclasses.replace(problem, family=RewardOne(problem.family)))
    state, worth = learner.state_dict(), 1 / (1 - CHEETAH.gamma)
    state["critic"]["head.bias"] = torch.full((11,), worth)
    learner.load_state_dict(state)
    population = learner.population
    steps = population.collect(0, learner.policies)
    steps.terminated[:], steps.truncated[:] = False, False
    steps.truncated[:, 5], steps.truncated[1, 11] = True, True

    def targets():
        batch = population.estimate(steps, learner.policies.normaliser, learner.critic)
        return batch.value_target[0].reshape(3, 16, 4, -1)

    np.testing.assert_allclose(targets(), worth, rtol=1e-5)
    steps.terminated[:, 9] = True
    ended = targets()
    np.testing.assert_allclose(ended[:, 9], 1.0, rtol=1e-5)
    assert (ended[:, 8] < 50).all() and (ended[:, 10:] > 99).all()


def alike(one, other, atol=2e-4):
    """Whether two learners agree after two iterations, up to the order of summing."""
    for i in range(2):
        a, b = one.train_iteration(i), other.train_iteration(i)
    assert a.keys() == b.keys()
    for name in {"train/return", "loss/value", "loss/policy"} & a.keys():
        assert a[name] == pytest.approx(b[name], rel=1e-3, abs=1e-5), name
    a, b = flat(one.state_dict()), flat(other.state_dict())
    for name, value in a.items():
        np.testing.assert_allclose(b[name], value, rtol=2e-3, atol=atol, err_msg=name)


@pytest.mark.parametrize("algorithm", ["em", "end_to_end"])
def test_chunks_of_agents_change_nothing(algorithm):
    config = dataclasses.replace(CHEETAH, algorithm=algorithm)
    parts = make(config, chunk=4)
    assert len(parts.population.shard.chunks) == 3
    alike(make(config), parts)


@pytest.mark.parametrize("config", [TINY, CHEETAH], ids=["gathering", "half_cheetah"])
@pytest.mark.parametrize(("algorithm", "whole"), [("em", True), ("end_to_end", True), ("random", False)])
def test_learning_by_the_formulas_is_the_same(config, algorithm, whole):
    config = dataclasses.replace(config, algorithm=algorithm)
    formulas = dataclasses.replace(config, gradient="autograd")
    # Adam divides by the gradient's size, so where that is next to nothing its rounding counts.
    alike(make(config, whole_critic=whole), make(formulas, whole_critic=whole), atol=1e-3)


def test_policies_of_agents_with_one_target_learn_it():
    """One policy on the grid, all agents left of home: the cell is soon fetched in two steps, 0.98."""
    config = dataclasses.replace(
        TINY,
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
    problem = Problem("resource_gathering", make_family("resource_gathering"), {"cell": np.full(25, 21)})
    returns = [metrics["train/return"] for metrics in run(make(config, problem), 0, 25)]
    assert returns[0] < 60 and returns[-1] > 90


def test_more_policies_than_agents_are_refused_in_one_line():
    with pytest.raises(UserError, match="--num_policies 12: more policies than the 11 agents"):
        check_config(dataclasses.replace(TINY, num_policies=12))
    with pytest.raises(UserError, match="--steps_per_policy 64: must be a multiple of --num_minibatches"):
        check_config(dataclasses.replace(TINY, num_minibatches=5))
