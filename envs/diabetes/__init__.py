"""Type-1 diabetes: 30 virtual patients with an insulin pump and a glucose sensor.

This is research software on a re-implemented simulator; nothing that it shows is medical advice.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from envs.diabetes.meals import Meals
from envs.diabetes.patients import between, check_patients, choose, read_patients
from envs.diabetes.physiology import ABSORPTION, MINUTES
from envs.diabetes.sensor import HIGHEST, LOWEST
from envs.diabetes.simulation import LARGEST_RATE, Simulation
from envs.keyed import child, keys
from envs.parameters import EnvError, check_sizes, shown
from envs.protocols import Draws, Parameters
from envs.task_env import SeparateTaskVectorEnv, SingleTaskEnv

DAY_STEPS, HISTORY = 288, 12  # steps of five minutes: of a day, and seen
LARGEST_DOSE, STEEPNESS = 5.0, 4.0  # of the exponential mapping: U/min and its exponent
FAILS_LOW, FAILS_HIGH, FAILURE = 40.0, 600.0, -15.0  # readings that end an episode, mg/dl; reward of the low
FILTER = (110.0, 130.0)  # the last reading before a "normal" start, mg/dl
ANNOUNCED, GRAMS_SCALE = 15, 120.0  # minutes ahead; grams that an observation shows as 1
TRIES, LARGEST_TRIAL = 20_000, 1024  # of starts: at most, and side by side
RELATIVE_DOSES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # basal rates
ABSOLUTE_DOSES = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)  # U/min
DOSE_KINDS, STARTS = ("exponential", "relative", "rate"), ("any", "normal", "clinic")
OBSERVATIONS, REWARDS = ("history", "reading", "pump"), ("reference", "risk")
ON_BOARD = np.array([45.0, 120.0, 300.0])  # minutes after which a pump counts a dose as 1/e, three ways
LEAST_ON_BOARD = 0.05  # U; less is shown as this
EDGES = np.array([[54.0], [70.0], [180.0], [250.0]])  # of the bands that are reported, mg/dl
NOTE = "Research software on a re-implemented simulator; nothing here is medical advice."


def risk(glucose: np.ndarray) -> np.ndarray:
    """Kovatchev's risk index of glucose in mg/dl: 0 at 112.5, 99.95 at 600."""
    return 10 * np.square(1.509 * (np.log(glucose) ** 1.084 - 5.381))


RISK_SCALE = float(risk(np.array(HIGHEST)))


