import dataclasses

import numpy as np
import pytest
import torch
from gymnasium import spaces

from common.errors import UserError
from rl2.config import Config
from rl2.policy import Actor, Last, RecurrentPolicy, TransitionFeatures

SMALL = Config(num_features=16, meta_episode_len=7, precision="float32")
SPACES = {
    "discrete": (spaces.Discrete(3), spaces.Discrete(2)),
    "continuous": (spaces.Box(-1, 1, (3,), np.float32), spaces.Box(-1, 1, (2,), np.float32)),
}


def test_features_written_out():
    features = TransitionFeatures("joint", *SPACES["discrete"])
    first = features(torch.tensor([2]))
    assert first.tolist() == [[0, 0, 1] + [0, 0] + [0, 1] + [0] * 12]
    last = Last(torch.tensor([1]), torch.tensor([0]), torch.tensor([0.5]), torch.tensor([0.0]))
    later = features(torch.tensor([2]), last)
    pair = [0, 0, 1, 0, 0, 0]  # (observation 1, action 0) of 3 x 2
    assert later.tolist() == [[0, 0, 1] + [1, 0] + [0.5, 0] + pair + [0.5 * p for p in pair]]


def test_plain_features_are_the_papers():
    features = TransitionFeatures("plain", *SPACES["discrete"])
    last = Last(torch.tensor([1]), torch.tensor([1]), torch.tensor([2.0]), torch.tensor([1.0]))
    assert features(torch.tensor([0]), last).tolist() == [[1, 0, 0, 0, 1, 2, 1]]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("readout", ["linear", "bilinear", "mlp"])
@pytest.mark.parametrize("encoder", ["plain", "joint", "mlp"])
def test_acting_and_learning_see_the_same_policy(encoder, readout, kind, shared):
    config = dataclasses.replace(SMALL, transition_encoder=encoder, readout=readout, shared_network=shared)
    if kind == "continuous" and (encoder == "joint" or readout == "bilinear"):
        with pytest.raises(UserError, match="discrete"):
            RecurrentPolicy(config, *SPACES[kind])
        return
    torch.manual_seed(0)
    policy = RecurrentPolicy(config, *SPACES[kind])
    for p in policy.parameters():  # away from the small first output layer
        p.data.add_(0.3 * torch.randn_like(p))
    state, last, steps = policy.initial_state(4), None, []
    for t in range(7):
        observation = torch.randint(3, (4,)) if kind == "discrete" else torch.randn(4, 3)
        x = policy.features(observation, last)
        distribution, value, state = policy.step(x, observation, state)
        action = distribution.sample(torch.rand(4, 2))
        steps.append((x, observation, action, distribution.log_prob(action), value))
        last = Last(observation, action, torch.randn(4), torch.full((4,), float(t == 3)))
    x, observation, action, log_prob = (torch.stack(c) for c in list(zip(*steps, strict=True))[:4])
    distribution, value = policy.unroll(x, observation)
    assert torch.allclose(distribution.log_prob(action), log_prob, atol=1e-5)
    if shared:
        assert torch.allclose(value, torch.stack([s[4] for s in steps]), atol=1e-5)
    assert torch.allclose(policy.value(x, observation), value)
    log_prob_spread = distribution.log_prob(action).std()
    assert log_prob_spread > 0.01  # the test saw a policy that differs between situations


def test_large_spaces_fall_back_to_networks():
    policy = RecurrentPolicy(SMALL, spaces.Discrete(1000), spaces.Discrete(2))
    assert policy.features.encoder == "mlp" and policy.actor.readout == "mlp"


# --- acting


def make_policy(architecture="lstm"):
    torch.manual_seed(0)
    policy = RecurrentPolicy(dataclasses.replace(SMALL, architecture=architecture), *SPACES["continuous"])
    for p in policy.parameters():
        p.data.add_(0.3 * torch.randn_like(p))
    return policy


def steps(num, seed=0):
    """Observations, rewards and ends of one step after another; nothing came before the first."""
    rng, before = np.random.default_rng(seed), (None, None)
    while True:
        yield rng.standard_normal((num, 3), np.float32), *before
        before = rng.standard_normal(num), rng.random(num) < 0.3


@pytest.mark.parametrize("architecture", ["lstm", "gru", "snail", "transformer"])
def test_an_actor_goes_on_from_what_was_remembered_as_often_as_wanted(architecture):
    actor = Actor(make_policy(architecture), SPACES["continuous"][1])
    played = steps(2)
    actor.reset(2)
    for _ in range(3):
        actor.act(*next(played))
    observation, reward, done = next(played)
    remembered = actor.remembered(reward, done)
    expected = actor.act(observation, reward, done)
    actor.start_from(remembered)
    for _ in range(2):
        actor.reset(6)
        found = actor.act(np.tile(observation, (3, 1)))
        np.testing.assert_allclose(found, np.tile(expected, (3, 1)), atol=1e-5)
    actor.start_from(None)
    actor.reset(2)
    assert np.abs(actor.act(observation) - expected).max() > 1e-3


def test_an_actor_draws_actions_only_from_a_generator_and_clips_them():
    policy, space = make_policy(), SPACES["continuous"][1]
    observation = np.zeros((50, 3), np.float32)

    def first(rng):
        actor = Actor(policy, space, rng)
        actor.reset(50)
        return actor.act(observation)

    assert len(np.unique(first(None), axis=0)) == 1
    drawn = first(np.random.default_rng(0))
    assert np.array_equal(drawn, first(np.random.default_rng(0))) and drawn.dtype == space.dtype
    assert len(np.unique(drawn, axis=0)) > 10 and np.abs(drawn).max() <= 1
