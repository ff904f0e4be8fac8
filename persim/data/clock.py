"""When the rows of a log were: moments as seconds, the step found out, and which rows follow one another."""

import datetime
import re

import numpy as np

EPOCH = datetime.datetime(1970, 1, 1)
TOLERANCE = 0.25  # of a step: clocks of devices are late now and then
# Epochs since 1970 in these units lie between 1973 and 5138; numbers of steps seldom do.
EPOCHS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
UNITS = (("day", 86400), ("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3))
FAR = 2.0**31  # steps of the longest gap, as its rows are numbered


class Moments(dict):
    """Seconds since 1970 of each text in ISO 8601, with or without a zone; NaN for an empty one.

    A text that is none raises ValueError, as does one with a zone after one without, or the reverse.
    """

    zoned: bool | None = None

    def __missing__(self, text: str) -> float:
        plain = text.strip()
        if not plain or plain.upper() in ("NA", "N/A", "NULL", "NONE", "NAN", "NAT"):
            return float("nan")
        plain = re.sub(r"\s+(?=[+-]\d\d:?\d\d$)", "", re.sub(r"\s*(UTC|GMT)$", "Z", plain))
        when = datetime.datetime.fromisoformat(plain)
        if self.zoned is not None and self.zoned != (when.tzinfo is not None):
            raise ValueError("some times have a zone, others have none; give it in all rows or in none")
        self.zoned = when.tzinfo is not None
        if self.zoned:
            when = when.astimezone(datetime.UTC).replace(tzinfo=None)
        self[text] = (when - EPOCH).total_seconds()
        return self[text]


def epoch(time: np.ndarray) -> str:
    """The unit of times [R] that are all epochs; empty if they are none."""
    if not len(time):
        return ""
    low, high = np.min(time), np.max(time)
    return next((unit for unit, scale in EPOCHS.items() if 1e8 * scale <= low and high < 1e11 * scale), "")


def usual_step(difference: np.ndarray) -> float:
    """The lower median of positive differences [D]; 1 of none."""
    middle = (len(difference) - 1) // 2
    return float(np.partition(difference, middle)[middle]) if len(difference) else 1.0


def is_step(difference: np.ndarray, step: float) -> np.ndarray:
    """Whether differences [D] of times are one step each, give or take `TOLERANCE`."""
    return np.abs(difference / step - 1) <= TOLERANCE


def numbered(agent: np.ndarray, first: np.ndarray, steps: np.ndarray, follows: np.ndarray) -> np.ndarray:
    """Numbers [R] int64 of the steps of ordered rows: those that follow one another differ by 1.

    `agent` [R]; `first` [R] is a row's number where it is its agent's first; `steps` [R - 1] tells how many
    steps lie between rows, `follows` [R - 1] which pairs are one apart; all others differ by 2 or more.
    """
    begins = np.concatenate([[True], agent[1:] != agent[:-1]])
    apart = np.where(follows, 1, np.clip(np.rint(steps), 2, FAR))
    count = np.concatenate([[0], np.cumsum(np.where(begins[1:], 0, apart))])
    own = np.flatnonzero(begins)[np.cumsum(begins) - 1]  # the first row of each row's agent
    return (count - count[own] + first[own]).astype(np.int64)


def spelled(step: float, unit: str) -> str:
    """A step's length for people, e.g. 5 min."""
    if unit != "s":
        return f"{step:g}"
    name, size = next((u for u in UNITS if step >= 0.999 * u[1]), UNITS[-1])
    return f"{step / size:.4g} {name}"