class Diabetes:
    """Type-1 diabetes patients who are given insulin every five minutes (UVA/Padova model of 2008).

    A task is a patient: parameters {name: [n]} of `envs.diabetes.patients`, "group" being 0 adolescent,
    1 adult, 2 child. `sample` draws new patients between those `around` (all 30, an age group, or names);
    `members` gives the 30 themselves. An episode begins after an hour at the patient's own basal rate from
    23:00 to midnight, is `terminated` where a reading is at most 40 or at least 600 mg/dl, and `truncated`
    after `max_episode_len` steps. The protocol, with its usual values here, is RL4T1D's.

    `absorption`: "published" (simglucose 0.2.2, on which published results rest) or "corrected" (since
    0.2.3); they are different simulators (`Physiology`).
    `meals`: "random", "fixed", or pairs of hour and grams (`Meals`).
    `dose`: an action a in -1..1 is 5 exp(4 (a - 1)) U/min ("exponential"), exp(4 a) times the patient's own
    basal rate ("relative"), or an action is the rate itself, 0 to 30 U/min ("rate"). `discrete=True`: actions
    choose among `doses`, in U/min, or basal rates where `dose` is "relative".
    `observation`: "history" is [24], the last 12 pairs of reading and dose, oldest first, scaled to -1..1
    from 39..600 mg/dl and 0..5 U/min; "pump" [27] adds the logarithm of insulin on board in U, with three
    time constants (`ON_BOARD`), as pumps reckon it from the doses that they gave; "reading" is the last
    reading [1]. `see_calibration=False` hides the doses before midnight, which show the basal rate.
    `announce=True` adds the grams / 120 of a meal that begins in 15 minutes.
    `reward`: "reference" is 1 - risk(reading) / risk(600), -15 at a reading of 40 or less, 0 at 600; "risk"
    is -risk(reading) / risk(600), and an early end costs 1 for each step that it saves.
    `start`: "any"; "normal" tries again until the last reading of the hour is in 110..130 mg/dl, as RL4T1D
    does in tests; "clinic" begins at 23:00 without the hour, the first reading being in 110..130, as the
    published rows of basal-bolus do.
    `suspend_below`: a shield; no insulin while the last reading is below these mg/dl (0: never).
    """

    note, steps_per_day = NOTE, DAY_STEPS

    def __init__(
        self,
        absorption: str = "published",
        meals: str | Sequence[tuple[float, float]] = "random",
        dose: str = "exponential",
        discrete: bool = False,
        doses: Sequence[float] = (),
        observation: str = "history",
        see_calibration: bool = True,
        announce: bool = False,
        reward: str = "reference",
        start: str = "any",
        suspend_below: float = 0.0,
        around: str | Sequence[str] = "all",
        max_episode_len: int = DAY_STEPS,
    ):
        check_sizes("diabetes", max_episode_len=max_episode_len)
        for name, value, known in (
            ("absorption", absorption, ABSORPTION),
            ("dose", dose, DOSE_KINDS),
            ("observation", observation, OBSERVATIONS),
            ("reward", reward, REWARDS),
            ("start", start, STARTS),
        ):
            if value not in known:
                raise EnvError(f"diabetes: {name} is {value!r}; give one of {', '.join(known)}")
        if not 0 <= suspend_below <= HIGHEST:
            raise EnvError(f"diabetes: suspend_below is {suspend_below!r}; give 0 to 600 mg/dl")
        if doses and not discrete:
            raise EnvError("diabetes: doses are given without discrete=True; give both or neither")
        usual = RELATIVE_DOSES if dose == "relative" else ABSOLUTE_DOSES
        self.doses = np.array(doses or usual, np.float64)
        if not ((self.doses >= 0) & (self.doses <= LARGEST_RATE)).all():
            raise EnvError(f"diabetes: doses {list(doses)}: the pump gives 0 to {LARGEST_RATE:g} U/min")
        self.absorption, self.meals, self.dose, self.discrete = absorption, Meals(meals), dose, discrete
        self.observation, self.see_calibration, self.announce = observation, see_calibration, announce
        self.reward, self.start, self.suspend_below = reward, start, float(suspend_below)
        self.around, self.max_episode_len = around, int(max_episode_len)
        kind = "" if observation == "history" else f"_{observation}"
        kind = "_discrete" if discrete else "_relative" if dose == "relative" else kind
        self.name = f"diabetes{kind}"
        seen = {"history": 2 * HISTORY, "pump": 2 * HISTORY + len(ON_BOARD), "reading": 1}[observation]
        low, high = -np.ones(seen + announce, np.float32), np.ones(seen + announce, np.float32)
        if observation != "reading":
            high[1 : 2 * HISTORY : 2] = 2 * LARGEST_RATE / LARGEST_DOSE - 1
            low[2 * HISTORY : seen], high[2 * HISTORY : seen] = np.log(LEAST_ON_BOARD), np.inf
        if announce:
            high[-1] = np.inf
        self.observation_space = Box(low, high)
        least, most = (0.0, LARGEST_RATE) if dose == "rate" else (-1.0, 1.0)
        continuous = Box(least, most, (1,), np.float32)
        self.action_space: Space[Any] = Discrete(len(self.doses)) if discrete else continuous

    def members(self, chosen: str | Sequence[str] = "all") -> Parameters:
        """The 30 patients: "all", an age group ("adolescent", "adult", "child") or names ("adult#003")."""
        return choose(chosen)

    @property
    def test_agents(self) -> Parameters:
        """The 30 patients, whom logs that are made begin with."""
        return self.members()

    @property
    def test_names(self) -> list[str]:
        """What they are called."""
        return read_patients()[0]

    def sample(self, rng: Draws, n: int) -> Parameters:
        """n new patients between two of one age group of those `around`; see `between`."""
        return between(choose(self.around), rng, n)

    def check(self, parameters: Any) -> Parameters:
        """The parameters as arrays of the right types; raises `EnvError` for what cannot be."""
        return check_patients("diabetes", parameters)

    def make_vec(self, parameters: Any, rng: Draws | None = None) -> "DiabetesVectorEnv":
        """The n patients side by side."""
        return DiabetesVectorEnv(self, parameters=parameters, rng=rng)

    def rates(self, actions: np.ndarray, basal: np.ndarray) -> np.ndarray:
        """Doses [N] in U/min of actions, for patients with these basal rates [N]."""
        unit: Any = basal if self.dose == "relative" else 1.0
        if self.discrete:
            return self.doses[actions] * unit
        value = np.asarray(actions, np.float64)[:, 0]
        if self.dose == "rate":
            wrong = (value < 0) | (value > LARGEST_RATE)
            if wrong.any():
                rate = value[wrong.argmax()]
                raise EnvError(f"diabetes: a dose of {rate:g} U/min; the pump gives 0 to {LARGEST_RATE:g}")
            return value
        value = value.clip(-1, 1)
        if self.dose == "relative":
            return np.exp(STEEPNESS * value) * basal
        return LARGEST_DOSE * np.exp(STEEPNESS * (value - 1))

    def resting_actions(self, observation: np.ndarray) -> np.ndarray:
        """Actions [N, 1] that give the last dose of histories [N, 24 or more] again; at first, of rest."""
        if self.dose == "relative":
            return np.zeros((len(observation), 1), np.float32)
        shown = LARGEST_DOSE * (observation[:, 2 * HISTORY - 1] + 1.0) / 2
        return self.actions(np.maximum(shown, LARGEST_DOSE * np.exp(-2 * STEEPNESS)), np.ones(1))

    def actions(self, rates: np.ndarray, basal: np.ndarray) -> np.ndarray:
        """Actions [N, 1] in -1..1 that are nearest to doses [N] above 0 in U/min; see `rates`."""
        relative = self.dose == "relative"
        value = np.log(rates / (basal if relative else LARGEST_DOSE)) / STEEPNESS + (not relative)
        return value.clip(-1, 1)[:, None].astype(np.float32)


