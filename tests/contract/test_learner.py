"""What every learner answers (common/protocols.py)."""

import math
import numbers
import re

import torch

from common.runs import checkpoint
from mpi_utils.comm import Comm
from tests.helpers.runs import differing, leaves
from train import SYSTEMS


def shown(metrics):
    """Metrics but times, which differ from run to run."""
    return {name: value for name, value in metrics.items() if not name.startswith("time/")}


def test_metrics_are_finite_and_keep_their_names(run):
    learner = run.new()
    found = [learner.train_iteration(i) for i in range(4)]
    for metrics in found:
        assert found[0].keys() <= metrics.keys()  # some are of every other iteration
        for name, value in metrics.items():
            assert re.fullmatch(r"[a-z]+/\w+", name)
            assert isinstance(value, numbers.Real) and math.isfinite(value), name


def test_it_continues_from_its_state_bit_for_bit(run):
    """Through the bytes of a save, into a learner that has learnt other things."""
    learner, other = run.new(), run.new()
    for i in range(2):
        learner.train_iteration(i)
    other.train_iteration(7)
    step, state = checkpoint.unpack(checkpoint.pack(2, learner.state_dict()))
    other.load_state_dict(state)
    assert step == 2 and not differing(other.state_dict(), learner.state_dict())
    found = [shown(each.train_iteration(2)) for each in (learner, other)]
    assert not differing(*found)
    assert not differing(other.state_dict(), learner.state_dict())
    assert not differing(other.tensors_in_sync(), learner.tensors_in_sync())


def test_an_iteration_changes_what_ranks_compare(run):
    learner = run.new()
    before = dict(leaves(learner.tensors_in_sync()))
    assert before and all(isinstance(name, str) for name in learner.tensors_in_sync())
    assert all(isinstance(value, torch.Tensor) for value in learner.tensors_in_sync().values())
    learner.train_iteration(0)
    after = dict(leaves(learner.tensors_in_sync()))
    assert after.keys() == before.keys() and differing(before, after)


def test_what_it_learns_is_what_was_stored(run):
    """A run of the command is its learner and nothing else."""
    learner = run.new()
    for i in range(2):
        learner.train_iteration(i)
    assert not differing(learner.state_dict(), run.trained().state_dict())


def test_a_problem_is_drawn_from_the_settings_alone(run):
    again = SYSTEMS[run.case.system].make_problem(run.config, Comm())
    assert again.digest == run.problem.digest and again.num_agents == run.problem.num_agents
