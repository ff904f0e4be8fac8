"""Finite-horizon Gittins indices of a Bernoulli arm with a Beta(1, 1) prior."""

from functools import lru_cache
from typing import Any

import numpy as np

BLOCKS = 4  # the triangle of states is covered by this many rectangles, which saves 3/8 of the work


@lru_cache(maxsize=4)
def gittins_indices(horizon: int, num_prices: int = 65) -> list[np.ndarray]:
    """Index of every state that an arm can be in at every step, for `horizon` pulls in all; cached.

    Returns a list over steps t, each [(t + 1) (t + 2) / 2] float32 indexed by `state_number`. With m pulls
    left, an arm's index is the price per pull at which pulling it at least once, and stopping at the best
    moment, is worth exactly nothing (Gittins, Glazebrook and Weber 2011, "Multi-armed Bandit Allocation
    Indices"). Backward induction over m is exact at each of `num_prices` prices in [0, 1]; the one
    approximation is that the root between two prices is interpolated linearly (error of an index below .001
    at horizon 10, .011 at 100; no loss of reward that 4,000 bandits could show).
    """
    prices = np.linspace(0, 1, num_prices, dtype=np.float32)
    pulls, wins = np.arange(horizon, dtype=np.float32)[:, None], np.arange(horizon, dtype=np.float32)
    win_probability = np.minimum((wins + 1) / (pulls + 2), 1)  # [pulls, wins]; no meaning where wins > pulls
    value = np.zeros((num_prices, horizon + 1, horizon + 1), np.float32)  # of the next stage, at each price
    rows, columns = np.tril_indices(horizon)  # in the order of state_number
    indices = []
    for num_states in range(horizon, 0, -1):  # pulls so far are below num_states; one more left at each turn
        index = np.zeros((num_states, num_states), np.float32)
        edges = np.linspace(0, num_states, min(BLOCKS, num_states) + 1).astype(int)
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            stages = value[:, low : high + 1, : high + 1]
            back_up(stages, win_probability[low:high, :high], prices, index[low:high, :high])
        count = num_states * (num_states + 1) // 2
        indices.append(index[rows[:count], columns[:count]])
    return indices[::-1]


def state_number(pulls: Any, wins: Any) -> Any:
    """Position of the state (pulls, wins) in a triangle stored row by row; arrays of int, any shape."""
    return pulls * (pulls + 1) // 2 + wins


def back_up(value: np.ndarray, win_probability: np.ndarray, prices: np.ndarray, index: np.ndarray) -> None:
    """One step of the induction, in place: `value` [prices, J + 1, S + 1] one pull on, `index` [J, S]."""
    previous = None  # worth of pulling on, at the price before
    for price, stage in zip(prices, value, strict=True):
        worth = stage[1:, 1:] - stage[1:, :-1]
        worth += 1
        worth *= win_probability
        worth += stage[1:, :-1]
        worth -= price
        # A row needs the row below it as it was one pull on: hence `worth` first, and blocks in rising order.
        np.maximum(worth, 0, out=stage[:-1, :-1])
        if previous is not None:  # worth falls in the price: the share of this interval below its root
            previous /= previous - worth
            index += np.clip(previous, 0, 1)
        previous = worth
    index /= len(prices) - 1
