"""Random numbers drawn from counters: what is drawn depends on (seed, purpose, iteration, index) only.

So a save stores no generator, and no draw depends on the number of ranks.
"""

from typing import Any

import numpy as np

from common.errors import UserError

# The position is part of every stored result: append, never reorder.
PURPOSES = (
    "weights",
    "tasks",
    "environment",
    "acting",
    "minibatches",
    "evaluation",
    "planning",
    "assignment",
)
Size = int | tuple[int, ...]


def stream(seed: int, purpose: str, iteration: int = 0, index: int = 0) -> np.random.Generator:
    """Return the generator of one purpose in one iteration; `index` tells draws within it apart, e.g. epochs.

    Streams of different arguments are independent. Raises UserError for a negative seed, ValueError for an
    unknown purpose or counters outside [0, 2**32).
    """
    if purpose not in PURPOSES:
        raise ValueError(f"purpose: {purpose!r} is none of {', '.join(PURPOSES)}")
    if not (0 <= iteration < 2**32 and 0 <= index < 2**32):
        raise ValueError(f"iteration {iteration}, index {index}: both must be in [0, 2**32)")
    if not 0 <= seed < 2**64:
        raise UserError(f"seed: {seed} is not in [0, 2**64); choose a whole number from there")
    key = (PURPOSES.index(purpose), int(iteration), int(index))
    return np.random.default_rng(np.random.SeedSequence(int(seed), spawn_key=key))


class SharedStream:
    """One generator for a batch of `total` items of which this rank holds the rows `share`.

    Every rank draws for the whole batch and keeps its rows: numbers do not depend on the number of ranks, for
    the price of drawing all of them. The first axis of every asked size must be the length of the share.
    """

    def __init__(self, generator: Any, total: int, share: slice):
        self.generator, self.total, self.share = generator, total, share
        self.num_local = len(range(*share.indices(total)))

    def random(self, size: Size, dtype: Any = np.float64) -> np.ndarray:
        """Return uniform draws in [0, 1) of shape `size`."""
        return self.generator.random(self._whole(size), dtype)[self.share]

    def standard_normal(self, size: Size, dtype: Any = np.float64) -> np.ndarray:
        """Return normal draws of shape `size`."""
        return self.generator.standard_normal(self._whole(size), dtype)[self.share]

    def standard_exponential(self, size: Size, dtype: Any = np.float64) -> np.ndarray:
        """Return exponential draws of shape `size`, e.g. for Gumbel noise as minus their logarithm."""
        return self.generator.standard_exponential(self._whole(size), dtype)[self.share]

    def _whole(self, size: Size) -> tuple[int, ...]:
        shape = tuple(np.atleast_1d(size).tolist())
        if not shape or shape[0] != self.num_local:
            raise ValueError(f"size {size}: the first axis must be {self.num_local}, the rows of this rank")
        return (self.total, *shape[1:])


class Repeated:
    """A stream whose draws for n rows, in blocks of `block`, give `times` such blocks each."""

    def __init__(self, stream: Any, times: int, block: int = 1):
        self.stream, self.times, self.block = stream, times, block

    def random(self, size: Any, dtype: Any = np.float64) -> np.ndarray:
        """Uniform draws in [0, 1)."""
        return self.repeat("random", size, dtype)

    def standard_normal(self, size: Any, dtype: Any = np.float64) -> np.ndarray:
        """Normal draws."""
        return self.repeat("standard_normal", size, dtype)

    def standard_exponential(self, size: Any, dtype: Any = np.float64) -> np.ndarray:
        """Exponential draws."""
        return self.repeat("standard_exponential", size, dtype)

    def repeat(self, name: str, size: Any, dtype: Any) -> np.ndarray:
        """Draws for every `times`th block."""
        rows, *rest = np.atleast_1d(size).tolist()
        drawn = getattr(self.stream, name)((rows // self.times, *rest), dtype)
        return drawn.reshape(-1, self.block, *rest).repeat(self.times, axis=0).reshape(rows, *rest)
