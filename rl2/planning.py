"""Finite-horizon planning in N tabular MDPs at once.

Arrays carry the instances last, [..., N], so that every operation runs along them.
"""

from collections.abc import Callable

import numpy as np

Expectation = Callable[[np.ndarray], np.ndarray]


def value_iteration(reward: np.ndarray, expect: Expectation, horizon: int) -> np.ndarray:
    """Q-values [horizon, S, A, N] by backward induction.

    `reward` is [S, A, N]; `expect` maps values of the next state [S, N] to their expectation [S, A, N].
    """
    q_values = np.empty((horizon, *reward.shape), np.float32)
    q_values[-1] = reward
    for step in range(horizon - 2, -1, -1):
        np.add(reward, expect(q_values[step + 1].max(axis=1)), out=q_values[step])
    return q_values


def expectation(transition: np.ndarray) -> Expectation:
    """The `expect` of known dynamics, transition [S, A, S', N]."""
    return lambda value: np.einsum("satn,tn->san", transition, value)


def optimistic_expectation(transition: np.ndarray, radius: np.ndarray) -> Expectation:
    """The `expect` of the most favourable dynamics within L1 distance `radius` [S, A, N] of `transition`.

    Jaksch, Ortner and Auer 2010, figure 2.
    """

    def expect(value: np.ndarray) -> np.ndarray:
        order = value.argsort(axis=0)  # worst next state first
        ranked = np.take_along_axis(value, order, axis=0)
        probability = np.take_along_axis(transition, order[None, None], axis=2)
        moved = np.minimum(radius / 2, 1 - probability[:, :, -1])  # from the worst states to the best
        result = np.einsum("satn,tn->san", probability, ranked) + moved * ranked[-1]
        for state in range(len(ranked) - 1):
            taken = np.minimum(moved, probability[:, :, state])
            result -= taken * ranked[state]
            moved -= taken
        return result

    return expect