class DiabetesVectorEnv(SeparateTaskVectorEnv):
    """N patients side by side; see `Diabetes`.

    After a step `glucose`, `reading` (mg/dl), `given` (U/min) and `eaten` (g of meals that began) [N] tell
    what it led to, also where it ended an episode. `measures` are reported where one ends.
    """

    def __init__(
        self,
        family: Diabetes | None = None,
        num_envs: int | None = None,
        *,
        parameters: Any = None,
        rng: Draws | None = None,
        **settings: Any,
    ):
        family = family or Diabetes(**settings)
        self.reading = self.glucose = self.given = self.eaten = np.zeros(0)
        super().__init__(family, num_envs, family.max_episode_len, parameters, rng)

    def load(self, parameters: Parameters) -> None:
        """Keep the tasks' arrays."""
        family = self.family
        self.simulation = Simulation(parameters, family.absorption, family.meals)
        self.above = np.zeros((len(EDGES), self.num_envs), np.int32)  # readings of the episode so far
        self.total = np.zeros(self.num_envs)  # U/min given, summed over its steps
        self.basal = self.simulation.physiology.basal
        self.history = np.zeros((self.num_envs, HISTORY, 2), np.float32)
        self.on_board = np.zeros((self.num_envs, len(ON_BOARD)))  # U
        # The starts that come next, prepared for all at once where one is needed: a start takes 12 steps.
        self.coming = Simulation(parameters, family.absorption, family.meals)
        self.coming_history = self.history.copy()

    def start(self) -> np.ndarray:
        """Begin an episode in every task; the first observations `[N, ...]`."""
        self.key = keys(self._draws().random(self.num_envs, dtype=np.float64))
        self.episode = np.zeros(self.num_envs, np.int64)
        self.ready = np.zeros(self.num_envs, bool)
        return super().start()

    def begin(self, tasks: np.ndarray) -> np.ndarray:
        """Begin an episode in the tasks `[N]` bool; all observations `[N, ...]`."""
        if not self.ready[tasks].all():
            self.prepare(np.flatnonzero(~self.ready))
        rows = np.flatnonzero(tasks)
        self.simulation.put(rows, self.coming, rows)
        self.history[rows], self.ready[rows] = self.coming_history[rows], False
        self.above[:, rows], self.total[rows] = 0, 0.0
        self.on_board[rows] = self.basal[rows, None] * ON_BOARD if self.family.see_calibration else 0.0
        return self.observe()

    def prepare(self, pending: np.ndarray) -> None:
        """Make the next start of the tasks `pending`; raises `EnvError` where none is accepted."""
        self.episode[pending] += 1
        self.ready[pending] = True
        key, tried = child(self.key, self.episode), 0
        low, high = FILTER if self.family.start != "any" else (-np.inf, np.inf)
        while pending.size:
            times = max(1, min(64, LARGEST_TRIAL // pending.size)) if tried else 1
            rows = np.tile(pending, times)
            tries = tried + np.arange(times).repeat(pending.size)
            trial, history = self.try_starts(rows, child(key[rows], tries))
            good = ((trial.reading >= low) & (trial.reading <= high)).reshape(times, -1)
            found = good.any(0)
            first = (good.argmax(0) * pending.size + np.arange(pending.size))[found]
            self.coming.put(pending[found], trial, first)
            self.coming_history[pending[found]] = history[first]
            pending, tried = pending[~found], tried + times
            if pending.size and tried >= TRIES:
                task = shown({name: values[pending[0]] for name, values in (self.parameters or {}).items()})
                text = f"none of {tried} starts has a reading in 110..130 mg/dl"
                raise EnvError(f'diabetes: {text}; choose start="any"; of the task {task}')

    def try_starts(self, rows: np.ndarray, key: np.ndarray) -> tuple[Simulation, np.ndarray]:
        """The tasks `rows` at the start of days with these keys, and their histories [n, 12, 2]."""
        family, known = self.family, self.parameters or {}
        chosen = {name: values[rows] for name, values in known.items()}
        trial = Simulation(chosen, family.absorption, family.meals)
        trial.begin(key)
        history, basal = np.zeros((len(rows), HISTORY, 2), np.float32), self.basal[rows]
        history[:, -1] = scaled(trial.reading, np.zeros(len(rows)))
        if family.start != "clinic":
            for step in range(HISTORY):
                trial.step(basal)
                history[:, step] = scaled(trial.reading, basal if family.see_calibration else 0 * basal)
        return trial, history

    def observe(self) -> np.ndarray:
        """Observations `[N, D]` float32."""
        family, shown = self.family, self.history.reshape(self.num_envs, -1)
        if family.observation == "reading":
            shown = shown[:, -2:-1]
        if family.observation == "pump":
            board = np.log(np.maximum(self.on_board, LEAST_ON_BOARD)).astype(np.float32)
            shown = np.concatenate([shown, board], axis=1)
        if not family.announce:
            return shown.copy()
        grams = self.simulation.ahead(ANNOUNCED)[:, None] / GRAMS_SCALE
        return np.concatenate([shown, grams.astype(np.float32)], axis=1)

    def advance(self, actions: np.ndarray, rng: Draws) -> tuple[np.ndarray, ...]:
        """Observations, rewards and where a failure ends the episode."""
        family, simulation = self.family, self.simulation
        # Nothing is drawn: all that follows comes from the keys, whenever episodes end.
        dose = family.rates(actions, self.basal)
        if family.suspend_below:
            dose = np.where(simulation.reading < family.suspend_below, 0.0, dose)
        self.given = simulation.step(dose)
        self.glucose, self.eaten = simulation.glucose.copy(), simulation.eaten.copy()
        self.reading = reading = simulation.reading.copy()
        self.history[:, :-1] = self.history[:, 1:]
        self.history[:, -1] = scaled(reading, self.given)
        if family.observation == "pump":
            self.on_board = self.on_board * np.exp(-MINUTES / ON_BOARD) + MINUTES * self.given[:, None]
        self.above += reading > EDGES
        self.total += self.given
        low, high = reading <= FAILS_LOW, reading >= FAILS_HIGH
        rewards = -risk(reading) / RISK_SCALE
        if family.reward == "risk":
            rewards = np.where(low | high, self.elapsed - 1.0 - self.max_episode_len, rewards)
        else:
            rewards = np.where(low, FAILURE, np.where(high, 0.0, 1 + rewards))
        return self.observe(), rewards.astype(np.float32), low | high

    def measures(self) -> dict[str, np.ndarray]:
        """Of each episode so far [N]: shares of its readings by mg/dl, as the reference counts, and insulin.

        A band includes its upper edge. An episode that is shorter than `max_episode_len` has failed, and
        what it lacks of the whole counts as out of range there.
        """
        over_54, over_70, over_180, over_250 = self.above
        steps, in_range = self.elapsed, over_70 - over_180
        return {
            "in range (%)": 100 * in_range / steps,
            "54-70 mg/dl (%)": 100 * (over_54 - over_70) / steps,
            "to 54 mg/dl (%)": 100 * (steps - over_54) / steps,
            "180-250 mg/dl (%)": 100 * (over_180 - over_250) / steps,
            "over 250 mg/dl (%)": 100 * over_250 / steps,
            "failed (%)": 100.0 * (steps < self.max_episode_len),
            "in range, whole day (%)": 100 * in_range / self.max_episode_len,
            "insulin (U)": MINUTES * self.total,
        }


def scaled(reading: np.ndarray, dose: np.ndarray) -> np.ndarray:
    """Readings and doses [N] as observations show them, [N, 2]."""
    shown = [2 * (reading - LOWEST) / (HIGHEST - LOWEST) - 1, 2 * dose / LARGEST_DOSE - 1]
    return np.stack(shown, axis=-1).astype(np.float32)


class DiabetesEnv(SingleTaskEnv):
    """One patient; see `Diabetes`. `parameters` with n = 1 fixes the patient."""

    def __init__(self, *, parameters: Any = None, **settings: Any):
        super().__init__(DiabetesVectorEnv(parameters=parameters, **settings))
