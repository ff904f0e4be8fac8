"""The 30 virtual patients, read from the installed package simglucose, and new ones between them."""

import csv
import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from envs.parameters import EnvError, check_parameters, check_shapes
from envs.protocols import Draws, Parameters

VERSION = "0.2.2"
INSTALL = f"pip install --no-deps simglucose=={VERSION}"
FILES = ("simglucose/params/vpatient_params.csv", "simglucose/params/Quest.csv")
GROUPS = ("adolescent", "adult", "child")  # numbered in the order of the file

# What sets one patient apart; units are kg, mg/dl, pmol/l, mg/kg, dl/kg, l/kg and 1/min, see `Physiology`.
RATES = ("kabs", "kmax", "kmin", "k2", "p2u", "m1", "m2", "ki", "kp2", "kd", "ksc", "ka1", "ka2")
PHYSIOLOGY = ("BW", "Gb", "Gtb", "Ib", "EGPb", *RATES, "b", "d", "Vg", "Vi", "Vmx", "Km0", "kp3")
CLINIC = ("CR", "CF", "TDI")  # g/U, mg/dl per U, U/day: what a clinic writes down
NAMES = ("group", *PHYSIOLOGY, *CLINIC)


def read_patients() -> tuple[list[str], Parameters]:
    """Names and parameters `{name: [30]}` of the patients; the package is read, never imported.

    "group" [30] int64 is 0 adolescent, 1 adult, 2 child; all else is float64. Raises `EnvError`.
    """
    try:
        package = importlib.metadata.distribution("simglucose")
    except importlib.metadata.PackageNotFoundError:
        text = f"diabetes: the patients' parameters are in the package simglucose; run {INSTALL}"
        raise EnvError(text) from None
    tables = []
    for file in FILES:
        try:
            with open(Path(str(package.locate_file(file))), newline="") as lines:
                tables.append({row["Name"]: row for row in csv.DictReader(lines)})
        except (OSError, KeyError) as error:
            text = f"diabetes: {file} of simglucose {package.version} cannot be read ({error}); run {INSTALL}"
            raise EnvError(text) from None
    names = list(tables[0])
    rows = [tables[0][name] | tables[1].get(name, {}) for name in names]
    try:
        parameters = {key: np.array([float(row[key]) for row in rows]) for key in (*PHYSIOLOGY, *CLINIC)}
        group = np.array([GROUPS.index(name.split("#")[0]) for name in names])
    except (KeyError, ValueError) as error:
        text = f"simglucose {package.version} lacks a parameter or a patient ({error}); run {INSTALL}"
        raise EnvError(f"diabetes: {text}") from None
    return names, {"group": group, **parameters}


def choose(chosen: str | Sequence[str]) -> Parameters:
    """Parameters of patients by name: "all", an age group ("adult"), a patient ("adult#003"), or several.

    Raises `EnvError` for a patient who has none.
    """
    rows = numbers(chosen)
    return {key: values[rows] for key, values in read_patients()[1].items()}


def numbers(chosen: str | Sequence[str]) -> list[int]:
    """Which of the 30 they are, from 0; see `choose`."""
    names, _ = read_patients()
    rows: list[int] = []
    for wanted in [chosen] if isinstance(chosen, str) else chosen:
        found = [i for i, name in enumerate(names) if wanted in ("all", name, name.split("#")[0])]
        if not found:
            known = f"all, {', '.join(GROUPS)}, or {names[0]} to {names[-1]}"
            raise EnvError(f"diabetes: there are no parameters of a patient {wanted!r}; give {known}")
        rows += found
    return rows


def between(known: Parameters, rng: Draws, n: int) -> Parameters:
    """n new patients, each between two of the same age group.

    The group is drawn among those that are there, then two of its patients, then a weight w in [0, 1): each
    parameter is p ** (1 - w) * q ** w, with one w for all, so that what belongs together stays together. What
    follows from rest (`Physiology`) is computed from these.
    """
    drawn = rng.random((n, 4), dtype=np.float64)
    groups, number, size = np.unique(known["group"], return_inverse=True, return_counts=True)
    members = number.argsort(kind="stable")
    group = (drawn[:, 0] * len(groups)).astype(np.int64)
    first = size.cumsum()[group] - size[group]
    p, q = (members[first + (drawn[:, k] * size[group]).astype(np.int64)] for k in (1, 2))
    w = drawn[:, 3]
    mixed = {key: known[key][p] ** (1 - w) * known[key][q] ** w for key in NAMES if key != "group"}
    return {"group": groups[group], **mixed}


def check_patients(where: str, parameters: object) -> Parameters:
    """The parameters as arrays [n] of the right types; raises `EnvError` for what no patient can have."""
    arrays = check_parameters(where, parameters)
    check_shapes(where, arrays, dict.fromkeys(NAMES, ()))
    group = arrays["group"]
    if group.dtype.kind not in "iuf" or ((group % 1 != 0) | (group < 0) | (group >= len(GROUPS))).any():
        numbers = ", ".join(f"{i} {name}" for i, name in enumerate(GROUPS))
        raise EnvError(f"{where}: group must be whole numbers: {numbers}")
    for name in (*PHYSIOLOGY, *CLINIC):
        if (arrays[name] <= 0).any():
            task = (arrays[name] <= 0).argmax()
            raise EnvError(f"{where}: {name} of task {task} is {arrays[name][task]}; give a positive number")
    for name, wrong, limit in (
        ("b", arrays["b"] >= 1, "below 1"),
        ("kmin", arrays["kmin"] > arrays["kmax"], "at most kmax"),
        ("EGPb", arrays["EGPb"] <= 1, "above 1, what the brain takes"),
        ("Gb", (arrays["Gb"] < 40) | (arrays["Gb"] > 400), "in mg/dl, 40 to 400 (mmol/l times 18)"),
    ):
        if wrong.any():
            task = wrong.argmax()
            raise EnvError(f"{where}: {name} of task {task} is {arrays[name][task]:g}; it must be {limit}")
    typed = {name: arrays[name].astype(np.float64) for name in (*PHYSIOLOGY, *CLINIC)}
    return {"group": group.astype(np.int64), **typed}
