"""The simulator's one step as a module, against the models that are planned on."""

import numpy as np
import torch

from persim.export import OneStep
from persim.simulator import Simulator


def simulator(**sizes):
    made = Simulator(3, 4, 2, state_size=2, state_layers=(8,), **sizes)
    made.draw([np.random.default_rng(i) for i in range(3)])
    made.target_scale.copy_(torch.tensor([0.1, 20.0]))
    made.active_members[1] = False
    return made


def test_continuous_actions_and_members_that_diverged():
    made, rng = simulator(action_size=3, action_layers=(5,)), np.random.default_rng(0)
    agents = torch.tensor([3, 0, 3, 1, 2])
    state, action = (torch.from_numpy(rng.normal(size=(5, n)).astype(np.float32)) for n in (2, 3))
    expected = made.at(agents).step(state[None, :, None], action[:, None])[:, :, 0]
    found = OneStep(made, pooled=False)(agents, state, action)
    assert found.shape == (2, 5, 2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_one_simulator_for_all_agents_takes_any_of_them():
    made = simulator(num_actions=2)
    state, action = torch.randn(2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1])
    step = OneStep(made, pooled=True)
    assert torch.equal(step(torch.tensor([7, 9]), state, action), step(torch.tensor([0, 0]), state, action))


def test_states_that_are_histories():
    history = {"length": 2, "size": 1, "remembered": 1, "num_actions": 2, "action_size": 0, "inertia": [1]}
    made = Simulator(2, 3, 2, state_size=4, num_actions=2, state_layers=(8,), history=history)
    made.draw([np.random.default_rng(i) for i in range(2)])
    agents, action = torch.tensor([2, 0]), torch.tensor([1, 0])
    state = torch.tensor([[3.0, 1, 0, 1], [1, -1, 1, 0]])
    expected = made.at(agents).step(state[None, :, None], action[:, None])[:, :, 0]
    torch.testing.assert_close(OneStep(made, pooled=False)(agents, state, action), expected)
    assert (expected[:, 0, 2:] == torch.tensor([0, 1])).all()
