"""The benchmark's reference computes what ours computes."""

import numpy as np
import torch

from benchmarks.throughput_persim import Dense
from persim.simulator import Simulator


def test_the_dense_reference_is_the_same_simulator():
    simulator = Simulator(2, 6, 3, 4, 2, state_layers=(16,))
    simulator.draw([np.random.default_rng(member) for member in range(2)])
    simulator.target_scale.copy_(torch.tensor([0.5, 1.0, 2.0, 0.1]))
    rng = np.random.default_rng(0)
    state = torch.from_numpy(rng.standard_normal((7, 4), np.float32))
    action = torch.from_numpy(rng.integers(0, 2, 7))
    ours = simulator.at([5]).step(state.expand(2, 1, 7, 4), action[None])
    for member in range(2):
        theirs = Dense(simulator, member).step(5, state, action)
        assert torch.allclose(theirs, ours[member, 0], atol=1e-5)
