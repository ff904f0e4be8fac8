"""The baselines: hand-checked gradients, budgets, who starts where, and that each learns what it should."""

import dataclasses

import numpy as np
import pytest
import torch

from caml.adapt import loss
from caml.baselines import (
    METHODS,
    Training,
    different,
    inner_update,
    joint,
    loss_of,
    maml,
    reptile,
    spread,
    train,
)
from caml.config import Config
from caml.problem import query_of
from caml.rollout import Trajectories
from envs.bandit import BernoulliBandit
from envs.problem import Problem

# A bandit of two arms: for three agents the left one is good, for two the right one.
BANDIT = Config(
    **{"environment": "bandit", "max_episode_len": 1, "num_rollouts": 20, "num_features": 16},
    **{"tasks_per_iteration": 4, "entropy_coef": 0.0},
)


class GroupedBandit(BernoulliBandit):
    """Bandits whose agents belong to latent groups, which the environment does not see."""

    def make_vec(self, parameters, rng=None):
        return super().make_vec({"means": parameters["means"]}, rng)


MEANS = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1]])
AGENTS = {"means": MEANS, "group": np.array([0, 1, 0, 1, 0])}
PROBLEM = Problem("bandit", GroupedBandit(num_actions=2), AGENTS, 1, np.array([0, 1]))


def training(budget=8000, problem=PROBLEM, **changes):
    return Training(dataclasses.replace(BANDIT, **changes), problem, budget)


def probability_of_left(policies):
    return policies.probabilities(np.ones((1, 1)), np.random.default_rng(0))[:, 0, 0]


class OneEpisodeSet:
    """Rollouts that play the same episodes again and again, `sets` in turn."""

    def __init__(self, sets):
        self.sets, self.num_agents, self.plays = sets, sets[0].reward.shape[1], 0

    def play(self, policies):
        self.plays += 1
        return self.sets[(self.plays - 1) % len(self.sets)]


def random_episodes(seed, P=3, B=4, T=5):
    rng = np.random.default_rng(seed)
    return Trajectories(
        rng.standard_normal((T, P, B, 1), np.float32),
        rng.integers(0, 2, (T, P, B)),
        rng.standard_normal((T, P, B), np.float32),
        np.ones((T, P, B), bool),
        np.zeros((P, B, 1), np.float32),
    )


# --- MAML's derivative


def meta_loss(policy, sets, rate, second_order):
    copies, rollouts = spread(policy, 3), OneEpisodeSet(sets)
    return loss_of(inner_update(copies, rollouts, BANDIT, rate, second_order), rollouts, BANDIT)


def gradient_of(policy, *arguments):
    return torch.autograd.grad(meta_loss(policy, *arguments), policy.parameters())


def smooth_policy():
    """In double precision and with tanh, so that differences of the loss are exact enough."""
    policy = training(activation="tanh").fresh(1)
    policy.tensors = {n: v.detach().double().requires_grad_() for n, v in policy.tensors.items()}
    return policy


def double(episodes):
    return dataclasses.replace(episodes, observation=episodes.observation.astype(np.float64))


def test_second_order_maml_descends_the_loss_after_its_update():
    """Its derivative is that of finite differences; the first-order one is another."""
    policy, sets = smooth_policy(), [double(random_episodes(0)), double(random_episodes(1))]
    exact = gradient_of(policy, sets, 0.5, True)
    for value, gradient in zip(policy.parameters(), exact, strict=True):
        place = np.unravel_index(int(gradient.abs().argmax()), value.shape)
        ends = []
        for shift in (1e-5, -1e-5):
            with torch.no_grad():
                value[place] += shift
            ends.append(meta_loss(policy, sets, 0.5, True).item())
            with torch.no_grad():
                value[place] -= shift
        assert gradient[place].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3)
    first_order = gradient_of(policy, sets, 0.5, False)
    assert max((a - b).abs().max() for a, b in zip(exact, first_order, strict=True)) > 1e-3


