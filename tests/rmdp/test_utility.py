"""Utilities: what a policy is worth to an agent, from steps alone."""

import dataclasses

import numpy as np
import torch

from mpi_utils.comm import Comm
from rmdp.config import Config, check_config
from rmdp.utility import Welfare


def sprinter_and_walker():
    """Two policies over 16 steps: falls after each 2 steps of pay 1, and walks 8 steps at pay 0.5."""
    config = dataclasses.replace(check_config(Config()), num_policies=2, num_agents=1, envs_per_policy=1)
    welfare = Welfare(config, Comm(), num_own=1, scale=1.0)
    done = torch.zeros(2, 16, 1, dtype=torch.bool)
    done[0, 1::2], done[1, 7::8] = True, True
    welfare.begin(done)
    welfare.reward += torch.tensor([[16.0], [8.0]])
    return welfare


def test_a_utility_is_the_return_of_an_episode():
    np.testing.assert_allclose(sprinter_and_walker().utility(), [[2.0], [4.0]])


def test_per_step_it_is_worth_more_to_walk_than_to_sprint_and_fall():
    # The mean of 8 and 2 ends in 16 steps: one in 3.2.
    pays = sprinter_and_walker().utility_per_step(slice(0, 1))
    assert pays.dtype == torch.float32
    np.testing.assert_allclose(pays, [[2 / 3.2], [4 / 3.2]])


def test_before_any_episode_ends_no_policy_is_worth_more_than_another():
    welfare = sprinter_and_walker()
    welfare.ends[:] = 0
    assert not welfare.utility_per_step(slice(0, 1)).any()
