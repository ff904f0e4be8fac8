"""Streams are independent of each other, of the number of ranks, and stay what they are."""

import itertools

import numpy as np
import pytest

from common.errors import UserError
from common.runs.seeding import PURPOSES, SharedStream, stream
from mpi_utils.comm import Comm


def test_no_two_streams_share_a_draw(promise):
    draws = [
        stream(seed, purpose, iteration, index).integers(2**64, size=500, dtype=np.uint64)
        for seed, purpose, iteration, index in itertools.product((7, 8), PURPOSES, range(25), range(4))
    ]
    with promise("C4 streams that share no draw", len(draws)):
        assert len(np.unique(np.concatenate(draws))) == 500 * len(draws)


def test_streams_are_what_they_were_when_results_were_stored():
    assert PURPOSES[:3] == ("weights", "tasks", "environment")
    assert stream(1, "acting", 2, 3).integers(1000, size=4).tolist() == [663, 603, 148, 911]


@pytest.mark.parametrize(
    "arguments", [(0, "weather"), (0, "tasks", -1), (0, "tasks", 2**32), (0, "tasks", 0, -1)]
)
def test_unknown_streams_are_refused(arguments):
    with pytest.raises(ValueError):
        stream(*arguments)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_bad_seed_is_the_users_mistake(seed):
    with pytest.raises(UserError, match="seed"):
        stream(seed, "tasks")


class Rank(Comm):
    """One of several ranks that exist in the mind only; enough for `share`."""

    def __init__(self, rank, size):
        super().__init__()
        self.rank, self.size = rank, size


@pytest.mark.promise("C2 other number of ranks")
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5, 9])
def test_rows_do_not_depend_on_the_number_of_ranks(num_ranks):
    def batch(num_ranks):
        parts = []
        for rank in range(num_ranks):
            share = Rank(rank, num_ranks).share(7)
            shared = SharedStream(stream(1, "acting"), 7, share)
            n = share.stop - share.start
            parts.append(
                [shared.random(n), shared.standard_normal(size=(n, 3)), shared.standard_exponential((n,))]
            )
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    for ours, alone in zip(batch(num_ranks), batch(1), strict=True):
        assert len(alone) == 7 and np.array_equal(ours, alone)


def test_sizes_must_begin_with_the_share():
    shared = SharedStream(stream(1, "acting"), 7, slice(2, 5))
    assert shared.random(3, dtype=np.float32).dtype == np.float32
    for size in (7, (4, 3), ()):
        with pytest.raises(ValueError, match="must be 3"):
            shared.random(size)


@pytest.mark.promise("D3 shares of any size")
@pytest.mark.parametrize("n", [0, 1, 5, 12, 1000])
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7])
def test_shares_cover_everything_once(n, num_ranks):
    pieces = [list(range(n))[Rank(rank, num_ranks).share(n)] for rank in range(num_ranks)]
    assert sum(pieces, []) == list(range(n))
    lengths = [len(piece) for piece in pieces]
    assert max(lengths) - min(lengths) <= 1 and lengths == sorted(lengths, reverse=True)
