"""Running moments are those of all that was seen, on however many ranks and in however many parts."""

import numpy as np
import torch

from common.running_moments import RunningMoments
from mpi_utils.comm import Comm


class Teller:
    """Keeps what ranks send, or tells each of them the sum."""

    def __init__(self):
        self.sent, self.total = [], None

    def allreduce_(self, array):
        self.sent.append(array.copy())
        return array if self.total is None else self.total.copy()


def test_hand_computed():
    moments = RunningMoments(1)
    x = torch.tensor([[3.0], [-20.0]])
    assert torch.equal(moments(x), torch.tensor([[3.0], [-10.0]]))  # nothing is known, but it is clipped
    moments.update(Comm(), torch.tensor([[1.0], [5.0]]))  # mean 3, variance 4
    assert (moments.count.item(), moments.mean.item(), moments.variance.item()) == (2, 3, 4)
    torch.testing.assert_close(moments(torch.tensor([[7.0]])), torch.tensor([[2.0]]))
    torch.testing.assert_close(moments.scaled(torch.tensor([[7.0]])), torch.tensor([[3.5]]))
    moments.update(Comm(), torch.tensor([[9.0]]))  # of 1, 5, 9: mean 5, variance 32 / 3
    assert moments.mean.item() == 5 and abs(moments.variance.item() - 32 / 3) < 1e-12
    moments.update(Comm(), None)
    assert moments.count.item() == 3


def test_parts_and_ranks_make_no_difference():
    x = torch.from_numpy(np.random.default_rng(0).normal([50.0, -1], [0.1, 30], (300, 2)))
    for cuts in ([300], [1, 120, 179], [100, 100, 100]):
        in_turn = RunningMoments(2)
        parts = x.split(cuts)
        for part in parts:
            in_turn.update(Comm(), part)
        teller, at_once = Teller(), RunningMoments(2)
        for part in (*parts, None):  # a rank has none
            RunningMoments(2).update(teller, part)
        teller.total = np.sum(teller.sent, axis=0)
        at_once.update(teller, parts[0])
        for found in (in_turn, at_once):
            np.testing.assert_allclose(found.mean, x.mean(0), rtol=1e-12)
            np.testing.assert_allclose(found.variance, x.var(0, correction=0), rtol=1e-8)


def test_they_are_saved_to_the_last_bit():
    moments, again = RunningMoments(3), RunningMoments(3)
    moments.update(Comm(), torch.randn(7, 3, generator=torch.Generator().manual_seed(0)))
    again.load_state_dict(moments.state_dict())
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(moments(x), again(x)) and not torch.equal(moments(x), x)
