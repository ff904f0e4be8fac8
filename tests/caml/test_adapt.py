"""One policy-gradient update of many policies: hand-computed weights, gradients, and that it learns."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from caml.adapt import advantages, autograd_gradients, loss, make_optimiser, update, written_gradients
from caml.config import Config
from caml.policy import Policies, num_weights
from caml.rollout import Rollouts, Trajectories
from envs import make_family
from envs.problem import Problem

SIZES = (3, 7, 4)
GAMMA, ENTROPY = 0.9, 0.3
CONFIG = Config(gamma=GAMMA, entropy_coef=ENTROPY)


def random_episodes(P=4, B=5, T=6, seed=0):
    """Episodes that end after 1 to T steps; after the end everything but the reward is noise."""
    rng = np.random.default_rng(seed)
    alive = np.arange(T)[:, None, None] < rng.integers(1, T + 1, (P, B))
    return Trajectories(
        rng.standard_normal((T, P, B, 3), np.float32),
        rng.integers(0, 4, (T, P, B)),
        rng.standard_normal((T, P, B), np.float32) * alive,
        alive,
        np.zeros((P, B, 3), np.float32),
    )


def fresh(P=4, activation="relu", sizes=SIZES):
    uniform = np.random.default_rng(9).random((P, num_weights(*sizes)), np.float32)
    return Policies.fresh(uniform, *sizes, activation=activation)


def only(episodes, j):
    """The episodes of policy j."""
    fields = {name: value[:, j : j + 1] for name, value in vars(episodes).items()}
    return Trajectories(**fields | {"final_observation": episodes.final_observation[j : j + 1]})


def tiny(reward, alive):
    reward = np.array(reward, np.float32)[:, None]
    shape = reward.shape
    alive = np.array(alive, bool)[:, None]
    return Trajectories(
        np.zeros((*shape, 1)), np.zeros(shape, int), reward, alive, np.zeros((1, shape[2], 1))
    )


# --- advantages, by hand


def test_advantages_at_each_step():
    # Three episodes of 2, 2 and 1 steps, gamma 0.5. Returns from step 0: 4 + 2/2 = 5, 0 + 2/2 = 1, 3; from
    # step 1: 2, 2. Step 0 has mean 3 and deviation sqrt(8/3).
    episodes = tiny([[4, 0, 3], [2, 2, 0]], [[1, 1, 1], [1, 1, 0]])
    found = advantages(episodes, 0.5)[:, 0]
    np.testing.assert_allclose(found, [[2 / np.sqrt(8 / 3), -2 / np.sqrt(8 / 3), 0], [0, 0, 0]], atol=1e-7)


def test_advantages_over_the_batch():
    # The same returns 5, 1, 3, 2, 2 together: mean 2.6, variance (5.76 + 2.56 + 0.16 + 0.36 + 0.36) / 5.
    episodes = tiny([[4, 0, 3], [2, 2, 0]], [[1, 1, 1], [1, 1, 0]])
    found = advantages(episodes, 0.5, "batch")[:, 0]
    deviation = np.sqrt(9.2 / 5)
    expected = np.array([[2.4, -1.6, 0.4], [-0.6, -0.6, 0]]) / deviation
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_gamma_counts():
    """0.99 keeps sight of a reward 50 steps away, 0.01 does not."""
    episodes = tiny(np.eye(51)[:, [50, 50]] * [1, 0], np.ones((51, 2)))
    assert advantages(episodes, 0.99)[0, 0].tolist() == pytest.approx([1, -1])
    assert np.abs(advantages(episodes, 0.01)[0]).max() < 1e-6


@pytest.mark.parametrize("baseline", ["step", "batch"])
def test_advantages_have_mean_0_and_deviation_1_for_each_policy(baseline):
    episodes = random_episodes(B=50)
    found, over = advantages(episodes, GAMMA, baseline), {"step": 2, "batch": (0, 2)}[baseline]
    count = episodes.alive.sum(over)
    assert (found[~episodes.alive] == 0).all()
    np.testing.assert_allclose(found.sum(over) / count, 0, atol=1e-9)
    np.testing.assert_allclose(np.square(found).sum(over) / count, 1, atol=1e-6)


# --- gradients


def alone(policies, episodes, j):
    """The gradients of policy j from its own steps only, written as in a textbook."""
    t = {name: value[j].detach().clone().requires_grad_() for name, value in policies.tensors.items()}
    weight = torch.from_numpy(advantages(only(episodes, j), GAMMA)[:, 0])
    total, count = 0.0, 0
    for step, episode in zip(*episodes.alive[:, j].nonzero(), strict=True):
        x = torch.from_numpy(episodes.observation[step, j, episode])
        hidden = getattr(torch, policies.activation)(x @ t["first.weight"] + t["first.bias"][0])
        log_probs = F.log_softmax(t["head.weight"] @ hidden + t["head.bias"][:, 0], 0)
        entropy = -(log_probs.exp() * log_probs).sum()
        action = episodes.action[step, j, episode]
        total = total - weight[step, episode] * log_probs[action] - ENTROPY * entropy
        count += 1
    (total / count).backward()
    return {name: value.grad for name, value in t.items()}


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_gradient_of_all_is_that_of_each_alone(activation):
    policies, episodes = fresh(activation=activation), random_episodes()
    loss(policies, episodes, CONFIG).backward()
    for j in range(4):
        for name, expected in alone(policies, episodes, j).items():
            torch.testing.assert_close(policies.tensors[name].grad[j], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("baseline", ["step", "batch"])
@pytest.mark.parametrize("entropy_coef", [0.0, ENTROPY])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_written_gradients_are_those_of_the_loss(activation, entropy_coef, baseline):
    policies, episodes = fresh(activation=activation), random_episodes()
    config = dataclasses.replace(CONFIG, entropy_coef=entropy_coef, baseline=baseline)
    expected = autograd_gradients(policies, episodes, config)
    found = written_gradients(policies, episodes, config)
    assert found.keys() == expected.keys() == policies.tensors.keys()
    for name, value in expected.items():
        assert value.abs().max() > 1e-3
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_either_gradient_moves_the_policies_alike():
    moved = []
    for gradient in ("written", "autograd"):
        policies = fresh()
        config = dataclasses.replace(CONFIG, gradient=gradient)
        update(policies, make_optimiser(policies, 0.01), random_episodes(), config)
        moved.append(policies.tensors)
    for name, value in moved[0].items():
        torch.testing.assert_close(moved[1][name], value, rtol=1e-4, atol=1e-5)
        assert not torch.equal(value, fresh().tensors[name])


def test_updates_of_all_at_once_are_those_of_one_after_another():
    together = fresh()
    singles = [together.take([j]) for j in range(4)]
    optimisers = [make_optimiser(p, 0.01) for p in (together, *singles)]
    start = together.take(slice(None))
    for seed in range(4):
        episodes = random_episodes(seed=seed)
        update(together, optimisers[0], episodes, CONFIG)
        for j, (single, optimiser) in enumerate(zip(singles, optimisers[1:], strict=True)):
            update(single, optimiser, only(episodes, j), CONFIG)
    for name, value in together.tensors.items():
        torch.testing.assert_close(value, torch.cat([s.tensors[name] for s in singles]), rtol=1e-4, atol=1e-6)
        assert (value - start.tensors[name]).abs().max() > 0.01


def test_a_first_step_moves_every_weight_by_the_learning_rate():
    """As Adam's does: 0.01 along the sign of the gradient, whatever its size."""
    policies, episodes = fresh(), random_episodes()
    before = policies.tensors["head.bias"].detach().clone()
    update(policies, make_optimiser(policies, 0.01), episodes, Config())
    moved = policies.tensors["head.bias"].detach() - before
    np.testing.assert_allclose(moved.abs(), 0.01, rtol=1e-3)


