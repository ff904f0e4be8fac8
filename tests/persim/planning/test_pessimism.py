"""Pessimism: what it is chosen by, and that a planner with it keeps to what members agree on."""

import numpy as np
import pytest
import torch

from envs import make_family
from mpi_utils.comm import Comm
from persim.config import Config
from persim.planning.pessimism import TRIED, MemberDynamics, choose, least
from persim.planning.planner import Settings, Shooting
from persim.simulator import Simulator
from tests.persim.runs import configured, trained
from tests.persim.toys import Walk


class Torn:
    """Action 2 moves members by 1.5 and 0.9, action 1 both by 1: the first seems better and is not sure."""

    def at(self, agents):
        return self

    def step(self, state, action):
        moves = torch.tensor([[0.0, 1.0, 1.5], [0.0, 1.0, 0.9]])
        return state + moves[:, action][..., None]


@pytest.mark.parametrize("pessimism, expected", [(0.0, 2), (1.0, 1)])
def test_a_pessimist_takes_what_members_agree_on(pessimism, expected):
    settings = Settings(horizon=1, num_candidates=50, pessimism=pessimism)
    planner = Shooting(Walk(), 1, 0, settings)
    assert planner.plan(Torn(), np.array([0]), np.zeros((1, 1)), np.array([0])) == [expected]


def test_the_least_is_chosen_that_is_not_clearly_worse():
    returns = np.array([[0.0, 0, 0, 0], [9.0, 10, 9, 10], [10.0, 9, 10, 9.2], [10.0, 10, 10, 10]])
    assert least(returns) == TRIED[3]
    assert least(np.array([[10.0, 10, 10, 7], [10.0, 10, 10, 10], *returns[2:]])) == TRIED[0]


def test_a_member_plays_as_the_true_dynamics():
    made = Simulator(3, 4, 2, state_size=4, num_actions=2, state_layers=(8,))
    made.draw([np.random.default_rng(i) for i in range(3)])
    made.active_members[1:] = False
    world = MemberDynamics(make_family("cart_pole"), made)
    start = world.start(np.random.default_rng(0), 3)
    after = world.advance(start, np.array([0, 1, 1]), {"agent": np.array([2, 2, 0])})
    for row, (agent, action) in enumerate(((2, 0), (2, 1), (0, 1))):
        given = torch.from_numpy(start[row].astype(np.float32))[None, None, None]
        expected = made.at([agent]).step(given, torch.tensor([[action]]))[0, 0, 0]
        np.testing.assert_allclose(after[row], expected, rtol=1e-5)


@pytest.mark.parametrize("history", [{}, {"hide": "velocity,angular_velocity", "history": 2}])
def test_each_member_is_left_out_once(history):
    sizes = {"num_agents": 6, "num_models": 3, "state_features": 8, "max_iters": 1, "num_minibatches": 3}
    config: Config = configured("cart_pole", **sizes, **history)
    simulator, family = trained(config).simulator, make_family("cart_pole", max_episode_len=12)
    few = {"horizon": 3, "num_candidates": 6}
    chosen, returns = choose(config, family, simulator, np.array([0, 3]), 0, Comm(), **few)
    assert returns.shape == (len(TRIED), 3, 2) and chosen in TRIED
    assert ((returns >= 1) & (returns <= 12)).all() and bool(simulator.active_members.all())
    simulator.active_members[0] = False
    assert choose(config, family, simulator, np.array([0]), 0, Comm(), **few)[0] == 0
