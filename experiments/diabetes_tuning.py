"""Choose the gains of feedback controllers for all patients, for k groups, for age groups and for each:

    python -m experiments.diabetes_tuning --out results/diabetes/gains.json

Candidates are drawn once; each plays days of random meals with each of the 30 patients, the best of them play
more, and sets are chosen by the mean return of each patient's best in the set. Doses are absolute (one unit
for everybody) or relative to the patient's own basal rate. This is research software on a re-implemented
simulator; nothing here is medical advice.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.rollout import play
from common.runs.files import write_atomic
from envs.diabetes import Diabetes
from envs.diabetes.patients import GROUPS
from envs.diabetes.physiology import basal_rate
from envs.protocols import Parameters
from experiments.diabetes_controllers import ConstantRate, Feedback
from mpi_utils.comm import Comm, guard

NUM_POLICIES = (2, 3, 5, 10)
LOWEST_GAINS, HIGHEST_GAINS = (0.1, 1e-3, 0.03, 3e-3), (2.0, 0.15, 10.0, 0.3)  # in units, per mg/dl, ...
USUAL_RATE = (0.004, 0.03)  # U/min: the basal rates of the 30 patients lie in between
RATES = np.geomspace(0.002, 0.05, 24)  # constant ones, U/min
BATCH = 100  # candidates that play side by side
PER_PATIENT, OVERALL = 3, 20  # candidates that play more: each patient's best, and the best for all


def candidates(rng: np.random.Generator, n: int, unit: str) -> np.ndarray:
    """Gains [n, 4], log-uniform; a third has no slope, a third no memory of own insulin."""
    low, high = np.log(LOWEST_GAINS), np.log(HIGHEST_GAINS)
    gains = np.exp(low + (high - low) * rng.random((n, 4)))
    gains[:, 2:] *= rng.random((n, 2)) > 1 / 3
    if unit == "absolute":
        lowest, highest = USUAL_RATE
        gains[:, :3] *= lowest * (highest / lowest) ** rng.random((n, 1))
    return gains


def returns(absorption: str, unit: str, gains: np.ndarray, num_days: int, seed: int) -> np.ndarray:
    """Mean daily returns [n, C] of candidates [C, 4] with each patient, over the same days."""
    family = Diabetes(absorption, **Feedback.settings)
    patients = family.members()
    found = []
    for first in range(0, len(gains), BATCH):
        some = gains[first : first + BATCH]
        rows = {name: np.tile(values, len(some)) for name, values in patients.items()}
        own = basal_rate(rows) if unit == "relative" else np.ones(len(rows["BW"]))
        actor = Feedback(some.repeat(len(patients["BW"]), axis=0), own)
        found.append(mean_returns(family, rows, actor, len(some), num_days, seed))
    return np.concatenate(found).T


def mean_returns(
    family: Diabetes, rows: Parameters, actor: Any, times: int, num_days: int, seed: int
) -> np.ndarray:
    """Mean daily returns [times, n], where row c * n + i is patient i; every c gets the same days."""
    total = np.zeros((times, len(rows["BW"]) // times))
    for day in range(num_days):
        rng: Any = SameDays(np.random.default_rng([seed, day]), times)
        env = family.make_vec(rows, rng)
        total += play(env, actor, family.max_episode_len).returns.reshape(total.shape)
    return total / num_days


class SameDays:
    """A generator whose draws for times * n rows repeat those of n rows."""

    def __init__(self, rng: np.random.Generator, times: int):
        self.rng, self.times = rng, times

    def random(self, size: int, dtype: Any = np.float64) -> np.ndarray:
        """Uniform draws [times * n]."""
        return np.tile(self.rng.random(size // self.times, dtype), self.times)


def best_set(value: np.ndarray, k: int) -> np.ndarray:
    """k columns of `value` [n, C] with the largest mean of each row's best: greedy, then exchanges."""
    chosen: list[int] = []
    best = np.full(len(value), -np.inf)
    for _ in range(k):
        chosen.append(int(np.maximum(best[:, None], value).mean(0).argmax()))
        best = value[:, chosen].max(1)
    improved = True
    while improved:
        improved = False
        for place in range(k):
            rest = value[:, chosen[:place] + chosen[place + 1 :]].max(1, initial=-np.inf)
            means = np.maximum(rest[:, None], value).mean(0)
            if means.max() > means[chosen[place]] + 1e-9:
                chosen[place], improved = int(means.argmax()), True
    return np.array(chosen)


