"""The factored network: numbers by hand, what its encoders share, stepping, members side by side."""

import numpy as np
import pytest
import torch

from persim import agent_models
from persim.simulator import Simulator


def drawn(num_models=2, num_agents=6, num_factors=3, state_size=2, num_actions=3, members=None, **sizes):
    simulator = Simulator(num_models, num_agents, num_factors, state_size, num_actions, **sizes)
    members = range(num_models) if members is None else members
    simulator.draw([np.random.default_rng(member) for member in members])
    for name, low in (("state_mean", -0.5), ("state_scale", 0.5), ("target_scale", 0.1)):
        getattr(simulator, name).copy_(torch.linspace(low, low + 0.3, state_size))
    return simulator


CONTINUOUS = {"num_actions": 0, "action_size": 2, "state_layers": (8, 7), "action_layers": (5,)}
KINDS = pytest.mark.parametrize(
    "sizes",
    [{"state_layers": (16,)}, {"state_layers": (8, 7)}, CONTINUOUS],
    ids=["small", "deep", "continuous"],
)


def batch(simulator, B=9, seed=0):
    g = torch.Generator().manual_seed(seed)
    M, n, sizes = simulator.num_models, simulator.sizes["num_agents"], simulator.sizes
    state = torch.randn(M, B, simulator.state_size, generator=g)
    agent = torch.randint(n, (M, B), generator=g)
    if simulator.num_actions:
        return agent, state, torch.randint(simulator.num_actions, (M, B), generator=g)
    return agent, state, torch.randn(M, B, sizes["action_size"], generator=g)


def test_a_prediction_by_hand():
    """u = (2, 3), w = (1 + 0.5, -1), s = 4: hidden relu(2 s - 1) = 7 and relu(-s) = 0."""
    simulator = Simulator(1, 2, 2, 1, 2, state_layers=(2,))
    with torch.no_grad():
        simulator.agent[0] = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
        simulator.agent_bias[0] = 1.0
        simulator.action[0] = torch.tensor([[0.0, 0.0], [1.0, -1.0]])
        simulator.action_bias[0, 0] = torch.tensor([0.5, 0.0])
        simulator.state_net[0][0] = torch.tensor([[2.0, -1.0], [-1.0, 0.0]])
        simulator.state_net[1][0] = torch.tensor([[1.0, 5.0, 0.1], [0.0, 5.0, -2.0]])
    one = torch.ones(1, 1, dtype=torch.long)
    change = simulator(one, torch.full((1, 1, 1), 4.0), one)
    v = (7 + 0.1, -2.0)
    assert change.item() == pytest.approx(2 * 1.5 * v[0] + 3 * -1 * v[1])
    simulator.state_mean[:], simulator.state_scale[:], simulator.target_scale[:] = 1.0, 0.5, 10.0
    assert simulator(one, torch.full((1, 1, 1), 3.0), one).item() == pytest.approx(change.item())
    next_state = simulator.at([1]).step(torch.full((1, 1, 1, 1), 3.0), one)
    assert next_state.item() == pytest.approx(3 + 10 * change.item())


@KINDS
def test_encoders_share_nothing(sizes):
    """An agent reaches the prediction through its factor only, an action and a state likewise."""
    simulator = drawn(**sizes)
    agent, state, action = batch(simulator)
    before = {name: value.clone() for name, value in simulator.named_parameters()}
    inputs = {"agent": agent, "action": action, "state": state}
    encoders = {
        "agent": simulator.factors,
        "action": simulator.action_factors,
        "state": simulator.state_factors,
    }
    for name, encoder in encoders.items():
        simulator.zero_grad()
        encoder(inputs[name]).square().sum().backward()
        reached = {
            p for p, value in simulator.named_parameters() if value.grad is not None and value.grad.any()
        }
        assert reached == {p for p in before if p.startswith(name)}
    u, w, v = simulator.factors(agent), simulator.action_factors(action), simulator.state_factors(state)
    torch.testing.assert_close(simulator(agent, state, action), torch.einsum("mbr,mbr,mbdr->mbd", u, w, v))


@KINDS
@pytest.mark.parametrize("chunk", [3, 1000])
def test_stepping_equals_the_forward_pass(sizes, chunk, monkeypatch):
    monkeypatch.setattr(agent_models, "CHUNK", chunk)
    simulator = drawn(**sizes)
    M, E, C, d = simulator.num_models, 3, 5, 2
    agents = torch.tensor([4, 0, 4])
    _, state, action = batch(simulator, E * C)
    expected = (
        state
        + simulator(agents.repeat_interleave(C).expand(M, -1), state, action[:1].expand_as(action))[...]
        * simulator.target_scale
    )
    stepped = simulator.at(agents).step(state.view(M, E, C, d), action[0].unflatten(0, (E, C)))
    torch.testing.assert_close(stepped.flatten(1, 2), expected, rtol=1e-4, atol=1e-5)
    given = simulator.at(factor=simulator.factors()[:, agents])
    shared = state[:1].view(1, E, C, d)  # all members from the same states
    torch.testing.assert_close(
        given.step(shared, action[0].unflatten(0, (E, C))),
        simulator.at(agents).step(shared.expand(M, E, C, d), action[0].unflatten(0, (E, C))),
    )


@KINDS
def test_a_member_is_the_network_that_it_would_be_alone(sizes):
    both, alone = drawn(**sizes), drawn(num_models=1, members=[1], **sizes)
    inputs = batch(both)
    torch.testing.assert_close(both(*inputs)[1:], alone(*(value[1:] for value in inputs)))


@KINDS
def test_pruned_members_have_no_say(sizes):
    simulator, both = drawn(3, **sizes), drawn(2, members=(0, 2), **sizes)
    simulator.active_members[1] = False
    agents = np.array([4, 1])
    g = torch.Generator().manual_seed(0)
    state = torch.randn(1, 2, 5, 2, generator=g)
    if simulator.num_actions:
        action = torch.randint(3, (2, 5), generator=g)
    else:
        action = torch.randn(2, 5, 2, generator=g)
    step = simulator.at(agents).step(state, action)
    assert step.shape == (2, 2, 5, 2)
    torch.testing.assert_close(step, both.at(agents).step(state, action))
    factor = simulator.factors()[:, agents]
    torch.testing.assert_close(simulator.at(factor=factor).step(state, action), step)
