"""The reference patient and sensor of simglucose 0.2.2, run from its files without its dependencies."""

import functools
import importlib
import importlib.metadata
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import scipy.integrate  # before `load`, which forgets what is imported in it
import scipy.interpolate  # noqa: F401


def installed() -> bool:
    """Whether the package is there."""
    try:
        importlib.metadata.distribution("simglucose")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


needs_simglucose = pytest.mark.skipif(
    not installed(), reason="pip install --no-deps simglucose==0.2.2 has the patients' parameters"
)


@functools.cache
def load(module: str) -> types.ModuleType:
    """One of its modules ("patient.t1dpatient"), with stand-ins for what it imports and does not need."""
    root = Path(str(importlib.metadata.distribution("simglucose").locate_file("simglucose")))
    names = ["simglucose", *(f"simglucose.{room}" for room in ("patient", "sensor"))]
    stubs = {name: types.ModuleType(name) for name in [*names, "matplotlib", "matplotlib.pyplot"]}
    for name in names:
        stubs[name].__path__ = [str(root.joinpath(*name.split(".")[1:]))]
    stubs["pkg_resources"] = types.SimpleNamespace(resource_filename=lambda _, path: str(root / path))
    stubs["pandas"] = types.ModuleType("pandas")
    with mock.patch.dict(sys.modules, stubs):
        return importlib.import_module(f"simglucose.{module}")


def reference_glucose(row: dict, grams: np.ndarray, dose: np.ndarray, corrected: bool) -> np.ndarray:
    """Glucose [T] in mg/dl after each minute of meals [T] in g and doses [T] in U/min, of a row of it."""
    module = load("patient.t1dpatient")
    first = np.array([float(row[f"x0_{number:2d}"]) for number in range(1, 14)])
    values = {key: value if key == "Name" else float(value) for key, value in row.items()}

    class Patient(module.T1DPatient):
        @staticmethod
        def model(t, x, action, params, before, eaten):
            return module.T1DPatient.model(t, x, action, params, before, (1000 if corrected else 1) * eaten)

    patient = Patient(types.SimpleNamespace(**values), init_state=first)
    found = []
    for meal, insulin in zip(grams, dose, strict=True):
        patient.step(module.Action(CHO=meal, insulin=insulin))
        found.append(patient.observation.Gsub)
    return np.array(found)
