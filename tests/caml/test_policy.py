import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch.nn import functional as F

from caml.policy import Actor, Policies, num_weights

SIZES = (3, 7, 4)


def fresh(num_policies, seed=0, activation="relu"):
    uniform = np.random.default_rng(seed).random((num_policies, num_weights(*SIZES)), np.float32)
    return Policies.fresh(uniform, *SIZES, activation=activation)


def test_a_policy_has_so_many_numbers():
    assert num_weights(2, 68, 4) == 2 * 68 + 68 + 68 * 4 + 4
    assert sum(value[0].numel() for value in fresh(2).tensors.values()) == num_weights(*SIZES)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_each_row_is_a_network_of_its_own(activation):
    policies, x = fresh(5, activation=activation), torch.randn(5, 6, 3)
    for j, logits in enumerate(policies(x)):
        t = {name: value[j] for name, value in policies.tensors.items()}
        hidden = getattr(torch, activation)(F.linear(x[j], t["first.weight"].T, t["first.bias"][0]))
        alone = F.linear(hidden, t["head.weight"], t["head.bias"][:, 0])
        torch.testing.assert_close(logits, alone)


def test_fresh_weights_are_uniform_within_one_over_the_root_of_the_inputs():
    policies = fresh(2000)
    for name, fan_in in (("first.weight", 3), ("first.bias", 3), ("head.weight", 7), ("head.bias", 7)):
        value, bound = policies.tensors[name].detach(), fan_in**-0.5
        assert value.abs().max() <= bound
        assert value.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
        assert value.requires_grad_().is_leaf


def test_a_fresh_policy_depends_on_its_own_row_only():
    few, many = fresh(2), fresh(5)  # the generator fills row by row
    for name, value in few.tensors.items():
        assert torch.equal(value, many.tensors[name][:2])


def test_probabilities_are_those_of_every_policy_at_the_same_states():
    policies, states = fresh(3), np.random.default_rng(1).standard_normal((8, 3))
    probabilities = policies.probabilities(states, np.random.default_rng(0))
    assert probabilities.shape == (3, 8, 4) and probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(-1), 1)
    alone = policies.take([2]).probabilities(states, np.random.default_rng(0))[0]
    np.testing.assert_allclose(probabilities[2], alone, rtol=1e-5)


def test_taken_policies_are_copies():
    policies = fresh(3)
    before = {name: value.detach().clone() for name, value in policies.tensors.items()}
    taken = policies.take(torch.tensor([2, 0, 2]))
    assert len(taken) == 3
    for name, value in taken.tensors.items():
        assert torch.equal(value, before[name][[2, 0, 2]])
        value.data += 1
        assert torch.equal(policies.tensors[name], before[name])
        assert torch.equal(value[0], value[2])


# --- acting


@pytest.mark.parametrize("num", [2, 5, 15, 17])
def test_row_i_acts_by_policy_i_modulo_their_number(num):
    policies, observation = fresh(5), np.random.default_rng(0).standard_normal((num, 3)).astype(np.float32)
    actor = Actor(policies, Box(-9, 9, (3,)), Discrete(4))
    actor.reset(num)
    found = actor.act(observation, None, None)
    for i in range(num):
        assert (
            found[i] == policies.probabilities(observation[[i]], np.random.default_rng(0))[i % 5, 0].argmax()
        )


def test_an_actor_may_draw_its_actions():
    policies = fresh(1)
    actor = Actor(policies, Box(-9, 9, (3,)), Discrete(4), np.random.default_rng(0))
    shares = np.bincount(actor.act(np.zeros((20_000, 3)), None, None)) / 20_000
    np.testing.assert_allclose(
        shares, policies.probabilities(np.zeros((1, 3)), np.random.default_rng(0))[0, 0], atol=0.02
    )
