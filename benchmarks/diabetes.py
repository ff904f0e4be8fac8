"""Control steps of five minutes per second of one processor, as one JSON line:  python -m benchmarks.diabetes

Whole environments of `envs.diabetes` (physiology, random meals, pump, sensor, history, reward) under their
own basal rates from midnight to 10:00, and the patient alone of simglucose 0.2.2, whose parameters are in a
pandas Series where pandas is installed, as in that package, and else in a namespace, which is much faster.
"""

import importlib
import json
import time
from typing import Any

import numpy as np
import torch

from benchmarks import diabetes_reference as reference
from envs.diabetes import LARGEST_DOSE, STEEPNESS, Diabetes
from envs.diabetes.physiology import MINUTES
from mpi_utils.comm import Comm, guard

SIZES, STEPS, REPEATS, REFERENCE_STEPS = (30, 300, 3000), 120, 3, 24


def main(comm: Comm) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    with comm.agree():
        rates: dict[str, Any] = {f"steps_per_s_{n}": max(ours(n) for _ in range(REPEATS)) for n in SIZES}
        rates[f"steps_per_s_{SIZES[-1]}_corrected"] = ours(SIZES[-1], "corrected")
        try:
            series = importlib.import_module("pandas").Series
        except ImportError:
            series = None
        rates["reference_steps_per_s"] = theirs(series)
    rates["reference_parameters"] = "pandas" if series else "namespace"
    rates["ratio"] = round(rates[f"steps_per_s_{SIZES[-1]}"] / rates["reference_steps_per_s"])
    if comm.is_root:
        print(json.dumps(rates))


def ours(n: int, absorption: str = "published") -> int:
    """Steps per second of n patients between the 30."""
    family = Diabetes(absorption)
    env = family.make_vec(family.sample(np.random.default_rng(0), n), np.random.default_rng(1))
    env.reset()
    action = (1 + np.log(env.basal / LARGEST_DOSE) / STEEPNESS)[:, None].astype(np.float32)
    began = time.process_time()
    for _ in range(STEPS):
        env.step(action)
    return round(n * STEPS / (time.process_time() - began))


def theirs(series: Any) -> float:
    """Steps per second of the reference's patient who eats once."""
    row = reference.table()[0]
    one = reference.patient(row, as_parameters=series)
    minutes = MINUTES * REFERENCE_STEPS
    grams, dose = np.zeros(minutes), np.full(minutes, row["u2ss"] * row["BW"] / 6000)
    grams[10] = 50
    began = time.process_time()
    reference.glucose(one, grams, dose)
    return round(REFERENCE_STEPS / (time.process_time() - began), 1)


if __name__ == "__main__":
    guard(main)
