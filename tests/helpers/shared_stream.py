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


def random_actions(family, T, n, seed=0):
    """Actions [T, n, ...] from the family's space."""
    family.action_space.seed(seed)
    return np.array([[family.action_space.sample() for _ in range(n)] for _ in range(T)])


def play(family, parameters, rng, actions):
    """The first observations, and what each step led to; final observations must lie in the space."""
    env = family.make_vec(parameters, rng)
    results = [(env.reset()[0],)]
    for row in actions:
        *result, infos = env.step(row)
        ended = np.logical_or(*result[2:4])
        if ended.any():  # an array of objects for single environments, None where nothing ended
            assert all(infos["final_obs"][i] in env.single_observation_space for i in np.flatnonzero(ended))
        results.append(result)
    return results


def assert_shares_play_what_the_whole_plays(family, T, n, cut):
    """n tasks at once give bit for bit what two shares of them give with the shared stream; their steps."""
    whole = family.sample(SlicedStream(1, n, slice(0, n)), n)
    actions = random_actions(family, T, n)
    expected = play(family, whole, SlicedStream(2, n, slice(0, n)), actions)
    for share in (slice(0, cut), slice(cut, n)):
        parameters = family.sample(SlicedStream(1, n, share), share.stop - share.start)
        for key, array in parameters.items():
            assert array.tobytes() == whole[key][share].tobytes()
        found = play(family, parameters, SlicedStream(2, n, share), actions[:, share])
        for step, expected_step in zip(found, expected, strict=True):
            for array, all_rows in zip(step, expected_step, strict=True):
                assert array.tobytes() == all_rows[share].tobytes()
    return expected
