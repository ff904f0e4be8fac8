"""Gaussian policies for Box actions: gradients, divergences of known size, and that CAML learns with them."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from caml.adapt import autograd_gradients, make_optimiser, update, written_gradients
from caml.config import Config
from caml.divergence import pairwise_js
from caml.learner import Learner
from caml.policy import LOG_STD, Actor, Policies, Sizes, num_weights, sizes_of, weight_shapes
from caml.rollout import Rollouts, Trajectories
from envs import Problem, make_family
from envs.examples import Points
from mpi_utils.comm import Comm

SIZES = Sizes(3, 7, 2, True)
LN2 = np.log(2)


def fresh(num_policies=4, activation="relu", seed=0, sizes=SIZES, **settings):
    uniform = np.random.default_rng(seed).random((num_policies, num_weights(*sizes)), np.float32)
    return Policies.fresh(uniform, *sizes, activation=activation, **settings)


def constant(means, log_stds):
    """Policies of one action each that do the same everywhere."""
    policies = fresh(len(means), sizes=Sizes(1, 3, 1, True))
    with torch.no_grad():
        policies.tensors["head.weight"].zero_()
        policies.tensors["head.bias"][:, 0, 0] = torch.tensor(means)
        policies.tensors["log_std"][:, 0, 0] = torch.tensor(log_stds)
    return policies


def js(policies, num_states=200, seed=0):
    shares = policies.probabilities(np.zeros((num_states, 1)), np.random.default_rng(seed))
    return pairwise_js(shares, np.full(num_states, 1 / num_states))


def test_deviations_are_parameters_of_their_own():
    policies = fresh()
    assert {name: tuple(t.shape[1:]) for name, t in policies.tensors.items()} == weight_shapes(*SIZES)
    assert (policies.log_std == -0.5).all() and policies.log_std.shape == (4, 2, 1)
    assert (fresh(log_std=-1.5).log_std == -1.5).all()
    assert num_weights(*SIZES) == num_weights(*SIZES[:3])  # they are not drawn
    with torch.no_grad():
        policies.tensors["log_std"].fill_(99)
    assert (policies.log_std == LOG_STD[1]).all()
    assert sizes_of(make_family(Points), 5) == (1, 5, 1, True)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("entropy_coef", [0.0, 0.3])
def test_gradients_written_out_are_those_of_the_loss(activation, entropy_coef):
    rng, T, P, B = np.random.default_rng(1), 6, 4, 5
    alive = np.arange(T)[:, None, None] < rng.integers(1, T + 1, (P, B))
    played = Trajectories(
        rng.standard_normal((T, P, B, 3), np.float32),
        rng.standard_normal((T, P, B, 2), np.float32),
        rng.standard_normal((T, P, B), np.float32) * alive,
        alive,
        np.zeros((P, B, 3), np.float32),
    )
    config, policies = Config(entropy_coef=entropy_coef), fresh(activation=activation)
    with torch.no_grad():  # one of them is beyond its limit, where it has no slope
        policies.tensors["log_std"][0, 0] = LOG_STD[0] - 1
    written = written_gradients(policies, played, config)
    formula = autograd_gradients(policies, played, config)
    assert written.keys() == formula.keys() == policies.tensors.keys()
    for name, value in formula.items():
        torch.testing.assert_close(written[name], value, rtol=1e-4, atol=1e-5)
    assert formula["log_std"][1:].abs().min() > 0 and formula["log_std"][0, 0] == 0


def integral(one, other):
    """Jensen-Shannon divergence of two normal distributions (mean, log deviation), on a fine grid."""
    x = np.linspace(-30, 30, 200001)
    p, q = (np.exp(-0.5 * ((x - m) / np.exp(s)) ** 2 - s) / np.sqrt(2 * np.pi) for m, s in (one, other))
    middle = (p + q) / 2

    def part(density):
        return np.where(density > 0, density * np.log((density + 1e-300) / (middle + 1e-300)), 0).sum()

    return (part(p) + part(q)) / 2 * (x[1] - x[0])


@pytest.mark.parametrize(
    ("one", "other"), [((0.0, 0.0), (1.0, 0.0)), ((0.3, -1.0), (0.3, 0.5)), ((-1.0, 0.2), (2.0, -0.4))]
)
def test_divergences_are_those_of_the_densities(one, other):
    found = js(constant(*zip(one, other, strict=True)), num_states=400)
    assert found[0, 1] == pytest.approx(integral(one, other), rel=0.03)
    assert found[0, 1] == found[1, 0] and found[0, 0] == 0


def test_limits_of_the_divergence():
    same = js(constant([0.5, 0.5], [-0.5, -0.5]))
    assert not same.any()
    assert js(constant([-3.0, 3.0], [-4.0, -4.0]))[0, 1] == pytest.approx(LN2)
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(js(fresh(3, sizes=Sizes(1, 3, 2, True)), seed=1), 0)


def test_groups_of_policies_are_far_apart():
    rng = np.random.default_rng(0)
    means = np.repeat([-0.6, 0.6], 10) + 0.05 * rng.standard_normal(20)
    found = js(constant(means.tolist(), [-1.5] * 20), num_states=100)
    within = np.repeat([0, 1], 10)[:, None] == np.repeat([0, 1], 10)
    assert found[within].max() < 0.2 < 0.6 < found[~within].min() <= LN2


def test_an_actor_takes_means_or_draws_and_stays_in_the_space():
    policies = constant([0.25, 4.0], [0.0, -4.0])
    space = Box(-1.0, 1.0, (1,), np.float32)
    actor = Actor(policies, Box(-9, 9, (1,)), space)
    found = actor.act(np.zeros((5, 1), np.float32))
    np.testing.assert_allclose(found, [[0.25], [1.0], [0.25], [1.0], [0.25]])
    drawing = Actor(policies, Box(-9, 9, (1,)), space, np.random.default_rng(0))
    drawn = drawing.act(np.zeros((4000, 1), np.float32))
    assert drawn.dtype == np.float32 and np.abs(drawn).max() <= 1 and (drawn[1::2] == 1).all()
    assert drawn[::2].std() > 0.5 and np.abs(drawn[::2].mean() - 0.15) < 0.05  # clipped, hence below .25


def test_it_learns_where_a_point_is_to_go():
    family = make_family(Points)
    problem = Problem("points", family, {"target": np.array([-0.9, 0.9], np.float32)})
    config = Config(
        max_episode_len=10, num_rollouts=20, num_features=16, entropy_coef=0.0, learning_rate=0.03
    )
    policies = fresh(2, sizes=sizes_of(family, 16))
    optimiser = make_optimiser(policies, config.learning_rate)
    rollouts = Rollouts(problem, np.arange(2), config)
    first = rollouts.play(policies).returns().mean(1)
    for _ in range(40):
        update(policies, optimiser, rollouts.play(policies), config)
    last = rollouts.play(policies).returns().mean(1)
    assert (last > first + 2).all()
    mean = policies(torch.zeros(2, 1, 1))[:, 0, 0]
    assert mean[0] < -0.3 and mean[1] > 0.3


def test_iterations_cluster_save_and_continue():
    family = make_family(Points)
    agents = family.sample(np.random.default_rng(0), 8)
    problem = Problem("points", family, agents, 10)
    sizes = {"num_groups": 1, "num_variants": 8, "num_support": 4, "split": "random", "num_features": 8}
    config = Config(
        **sizes, max_episode_len=10, tasks_per_iteration=4, pool_size=8, num_medoids=2, num_rollouts=4
    )
    learner = Learner(config, Comm(), problem)
    for i in range(3):
        metrics = learner.train_iteration(i)
    assert np.isfinite(list(metrics.values())).all() and len(learner.medoids["agent"]) == 2
    assert learner.medoids["log_std"].shape == (2, 1, 1)
    again = Learner(config, Comm(), problem)
    again.load_state_dict(learner.state_dict())
    assert again.train_iteration(3)["train/return"] == learner.train_iteration(3)["train/return"]
    actor = learner.actor()
    actor.reset(8)
    assert actor.act(np.zeros((8, 1), np.float32)).shape == (8, 1)
