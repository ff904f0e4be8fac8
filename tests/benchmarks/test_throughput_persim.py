"""The benchmarks' references: they compute what ours computes, and loss is held out."""

import json
import sys

import numpy as np
import pytest
import torch

from benchmarks import persim_time_to_loss
from benchmarks.throughput_persim import Dense
from envs import make_family
from mpi_utils.comm import Comm
from persim.problem import make_log
from persim.simulator import Simulator
from tests.persim.runs import configured


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_actions": 2, "state_layers": (16,)},
        {"action_size": 2, "state_layers": (16, 8), "action_layers": (5,)},
    ],
    ids=["discrete", "vectors"],
)
def test_the_dense_reference_is_the_same_simulator(sizes):
    simulator = Simulator(2, 6, 3, 4, **sizes)
    simulator.draw([np.random.default_rng(member) for member in range(2)])
    simulator.target_scale.copy_(torch.tensor([0.5, 1.0, 2.0, 0.1]))
    rng = np.random.default_rng(0)
    state = torch.from_numpy(rng.standard_normal((7, 4), np.float32))
    action = torch.from_numpy(rng.integers(0, 2, 7))
    if "action_size" in sizes:
        action = torch.from_numpy(rng.standard_normal((7, 2), np.float32))
    ours = simulator.at([5]).step(state.expand(2, 1, 7, 4), action[None])
    for member in range(2):
        theirs = Dense(simulator, member).step(5, state, action)
        assert torch.allclose(theirs, ours[member, 0], atol=1e-5)


@pytest.mark.slow
def test_time_to_the_loss_of_the_authors_schedule(monkeypatch, capsys):
    # One epoch of their schedule from fresh weights is soon reached, and is timed as what they would need.
    monkeypatch.setattr(persim_time_to_loss, "EPOCHS", 1)
    monkeypatch.setattr(sys, "argv", "x --environment cart_pole --num_agents 8 --num_models 2".split())
    persim_time_to_loss.main(Comm())
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    *_, (iterations, seconds, loss) = found["ours_iterations_seconds_loss"]
    assert loss <= found["authors_loss"] and iterations <= 4
    assert found["times_sooner"] == pytest.approx(found["authors_s"] / seconds, rel=0.05)


def test_held_out_transitions_are_the_others():
    data = make_log(configured("cart_pole", num_agents=8), make_family("cart_pole"))
    known, held_out = persim_time_to_loss.split(data)
    assert len(known) + len(held_out) == len(data) and 0 < len(held_out) < len(data) / 4
    steps = [list(zip(part.agent.tolist(), part.time.tolist(), strict=True)) for part in (known, held_out)]
    assert len({*steps[0], *steps[1]}) == len(data)
