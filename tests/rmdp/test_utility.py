"""Utilities: what a policy is worth to an agent, from steps alone."""

import dataclasses

import numpy as np
import pytest
import torch

from mpi_utils.comm import Comm
from rmdp.config import Config
from rmdp.utility import Utilities


def utilities(num_policies, num_agents, num_envs, scale=1.0):
    config = dataclasses.replace(
        Config(), num_policies=num_policies, num_agents=num_agents, envs_per_policy=num_envs
    )
    return Utilities(config, Comm(), num_own=num_agents, scale=scale)


def sprinter_and_walker(ends=True):
    """Two policies over 16 steps: falls after each 2 steps of reward 1, and walks 8 steps at reward 0.5."""
    made = utilities(2, 1, 1)
    done, reward = torch.zeros(2, 16, 1, dtype=torch.bool), torch.ones(2, 16, 1, 1)
    reward[1] = 0.5
    if ends:
        done[0, 1::2], done[1, 7::8] = True, True
    made.begin(done)
    made.add(slice(0, 1), reward)
    return made


def test_a_utility_is_the_return_of_an_episode():
    np.testing.assert_allclose(sprinter_and_walker().by_policy(), [[2.0], [4.0]])


def test_per_step_it_is_worth_more_to_walk_than_to_sprint_and_fall():
    # The mean of 8 and 2 ends in 16 steps: one in 3.2.
    utility = sprinter_and_walker().per_step(slice(0, 1))
    assert utility.dtype == torch.float32
    np.testing.assert_allclose(utility, [[2 / 3.2], [4 / 3.2]])


def test_before_any_episode_ends_no_policy_is_worth_more_than_another():
    assert not sprinter_and_walker(ends=False).per_step(slice(0, 1)).any()


def test_welfare_is_the_mean_return_of_all_agents():
    """Walks that bump the wall at once have a return of 0.99 for the home agent and end at each step."""
    made, weights = utilities(3, 25, 4, scale=100.0), torch.full((3, 25), 1 / 3)
    done, reward = torch.ones(3, 16, 4, dtype=torch.bool), torch.zeros(3, 16, 4, 25)
    reward[..., 22] = 0.99
    made.begin(done)
    made.add(slice(0, 25), reward)
    made.finish((reward * weights[:, None, None]).sum(-1), done)
    np.testing.assert_allclose(made.by_policy()[:, 22], 0.99, rtol=1e-6)
    assert made.by_policy()[:, :22].max() == 0
    report = made.report(weights)
    for name in ("train/return", "train/episode_welfare", "train/social_welfare"):
        assert report[name] == pytest.approx(100 * 0.99 / 25)


def test_no_welfare_is_reported_before_an_episode_of_every_policy_has_ended():
    made, weights = utilities(2, 3, 1), torch.full((2, 3), 0.5)
    for ends, known in ((torch.tensor([True, False]), False), (torch.tensor([False, True]), True)):
        done, reward = torch.zeros(2, 4, 1, dtype=torch.bool), torch.ones(2, 4, 1, 3)
        done[:, -1, 0] = ends
        made.begin(done)
        made.add(slice(0, 3), reward)
        made.finish((reward * weights[:, None, None]).sum(-1), done)
        report = made.report(weights)
        names = {"train/return", "train/episode_welfare", "train/social_welfare"}
        assert names & report.keys() == (names if known else set())
    # Policies return 1.5 a step to all their agents together, in 4 and 8 steps.
    assert report["train/social_welfare"] == pytest.approx((4 + 8) * 1.5 / 3)
