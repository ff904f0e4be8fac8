"""A stand-in for the stream that ranks share: it draws for all tasks and returns some rows."""

import numpy as np


class SlicedStream:
    def __init__(self, seed, total, share):
        self.generator, self.total, self.share = np.random.default_rng(seed), total, share

    def _draw(self, draw, shape, **kwargs):
        shape = (shape,) if np.isscalar(shape) else tuple(shape)
        assert shape[0] == len(range(*self.share.indices(self.total)))
        return draw((self.total, *shape[1:]), **kwargs)[self.share]

    def random(self, shape, **kwargs):
        return self._draw(self.generator.random, shape, **kwargs)

    def standard_normal(self, shape, **kwargs):
        return self._draw(self.generator.standard_normal, shape, **kwargs)

    def standard_exponential(self, shape, **kwargs):
        return self._draw(self.generator.standard_exponential, shape, **kwargs)
