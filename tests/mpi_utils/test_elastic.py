"""The copy of the state from which a run goes on after a loss; test_lost_ranks has the losses themselves."""

import numpy as np
import pytest
import torch

from common.errors import RankLost, SaveError
from common.runs import checkpoint
from mpi_utils.comm import Comm, Piece
from mpi_utils.elastic import Kept, Part, apart, pack, put, unpack
from tests.helpers.runs import TINY, differing, settings
from train import make_learner

OWN_DYNAMICS = "--environment cart_pole --num_agents 5 --steps_per_policy 40 --envs_per_policy 2".split()
VARIBAD = "--architecture varibad --vae_buffer 2 --vae_updates 1".split()
CASES = [(system, []) for system in TINY] + [
    ("rmdp", OWN_DYNAMICS),
    ("rmdp", ["--welfare", "nash"]),
    ("rl2", VARIBAD),
]


class Lossy(Comm):
    """One rank of two, the other of which is lost in the barrier; `newest` is the latest version of all."""

    lost, newest = False, 0

    def barrier(self):
        if self.lost:
            raise RankLost

    def shrink(self):
        return [1]

    def allreduce_(self, array, op="sum"):
        return np.maximum(array, self.newest) if op == "max" else array

    def who(self):
        return ["rank 0", "rank 1"]


@pytest.mark.parametrize(("system", "more"), CASES)
def test_what_is_kept_is_the_whole_state(system, more):
    """Bit for bit, and the learner that goes on does not change it."""
    comm = Comm()
    learner, kept = make_learner(system, settings(system, *more), comm), Kept(comm)
    learner.train_iteration(0)
    expected = checkpoint.unpack(checkpoint.pack(1, learner.state_dict()))[1]
    kept.keep(learner, 1)
    learner.train_iteration(1)
    learner.train_iteration(2)
    assert not differing(kept.state(), expected)
    assert kept.restore(learner) == 1
    assert not differing(checkpoint.unpack(checkpoint.pack(1, learner.state_dict()))[1], expected)


@pytest.mark.parametrize("past", [False, True])
def test_all_go_back_to_the_same_iteration(past, capsys):
    """If any rank is past the barrier, all have passed on their parts, and take the later state."""
    comm = Lossy()
    learner, kept = make_learner("rl2", settings("rl2"), comm), Kept(comm)
    learner.train_iteration(0)
    kept.keep(learner, 1)
    first = kept.state()
    learner.train_iteration(1)
    comm.lost = True
    with pytest.raises(RankLost):
        kept.keep(learner, 2)
    comm.newest = kept.number + past
    kept.recover()
    assert bool(differing(kept.state(), first)) == past
    iteration = 3 if past else 2
    assert capsys.readouterr().err == f"rank 1 is lost; one rank goes on from iteration {iteration}\n"


def test_pieces_are_packed_and_unpacked():
    pieces = {
        ("a", "b"): Piece(torch.arange(6.0).reshape(2, 3), slice(4, 7), 9, 1),
        ("c",): Piece(np.zeros((0, 2), np.bool_), slice(3, 3), 3, 0),
        ("d",): Piece(np.array([[-0.0], [np.nan]]), slice(0, 2), 2, 0),
    }
    state = {"a": {}, "alike": 1}
    for path, piece in pieces.items():
        put(state, path, piece)
    alike, found = apart(state)
    assert alike == {"a": {}, "alike": 1} and found == pieces
    (first, rows), (_, none), (_, numbers) = unpack(pack(pieces))
    assert first == Part(("a", "b"), 4, 9, 1, True, "<f4", (3, 2))
    assert rows.tolist() == [[0, 3], [1, 4], [2, 5]]  # rows first
    assert none.shape == (0, 2) and numbers.tobytes() == pieces["d",].own.tobytes()


def test_what_two_ranks_alone_had_is_lost_with_them():
    comm = Lossy()
    learner, kept = make_learner("rmdp", settings("rmdp"), comm), Kept(comm)
    learner.train_iteration(0)
    kept.keep(learner, 1)
    kept.version = kept.version._replace(size=3)  # of which this one has its own part and no other
    with pytest.raises(SaveError, match="what rank 1, 2 of 3 had is lost"):
        kept.state()