def sets_of(value: np.ndarray, gains: np.ndarray, group: np.ndarray) -> dict[str, Any]:
    """The chosen sets: gains [k, 4] of each and which of them each patient [n] has."""
    picked = {"all patients": np.array([value.mean(0).argmax()])}
    picked |= {f"{k} groups": best_set(value, k) for k in NUM_POLICIES}
    chosen = {name: (columns, value[:, columns].argmax(1)) for name, columns in picked.items()}
    by_age = np.array([value[group == number].mean(0).argmax() for number in range(len(GROUPS))])
    chosen["age group"] = (by_age, group)
    chosen["each patient"] = (value.argmax(1), np.arange(len(value)))
    return {
        name: {"gains": np.round(gains[columns], 8).tolist(), "policy_of": policy_of.tolist()}
        for name, (columns, policy_of) in chosen.items()
    }


def tune(settings: argparse.Namespace) -> dict[str, Any]:
    """All sets for one version of the simulator."""
    group = Diabetes().members()["group"]
    feedback = {}
    for number, unit in enumerate(("absolute", "relative")):
        gains = candidates(np.random.default_rng([settings.seed, number]), settings.candidates, unit)
        value = returns(settings.absorption, unit, gains, settings.days, settings.seed)
        order = np.argsort(-value, axis=1)[:, :PER_PATIENT].ravel()
        overall = [np.argsort(-value.mean(0))[:OVERALL]]
        overall += [np.argsort(-value[group == g].mean(0))[: OVERALL // 2] for g in range(len(GROUPS))]
        overall += [best_set(value, k) for k in NUM_POLICIES]
        short = np.unique(np.concatenate([order, *overall]))
        more = settings.days * settings.more
        again = returns(settings.absorption, unit, gains[short], more, settings.seed + 1)
        feedback[unit] = sets_of(again, gains[short], group)
        print(f"{unit}: {len(gains)} candidates, {len(short)} on {more} days more", flush=True)
    family = Diabetes(settings.absorption, **ConstantRate.settings)
    rows = {name: np.tile(values, len(RATES)) for name, values in family.members().items()}
    actor = ConstantRate(RATES.repeat(len(group)))
    rates = mean_returns(family, rows, actor, len(RATES), settings.days, settings.seed).mean(1)
    return {"constant": round(float(RATES[rates.argmax()]), 6), "feedback": feedback}


def main(comm: Comm) -> None:
    """Tune and write; what OUT holds of another version of the simulator stays."""
    parser = argparse.ArgumentParser("python -m experiments.diabetes_tuning")
    parser.add_argument("--out", required=True, help="the file to write, JSON")
    parser.add_argument("--absorption", choices=["published", "corrected"], default="published")
    parser.add_argument("--candidates", type=int, default=800, help="gains to try (default: 800)")
    parser.add_argument("--days", type=int, default=3, help="days of each (default: 3)")
    parser.add_argument("--more", type=int, default=6, help="times as many for the best (default: 6)")
    parser.add_argument("--seed", type=int, default=0, help="draws candidates and days (default: 0)")
    settings = parser.parse_args()
    with comm.agree():
        if min(settings.candidates, settings.days, settings.more) < 1 or settings.seed < 0:
            raise UserError("give --candidates, --days and --more of at least 1 and --seed of at least 0")
        if not comm.is_root:
            return
        out = Path(settings.out)
        found = json.loads(out.read_text()) if out.exists() else {}
        out.parent.mkdir(parents=True, exist_ok=True)
        found[settings.absorption] = tune(settings)
        write_atomic(out, (json.dumps(found, indent=1) + "\n").encode())


if __name__ == "__main__":
    guard(main)
