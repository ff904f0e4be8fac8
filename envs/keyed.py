"""Random numbers that follow from a key and a counter alone, for whole arrays of keys at once.

Episodes end at times of their own, and a start may be tried until it is accepted. So each task has one key,
drawn from the `rng` that all tasks share, and what happens in it does not depend on who else is there.
"""

from typing import Any

import numpy as np

# SplitMix64 (Steele, Lea & Flood 2014, https://doi.org/10.1145/2660193.2660195).
GOLDEN, FIRST, SECOND = (np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
SHIFTS = [np.uint64(shift) for shift in (30, 27, 31, 11)]


def keys(uniform: np.ndarray) -> np.ndarray:
    """Keys uint64 from float64 in [0, 1)."""
    return child((uniform * 2.0**53).astype(np.uint64), 0)


def child(key: np.ndarray, number: Any) -> np.ndarray:
    """Other keys, `number` telling apart those made from the same one; shapes broadcast."""
    mixed = key + (np.array(number, np.uint64, ndmin=1) + np.uint64(1)) * GOLDEN
    mixed = (mixed ^ (mixed >> SHIFTS[0])) * FIRST
    mixed = (mixed ^ (mixed >> SHIFTS[1])) * SECOND
    return mixed ^ (mixed >> SHIFTS[2])


def uniform(key: np.ndarray, counter: Any) -> np.ndarray:
    """Float64 in [0, 1); shapes broadcast."""
    return (child(key, counter) >> SHIFTS[3]) * 2.0**-53


def normal(key: np.ndarray, counter: Any) -> np.ndarray:
    """Float64, standard normal (Box & Muller); the counters are their own, apart from those of `uniform`."""
    pair = child(key, 2**40)
    radius = np.sqrt(-2 * np.log1p(-uniform(pair, 2 * np.asarray(counter))))
    return radius * np.cos(2 * np.pi * uniform(pair, 2 * np.asarray(counter) + 1))
