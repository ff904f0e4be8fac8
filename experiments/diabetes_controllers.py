"""Reference controllers of insulin, as actors: what a clinic does, and feedback with four gains.

They act in `envs.diabetes.Diabetes(dose="rate")`, in U/min. This is research software on a re-implemented
simulator; nothing here is medical advice.
"""

from typing import Any, Protocol

import numpy as np

from envs.diabetes import GRAMS_SCALE, HISTORY, LARGEST_RATE
from envs.diabetes.physiology import MINUTES, basal_rate
from envs.diabetes.sensor import HIGHEST, LOWEST
from envs.protocols import Parameters

TARGET, CORRECT_ABOVE, REST_STEPS = 140.0, 150.0, 36  # mg/dl, mg/dl, steps after a meal without correction
DECAY = np.exp(-MINUTES / 60)  # of own insulin in a step
GAINS = ("basal", "per_mg_dl", "per_slope", "per_own_insulin")


class Controller(Protocol):
    """An actor for N patients; `settings` are those of the family in which it acts."""

    settings: dict[str, Any]

    def reset(self, num: int) -> None:
        """Begin a day in each of `num` rows."""
        ...

    def act(self, observation: Any, reward: Any, done: Any, running: Any = None) -> np.ndarray:
        """Doses `[N, 1]` in U/min."""
        ...


def readings(observation: np.ndarray) -> np.ndarray:
    """The last 12 readings `[N, 12]` in mg/dl of observations with history."""
    shown = observation[:, : 2 * HISTORY : 2].astype(np.float64)
    return LOWEST + (shown + 1) / 2 * (HIGHEST - LOWEST)


class ConstantRate:
    """A constant rate [N] in U/min for each patient."""

    settings: dict[str, Any] = {"dose": "rate"}

    def __init__(self, rate: np.ndarray):
        self.rate = rate

    def reset(self, num: int) -> None:
        """Nothing to begin; ValueError unless there is a rate for each row."""
        if num != len(self.rate):
            raise ValueError(f"rates of {len(self.rate)} patients for {num}")

    def act(self, observation: Any, reward: Any, done: Any, running: Any = None) -> np.ndarray:
        """The rates `[N, 1]`."""
        return self.rate[:, None]


def own_basal(patients: Parameters) -> ConstantRate:
    """Each patient's own basal rate, under which they rest."""
    return ConstantRate(basal_rate(patients))


class BasalBolus:
    """A basal rate, and a bolus 15 minutes before each meal, which is announced.

    As RL4T1D's clinical treatment: basal 0.48 TDI a day, bolus grams / (500 / TDI), and a correction
    (reading - 140) / (1800 / TDI) where the reading is above 150 and no meal was announced in three hours.
    `misjudged=True`: grams are those that people estimate, by equation 7 of Roversi et al. 2020 (doi
    10.1089/dia.2019.0502) as RL4T1D's `carb_counting.py` has it.
    """

    settings: dict[str, Any] = {"dose": "rate", "announce": True}

    def __init__(self, patients: Parameters, misjudged: bool = False, first_minute: int = 0):
        self.tdi, self.misjudged, self.first_minute = patients["TDI"], misjudged, first_minute

    def reset(self, num: int) -> None:
        """Begin the days; `first_minute` after midnight."""
        self.minute = np.full(num, self.first_minute)
        self.since_meal = np.full(num, REST_STEPS)

    def act(self, observation: Any, reward: Any, done: Any, running: Any = None) -> np.ndarray:
        """Doses `[N, 1]`."""
        if done is not None:
            self.minute[done], self.since_meal[done] = self.first_minute, REST_STEPS
        grams = observation[:, -1].astype(np.float64) * GRAMS_SCALE
        if self.misjudged:
            grams = np.where(grams > 0, estimated(grams, (self.minute - MINUTES) // 60 % 24), 0.0)
        reading = readings(observation)[:, -1]
        correct = (reading > CORRECT_ABOVE) & (self.since_meal >= REST_STEPS)
        bolus = grams * self.tdi / 500 + np.where(correct, (reading - TARGET) * self.tdi / 1800, 0.0)
        meal = grams > 0
        self.since_meal = np.where(meal, 0, self.since_meal) + 1
        self.minute = self.minute + MINUTES
        return (0.48 * self.tdi / 1440 + np.where(meal, bolus / MINUTES, 0.0)).clip(0, LARGEST_RATE)[:, None]


def estimated(grams: np.ndarray, hour: np.ndarray) -> np.ndarray:
    """What people take `grams` [N] to be, at these hours of the day."""
    lunch, dinner = (hour >= 12) & (hour <= 15), (hour >= 18) & (hour <= 21)
    snack = ~(lunch | dinner | ((hour >= 6) & (hour <= 9)))
    error = 3.56 - 0.07 * grams - 0.0008 * grams**2 + 6.77 * lunch + 18.01 * dinner - 0.49 * snack
    return (grams + error - grams * (0.08 * lunch + 0.25 * dinner + 0.06 * snack)).clip(0)


class Feedback:
    """Feedback without meal announcements: unit * (b + p (reading - 120) + d slope - f own insulin).

    Never below 0. `gains` [N, 4] are b, p per mg/dl, d per mg/dl/min of the slope over 15 minutes, and f; own
    insulin is what was given above b, in minutes of a unit, and decays within an hour. `unit` [N] is 1 U/min
    for controllers in absolute doses, or each patient's own basal rate.
    """

    settings: dict[str, Any] = {"dose": "rate"}

    def __init__(self, gains: np.ndarray, unit: np.ndarray):
        self.gains, self.unit = gains, unit

    def reset(self, num: int) -> None:
        """Begin without insulin of one's own; ValueError unless there are gains for each row."""
        if num != len(self.gains):
            raise ValueError(f"gains of {len(self.gains)} patients for {num}")
        self.own = np.zeros(num)

    def act(self, observation: Any, reward: Any, done: Any, running: Any = None) -> np.ndarray:
        """Doses `[N, 1]`."""
        if done is not None:
            self.own[done] = 0
        base, proportional, slope, own = self.gains.T
        seen = observation[:, [-8, -2]].astype(np.float64)  # the reading of 15 minutes ago, and the last
        before, now = (LOWEST + (seen + 1) / 2 * (HIGHEST - LOWEST)).T
        level = base + proportional * (now - 120) + slope * (now - before) / 15 - own * self.own
        level = np.minimum(level.clip(0), LARGEST_RATE / self.unit)
        self.own = DECAY * self.own + (level - base) * MINUTES
        return (level * self.unit)[:, None]
