"""Tables in place of networks: the same where they are exact, refused where they are not sound."""

import numpy as np
import pytest
import torch

from envs import make_family
from persim.planning.lookup_table import Lookup, tabulate
from persim.simulator import Simulator

FAMILY = make_family("mountain_car")
LOW, HIGH = np.array([-1.0, -2.0], np.float32), np.array([1.0, 2.0], np.float32)


def drawn(state_size=2, num_actions=3, noise=1.0):
    simulator = Simulator(2, 5, 3, state_size, num_actions, state_layers=(16,))
    simulator.draw([np.random.default_rng(member) for member in range(2)])
    simulator.noise.fill_(noise)
    return simulator


def test_a_table_is_exact_at_its_points():
    """Also for agents in any order and twice, and for actions next to each other in the table."""
    simulator, agents = drawn(), np.array([4, 1, 4])
    lookup = Lookup(simulator, np.array([1, 3, 4]), LOW, HIGH, 3, (5, 9))
    points = np.stack(np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-2, 2, 9)), -1).reshape(-1, 2)
    state = torch.from_numpy(points.astype(np.float32)).expand(3, -1, -1)
    state = torch.stack([state, state.flip(1)])
    action = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (3, 45)))
    found = lookup.at(agents).step(state, action)
    assert torch.allclose(found, simulator.at(agents).step(state, action), atol=1e-5)


def test_between_its_points_a_table_is_bilinear_and_beyond_them_constant():
    simulator = drawn()
    lookup = Lookup(simulator, np.array([0]), LOW, HIGH, 3, (2, 2))
    corners = torch.tensor([[[-1.0, -2.0], [1.0, -2.0], [-1.0, 2.0], [1.0, 2.0]]])
    one = torch.ones(1, 4, dtype=torch.long)
    change = simulator.at([0]).step(corners[None], one) - corners
    inside = torch.tensor([[[[0.5, -1.0]]]])
    weights = torch.tensor([0.25 * 0.75, 0.75 * 0.75, 0.25 * 0.25, 0.75 * 0.25])
    wanted = (weights[:, None] * change).sum(2, keepdim=True)
    assert torch.allclose(lookup.at([0]).step(inside, one[:, :1]) - inside, wanted, atol=1e-6)
    beyond = corners * 3
    assert torch.allclose(lookup.at([0]).step(beyond[None], one) - beyond, change, atol=1e-5)


def test_what_can_be_looked_up():
    simulator = drawn()
    lookup = tabulate(simulator, FAMILY, np.array([2, 0, 2]))
    assert isinstance(lookup, Lookup) and lookup.agents.tolist() == [0, 2]
    assert (lookup.error(simulator) < 1e-2).all()
    cart_pole = make_family("cart_pole")
    four = drawn(state_size=4, num_actions=2)
    assert tabulate(four, cart_pole, np.arange(5)) is four


@pytest.mark.parametrize("noise, accepted", [(1e-1, True), (1e-7, False)])
def test_tables_that_are_worse_than_the_simulator_are_refused(noise, accepted, monkeypatch):
    monkeypatch.setattr("persim.planning.lookup_table.SHAPES", ((8, 4), (16, 8)))
    simulator = drawn(noise=noise)
    assert (tabulate(simulator, FAMILY, np.arange(2)) is simulator) is not accepted


def test_tables_too_large_are_not_made(monkeypatch):
    monkeypatch.setattr("persim.planning.lookup_table.MAX_NUMBERS", 2 * 2 * 3 * 256 * 128)
    simulator = drawn()
    assert isinstance(tabulate(simulator, FAMILY, np.array([1, 1])), Lookup)
    assert tabulate(simulator, FAMILY, np.arange(2)) is simulator
