from functools import cache

import numpy as np
import pytest

from rl2.gittins import gittins_indices, state_number


def index_by_hand(wins, losses, pulls_left):
    """Highest (expected reward / expected pulls) over all stopping rules, by bisection on the price."""

    def surplus(price):
        @cache
        def worth(w, left_out, left):
            if left == 0:
                return 0.0
            p = (w + 1) / (w + left_out + 2)
            return max(
                0.0,
                p - price + p * worth(w + 1, left_out, left - 1) + (1 - p) * worth(w, left_out + 1, left - 1),
            )

        return worth(wins, losses, pulls_left)

    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if surplus(middle) > 1e-12 else (low, middle)
    return low


def test_gittins_with_one_pull_left_is_the_posterior_mean():
    last = gittins_indices(7)[-1]
    wins = np.arange(7)
    np.testing.assert_allclose(last[state_number(6, wins)], (wins + 1) / 8, atol=1e-5)


def test_gittins_of_a_fresh_arm_with_two_pulls_left():
    # Pull once; go on only after a win: (1/2 + 1/2 * 2/3) / (1 + 1/2) = 5/9.
    np.testing.assert_allclose(gittins_indices(2, 1001)[0], [5 / 9], atol=1e-5)


def test_gittins_against_every_stopping_rule():
    indices = gittins_indices(8)
    for step, pulls_left in ((0, 8), (3, 5), (5, 3)):
        for pulls in range(step + 1):
            for wins in range(pulls + 1):
                by_hand = index_by_hand(wins, pulls - wins, pulls_left)
                assert indices[step][state_number(pulls, wins)] == pytest.approx(by_hand, abs=1e-3)


def test_gittins_grows_with_the_horizon_and_shrinks_to_the_mean_with_evidence():
    fresh = [gittins_indices(n)[0][0] for n in (1, 2, 5, 20, 60)]
    assert np.all(np.diff(fresh) > 0.01)
    index = gittins_indices(60)[40]  # 20 pulls left
    bonus = [index[state_number(2 * w, w)] - 0.5 for w in (0, 1, 4, 20)]
    assert np.all(np.diff(bonus) < 0) and bonus[-1] > 0
