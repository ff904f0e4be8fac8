"""Days of N patients: clock, meals, pump and sensor around their physiology."""

import numpy as np

from envs.diabetes.meals import DAY, Meals
from envs.diabetes.physiology import MINUTES, PMOL_PER_UNIT, Physiology
from envs.diabetes.sensor import HIGHEST, KNOTS, LOWEST, READINGS, errors
from envs.keyed import normal
from envs.protocols import Parameters

FIRST_CLOCK = -60  # minutes after the first midnight: days start at 23:00
LARGEST_RATE, INCREMENT = 30.0, 0.05  # of the pump: U/min, pmol/min
START_VARIANCE = 0.1  # of glucose in plasma, tissue and under the skin, as a share of it


class Simulation:
    """N patients, each in a day of its own that follows from its key [N] uint64.

    After a step of five minutes `glucose` and `reading` [N] mg/dl are means of its minutes, and `eaten` [N]
    the grams of the meals that began in it. The sensor reads at the end of a step and is held till then, so
    `reading` is 0.8 of the reading before and 0.2 of the new one, as in simglucose.
    """

    COLUMNS = (  # arrays [..., N]
        *("key", "clock", "count", "noise", "error", "held"),
        *("glucose", "reading", "eaten", "meal_minute", "meal_grams"),
    )

    def __init__(self, parameters: Parameters, absorption: str, meals: Meals):
        self.physiology, self.meals = Physiology(parameters, absorption), meals
        n = len(parameters["BW"])
        self.key = np.zeros(n, np.uint64)
        self.clock, self.count = np.zeros((2, n), np.int64)  # minutes after midnight; readings so far
        self.noise, self.error = np.zeros(n), np.zeros((READINGS, n))
        self.held, self.glucose, self.reading, self.eaten = np.zeros((4, n))
        self.meal_minute = np.zeros((len(meals.minute), n), np.int64)  # today's
        self.meal_grams = np.zeros((len(meals.minute), n))

    def begin(self, key: np.ndarray) -> None:
        """Start all days at 23:00, glucose near rest, without meals till midnight."""
        body = self.physiology
        body.state[:] = body.rest
        for number, row in enumerate((3, 4, 12)):
            body.state[row] += np.sqrt(START_VARIANCE * body.rest[row]) * normal(key, 2**32 + number)
        for values in body.meal.values():
            values[:] = 0
        self.key, self.noise = key.copy(), normal(key, 0)
        self.clock[:], self.count[:], self.meal_grams[:] = FIRST_CLOCK, 0, 0
        for _ in range(2):  # simglucose reads twice before the first step
            self.sense()
        self.glucose, self.reading = body.glucose, self.held.copy()

    def sense(self) -> None:
        """Read the sensor."""
        place = self.count % READINGS
        due = np.flatnonzero(place == 0)
        if due.size:
            number = 1 + KNOTS * (self.count[due] // READINGS) + np.arange(KNOTS)[:, None]
            made = errors(self.noise[due], normal(self.key[due], number))
            self.error[:, due], self.noise[due] = made
        error = np.take_along_axis(self.error, place[None], axis=0)[0]
        self.held = np.clip(self.physiology.glucose + error, LOWEST, HIGHEST)
        self.count += 1

    def step(self, dose: np.ndarray) -> np.ndarray:
        """Go on for five minutes under doses [N] in U/min; what the pump gave."""
        body = self.physiology
        given = np.rint(dose * (PMOL_PER_UNIT / INCREMENT)) * (INCREMENT / PMOL_PER_UNIT)
        given = np.minimum(given, LARGEST_RATE)
        wait = self.meal_minute - self.clock % DAY
        due = np.where((wait >= 0) & (wait < MINUTES), self.meal_grams, 0.0)
        self.eaten = due.sum(0)
        some, before, total = self.eaten.any(), self.held, np.zeros(len(dose))
        for minute in range(MINUTES):
            body.minute(np.where(wait == minute, due, 0.0).sum(0) if some else None, given)
            total += body.glucose
        self.clock += MINUTES
        midnight = np.flatnonzero(self.clock % DAY == 0)
        if midnight.size:
            drawn = self.meals.of_day(self.key[midnight], self.clock[midnight] // DAY)
            self.meal_minute[:, midnight], self.meal_grams[:, midnight] = drawn
        self.sense()
        self.glucose = total / MINUTES
        self.reading = (before * (MINUTES - 1) + self.held) / MINUTES
        return given

    def ahead(self, minutes: int) -> np.ndarray:
        """Grams [N] of today's meals that begin in the step `minutes` (a multiple of five) from now."""
        wait = self.meal_minute // MINUTES * MINUTES - self.clock % DAY
        return np.where(wait == minutes, self.meal_grams, 0.0).sum(0)

    def put(self, index: np.ndarray, part: "Simulation", rows: np.ndarray) -> None:
        """Let the patients `index` go on from where `rows` of `part` are."""
        self.physiology.put(index, part.physiology, rows)
        for name in self.COLUMNS:
            getattr(self, name)[..., index] = getattr(part, name)[..., rows]
