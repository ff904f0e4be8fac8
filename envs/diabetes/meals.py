"""What is eaten in a day."""

import math
import numbers
from collections.abc import Sequence

import numpy as np

from envs.keyed import uniform
from envs.parameters import EnvError

DAY = 1440  # minutes
FIXED = ((8.0, 40.0), (13.0, 80.0), (20.0, 60.0))  # hour and grams
HOURS, GRAMS, SPREAD = (8, 13, 20), (45.0, 85.0, 80.0), (15.0, 15.0, 30.0)  # of random meals
PROBABILITY, LATEST = 0.95, 60  # of each; minutes from its hour
MOST_GRAMS = 1000.0


class Meals:
    """Meals of days: "random" or "fixed" as RL4T1D trains and tests, or (hour, grams) of one's own, daily.

    Random: at 8, 13 and 20 h, each with probability 0.95, at normal times (deviation 60 minutes, cut off an
    hour before and after), uniform 45 +- 15, 85 +- 15 and 80 +- 30 g. Raises `EnvError` for what is no meal.
    """

    def __init__(self, meals: str | Sequence[tuple[float, float]]):
        self.random = meals == "random"
        if isinstance(meals, str) and meals not in ("random", "fixed"):
            raise EnvError(f"diabetes: meals is {meals!r}; give random, fixed, or pairs of hour and grams")
        pairs = list(FIXED if isinstance(meals, str) else meals)
        for pair in pairs:
            numeric = [isinstance(x, numbers.Real) and math.isfinite(x) for x in np.atleast_1d(pair)]
            if numeric != [True, True]:
                raise EnvError(f"diabetes: meal {pair!r} is no pair of hour and grams; give two numbers")
            hour, grams = pair
            if not 0 <= hour < 24:
                raise EnvError(f"diabetes: a meal at hour {hour}; give hours from 0 to below 24")
            if not 0 <= grams <= MOST_GRAMS:
                raise EnvError(f"diabetes: a meal of {grams} g; give grams from 0 to {MOST_GRAMS:g}")
        self.minute = np.array([round(60 * hour) for hour, _ in pairs], np.int64)[:, None]
        self.grams = np.array([grams for _, grams in pairs], np.float64)[:, None]
        edges = [math.erf((x - 0.5) / LATEST / math.sqrt(2)) for x in range(1 - LATEST, LATEST + 1)]
        ends = (math.erf(-1 / math.sqrt(2)), math.erf(1 / math.sqrt(2)))
        self.edges = (np.array(edges) - ends[0]) / (ends[1] - ends[0])  # chances up to each whole minute

    def of_day(self, key: np.ndarray, day: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Minutes after midnight, whole, and grams `[meals, n]` of each row's `day`; 0 g is no meal."""
        if not self.random:
            return tuple(np.repeat(x, len(key), axis=1) for x in (self.minute, self.grams))  # type: ignore[return-value]
        draws = uniform(key, 2**41 + 9 * day + np.arange(9)[:, None])
        minute = 60 * np.array(HOURS)[:, None] - LATEST + np.searchsorted(self.edges, draws[:3], side="right")
        grams = np.round(np.array(GRAMS)[:, None] + np.array(SPREAD)[:, None] * (2 * draws[3:6] - 1))
        return minute, np.where(draws[6:] < PROBABILITY, grams, 0.0)