@pytest.mark.parametrize("baseline", ["step", "batch"])
def test_every_policy_learns_its_own_two_armed_bandit(baseline):
    family = make_family("bandit", num_actions=2)
    agents = {"means": np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])}
    problem = Problem("bandit", family, agents)
    config = Config(max_episode_len=1, num_rollouts=20, entropy_coef=0.0, baseline=baseline)
    rollouts, policies = Rollouts(problem, np.arange(problem.num_agents), config), fresh(3, sizes=(1, 16, 2))
    optimiser = make_optimiser(policies, 0.01)
    for _ in range(60):
        update(policies, optimiser, rollouts.play(policies), config)
    probabilities = policies.probabilities(np.ones((1, 1)), np.random.default_rng(0))[:, 0]
    assert (probabilities[[0, 1, 2], [0, 1, 0]] > 0.9).all()


def test_an_entropy_bonus_keeps_policies_open():
    family = make_family("bandit", num_actions=2)
    agents = {"means": np.array([[1.0, 0.0]])}
    problem = Problem("bandit", family, agents)
    config = Config(max_episode_len=1, num_rollouts=20, entropy_coef=5.0)
    policies = fresh(1, sizes=(1, 16, 2))
    rollouts, optimiser = (
        Rollouts(problem, np.arange(problem.num_agents), config),
        make_optimiser(policies, 0.01),
    )
    for _ in range(60):
        update(policies, optimiser, rollouts.play(policies), config)
    assert policies.probabilities(np.ones((1, 1)), np.random.default_rng(0)).max() < 0.75