def test_first_order_maml_takes_the_gradient_at_the_adapted_policies():
    policy, sets = smooth_policy(), [double(random_episodes(0)), double(random_episodes(1))]
    found = gradient_of(policy, sets, 0.5, False)
    adapted = inner_update(spread(policy, 3), OneEpisodeSet(sets), BANDIT, 0.5, False).take(slice(None))
    loss(adapted, sets[1], BANDIT).backward()
    for gradient, value in zip(found, adapted.parameters(), strict=True):
        torch.testing.assert_close(gradient[0], value.grad.mean(0))


def test_without_a_rate_maml_is_joint_training_on_its_second_episodes():
    policy, sets = smooth_policy(), [double(random_episodes(0)), double(random_episodes(1))]
    joined = torch.autograd.grad(
        loss_of(spread(policy, 3), OneEpisodeSet(sets[1:]), BANDIT), policy.parameters()
    )
    for second_order in (False, True):
        for a, b in zip(gradient_of(policy, sets, 0.0, second_order), joined, strict=True):
            torch.testing.assert_close(a, b)


# --- budgets and starts


@pytest.mark.parametrize("method", METHODS)
def test_all_spend_the_budget_and_at_most_an_iteration_more(method):
    budget, run = 900, training(900)
    start = train(method, run, query_of(PROBLEM).repeat(2), 0)
    if method == "random":
        assert start.env_steps == 0
    else:
        plays = {"reptile": 5, "maml": 2, "fomaml": 2}.get(method, 1)
        agents = {"same_agent": 3, "different_agent": 2}.get(method, 4)
        cost = plays * agents * 20
        assert start.env_steps == -(-budget // cost) * cost
    assert start.index.shape == (6,) and start.index.max() < len(start.policies)
    assert bool(start.rate) == ("maml" in method)


def test_the_same_agent_and_a_different_one():
    agents = np.array([2, 3, 4, 4])
    same = train("same_agent", training(), agents, 0)
    assert same.index.tolist() == [0, 1, 2, 2]
    left = probability_of_left(same.policies)[same.index]
    assert (left[[0, 2, 3]] > 0.9).all() and left[1] < 0.1
    other = train("different_agent", training(), agents, 0)
    assert other.index.tolist() == [1, 0, 1, 1]  # of the other group
    left = probability_of_left(other.policies)[other.index]
    assert (left[[0, 2, 3]] < 0.1).all() and left[1] > 0.9


def test_a_different_agent_is_any_where_there_are_no_groups_or_no_other():
    for more in ({}, {"group": np.zeros(5, int)}):
        problem = dataclasses.replace(PROBLEM, agents={"means": MEANS, **more})
        chosen = different(problem, np.full(40, 2), 0)
        assert set(chosen.tolist()) == {0, 1}
        assert chosen.tolist() == different(problem, np.full(40, 2), 0).tolist()


# --- what they learn


def test_joint_training_learns_what_is_good_for_most():
    mostly = dataclasses.replace(PROBLEM, support=np.array([0, 2, 4, 1]))
    assert probability_of_left(joint(training(16000, mostly)))[0] > 0.9


@pytest.mark.parametrize("way", [reptile, maml])
def test_meta_learners_end_between_the_agents_and_adapt_to_either(way):
    run = training(16000)
    policy = way(run)
    assert 0.1 < probability_of_left(policy)[0] < 0.9
    copies = policy.take(torch.tensor([0, 0]))
    rollouts = next(iter(training().iterations(np.array([0, 1]))))
    left = probability_of_left(inner_update(copies, rollouts, BANDIT, 3.0, False))
    assert left[0] > left[1] + 0.3


def test_reptile_stays_at_what_adaptation_leaves_in_place():
    """Nothing to gain, no entropy bonus: no gradient, hence no move."""
    flat = dataclasses.replace(PROBLEM, agents={"means": np.ones((5, 2))})
    run = training(2000, flat)
    start = run.fresh(1)
    moved = reptile(run)
    for name, value in start.tensors.items():
        torch.testing.assert_close(moved.tensors[name], value)
