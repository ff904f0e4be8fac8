"""The assignments: partitions, the E-step, and EM's monotone climb on a small exact r-MDP."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_utils.comm import Comm
from rmdp.assignment import by_rewards, contiguous, even_random, expectation_step, one_hot
from tests.helpers.launch import mpirun


def test_even_random_groups_differ_by_one_at_most():
    policy_of = even_random(11, 4, np.random.default_rng(0))
    assert sorted(np.bincount(policy_of)) == [2, 3, 3, 3]
    assert not np.array_equal(policy_of, even_random(11, 4, np.random.default_rng(1)))
    assert sorted(even_random(5, 5, np.random.default_rng(0))) == [0, 1, 2, 3, 4]


def test_contiguous_cuts_the_order():
    assert contiguous(np.array([3, 1, 0, 2, 4]), 2).tolist() == [0, 0, 1, 0, 1]


def test_rewards_that_are_alike_come_together():
    features = np.array([[0, 0, 1.0], [5, 5, 0], [0, 0, 1.1], [5, 5.1, 0], [0, 9, 9]])
    a, b, c, d, e = by_rewards(features, 3, seed=0)
    assert a == c and b == d and len({a, b, e}) == 3


def test_one_hot():
    assert one_hot(np.array([1, 0, 1]), 3).tolist() == [[0, 1, 0], [1, 0, 1], [0, 0, 0]]


def test_agents_move_to_their_best_policy():
    utility = np.array([[5.0, 1, 2, 7], [3, 4, 2, 1], [1, 3, 9, 0]])
    assert expectation_step(utility, np.array([1, 0, 2, 0]), Comm()).tolist() == [0, 1, 2, 0]


def test_on_a_tie_an_agent_stays():
    assert expectation_step(np.ones((3, 3)), np.array([2, 0, 1]), Comm()).tolist() == [2, 0, 1]


def test_the_member_that_gains_least_by_leaving_stays_so_that_no_policy_is_empty():
    # All want policy 0. Of policy 1's members agent 2 gains least (1), of policy 2's the only one, agent 3.
    utility = np.array([[9.0, 9, 9, 9], [0, 0, 8, 0], [0, 0, 0, 1]])
    assert expectation_step(utility, np.array([0, 1, 1, 2]), Comm()).tolist() == [0, 0, 1, 2]
    assert expectation_step(utility, np.array([0, 1, 1, 2]), Comm(), may_empty=True).tolist() == [0] * 4


def test_keeping_a_member_may_empty_another_policy_which_then_keeps_its_own():
    # Agent 0 (policy 0) wants 1, agent 1 (policy 1) wants 2, agent 2 (policy 2) wants 2: 0 would be empty.
    utility = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 1]])
    assert expectation_step(utility, np.array([0, 1, 2]), Comm()).tolist() == [0, 1, 2]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 6), st.integers(0, 12), st.integers(0, 10**6), st.integers(1, 4))
def test_no_policy_is_ever_empty_and_nobody_moves_to_a_worse_one(k, extra, seed, levels):
    rng = np.random.default_rng(seed)
    n = k + extra
    policy_of = even_random(n, k, rng)
    utility = rng.integers(0, levels + 1, (k, n)).astype(float)
    after = expectation_step(utility, policy_of, Comm())
    assert set(after) == set(range(k))
    columns = np.arange(n)
    assert (utility[after, columns] >= utility[policy_of, columns]).all()


@pytest.mark.mpi
def test_ranks_agree_with_one_rank():
    done = mpirun(3, "-c", RANKS)
    assert done.code == 0, done.output
    assert done.output.count("same") == 3


RANKS = """
import numpy as np
from mpi_utils.comm import Comm, world
from rmdp.assignment import even_random, expectation_step
comm = world()
for seed in range(50):
    rng = np.random.default_rng(seed)
    k, n = int(rng.integers(1, 5)), int(rng.integers(5, 9))
    if seed % 5 == 0:
        k = n = 2  # a rank without agents
    policy_of, utility = even_random(n, k, rng), rng.integers(0, 3, (k, n)).astype(float)
    alone, own = expectation_step(utility, policy_of, Comm()), comm.share(n)
    mine = expectation_step(utility[:, own], policy_of[own], comm, own.start)
    assert np.array_equal(mine, alone[own]), (seed, mine, alone[own])
print("same")
"""


def optimal_policy(transition, reward, gamma):
    """The optimal policy [S] of a tabular MDP by value iteration; `transition [S, A, S]`, `reward [S, A]`."""
    value = np.zeros(len(reward))
    for _ in range(2000):
        value = (reward + gamma * transition @ value).max(1)
    return (reward + gamma * transition @ value).argmax(1)


def returns(transition, rewards, policy, gamma):
    """Exact value of `policy [S]` from state 0 for each agent, `rewards [n, S, A]`."""
    states = np.arange(len(policy))
    chain = transition[states, policy]
    return np.linalg.solve(np.eye(len(policy)) - gamma * chain, rewards[:, states, policy].T)[0]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_em_never_falls_on_an_exact_tabular_problem_and_flips_end(seed):
    """Each half-step of EM is exact here: the best policy of a group, then the best policy of an agent."""
    rng = np.random.default_rng(seed)
    n, k, S, A, gamma = 30, 4, 6, 3, 0.9
    transition = rng.dirichlet(np.ones(S), (S, A))
    rewards = rng.standard_normal((n, S, A))
    policy_of, welfare, flips = even_random(n, k, rng), [], []
    columns = np.arange(n)
    for _ in range(30):
        policies = [optimal_policy(transition, rewards[policy_of == j].sum(0), gamma) for j in range(k)]
        utility = np.array([returns(transition, rewards, policy, gamma) for policy in policies])
        welfare.append(utility[policy_of, columns].sum())
        moved = expectation_step(utility, policy_of, Comm())
        flips.append((moved != policy_of).sum())
        policy_of = moved
        welfare.append(utility[policy_of, columns].sum())
    assert (np.diff(welfare) > -1e-9).all()
    assert welfare[-1] > welfare[0] + 1 and flips[0] > 0 and flips[-1] == 0
