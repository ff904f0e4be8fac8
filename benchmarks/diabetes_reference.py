"""The patient and the sensor of simglucose 0.2.2, run from its files with stand-ins for what it imports.

For comparisons only. The package itself asks for a version of gym that cannot live beside Gymnasium's tools.
"""

import csv
import functools
import importlib
import importlib.metadata
import sys
import types
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import scipy.integrate  # before `load`, which forgets what is imported in it
import scipy.interpolate  # noqa: F401


@functools.cache
def load(module: str) -> types.ModuleType:
    """One of its modules, e.g. "patient.t1dpatient"."""
    root = Path(str(importlib.metadata.distribution("simglucose").locate_file("simglucose")))
    rooms = ["simglucose", *(f"simglucose.{room}" for room in ("patient", "sensor"))]
    stubs: dict[str, Any] = {
        name: types.ModuleType(name) for name in [*rooms, "pandas", "matplotlib", "matplotlib.pyplot"]
    }
    for name in rooms:
        stubs[name].__path__ = [str(root.joinpath(*name.split(".")[1:]))]
    stubs["pkg_resources"] = types.SimpleNamespace(resource_filename=lambda _, path: str(root / path))
    with mock.patch.dict(sys.modules, stubs):
        return importlib.import_module(f"simglucose.{module}")


def table() -> list[dict[str, Any]]:
    """The rows of its patients, names as text and all else as numbers."""
    path = importlib.metadata.distribution("simglucose").locate_file("simglucose/params/vpatient_params.csv")
    with open(Path(str(path)), newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: text if key == "Name" else float(text) for key, text in row.items()} for row in rows]


def patient(row: dict[str, Any], corrected: bool = False, as_parameters: Any = None) -> Any:
    """Its patient at rest; `as_parameters` makes of a row what holds its parameters (usual: a namespace)."""
    module: Any = load("patient.t1dpatient")

    class Patient(module.T1DPatient):
        @staticmethod
        def model(t: Any, x: Any, action: Any, params: Any, before: Any, eaten: Any) -> Any:
            return module.T1DPatient.model(t, x, action, params, before, (1000 if corrected else 1) * eaten)

    first = np.array([row[f"x0_{number:2d}"] for number in range(1, 14)])
    hold = as_parameters or (lambda values: types.SimpleNamespace(**values))
    return Patient(hold(row), init_state=first)


def glucose(one: Any, grams: np.ndarray, dose: np.ndarray) -> np.ndarray:
    """Glucose [T] in mg/dl after each minute of meals [T] in g and doses [T] in U/min, of a `patient`."""
    action, found = load("patient.t1dpatient").Action, []
    for meal, insulin in zip(grams, dose, strict=True):
        one.step(action(CHO=meal, insulin=insulin))
        found.append(one.observation.Gsub)
    return np.array(found)
