"""From what a clinic's devices export to a log that PerSim learns from, and such exports of virtual patients:

    python -m experiments.diabetes_logs simulate --members all --days 2 --out clinic.csv
    python -m experiments.diabetes_logs convert clinic.csv --out log.csv
    python -m train persim --environment unknown --dataset log.csv --learn_reward True

An export has a row every five minutes: patient, timestamp (ISO 8601), glucose (mg/dl), insulin (U given in
the five minutes that follow), carbs (g eaten in them). This is research software; nothing here is medical
advice.
"""

import argparse
import csv
import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.evaluation import lines_as_csv
from common.rollout import play
from common.runs.files import write_atomic
from envs.diabetes import DAY_STEPS, FAILS_HIGH, FAILS_LOW, FAILURE, HISTORY, RISK_SCALE, Diabetes, risk
from envs.diabetes.patients import read_patients
from envs.diabetes.physiology import MINUTES
from envs.diabetes.simulation import LARGEST_RATE
from experiments.diabetes import Recording
from experiments.diabetes_controllers import BasalBolus
from mpi_utils.comm import Comm, guard

COLUMNS = ("patient", "timestamp", "glucose", "insulin", "carbs")
NO_MG_DL, PER_MMOL = 35.0, 18.016  # a person's mg/dl are not below it everywhere; mg/dl of 1 mmol/l
LARGEST = {"glucose": 1000.0, "insulin": LARGEST_RATE * MINUTES, "carbs": 1000.0}
STEP, FIRST_MOMENT = timedelta(minutes=MINUTES), datetime(2026, 1, 1)


class Record:
    """One patient's rows in order of time."""

    def __init__(self) -> None:
        self.moments: list[datetime] = []
        self.rows: list[tuple[float, float, float]] = []  # glucose, insulin, carbs


def read_export(path: Path, units: str) -> tuple[dict[str, Record], list[str]]:
    """The patients' records in mg/dl, and a line for each gap; raises `UserError` with line and column."""
    records: dict[str, Record] = {}
    gaps = []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
                raise UserError(f"{path}: lacks {', '.join(missing)}; it must have {', '.join(COLUMNS)}")
            for line, row in enumerate(reader, 2):
                where = f"{path}:{line}"
                numbers = [number(where, row, name) for name in COLUMNS[2:]]
                try:
                    moment = datetime.fromisoformat(row["timestamp"])
                except (TypeError, ValueError):
                    text = f"timestamp {row['timestamp']!r} is none; write 2026-01-31T08:05"
                    raise UserError(f"{where}: {text}") from None
                record = records.setdefault(row["patient"], Record())
                if record.moments and (passed := since(record.moments[-1], moment, where)) != STEP:
                    if passed < STEP:
                        text = f"{passed.total_seconds() / 60:g} minutes after the row before it"
                        raise UserError(f"{where}: {text}; sort the rows, one every five minutes")
                    gaps.append(f"{where}: {row['patient']} has a gap of {passed}; the history starts anew")
                record.moments.append(moment)
                record.rows.append((numbers[0], numbers[1], numbers[2]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if not records:
        raise UserError(f"{path}: has no rows")
    largest = max(row[0] for record in records.values() for row in record.rows)
    if units == "mg" and largest < NO_MG_DL:
        text = f"no glucose reaches {NO_MG_DL:g}, so these are no mg/dl; give --units mmol to convert them"
        raise UserError(f"{path}: {text}")
    if units == "mmol":
        if largest > NO_MG_DL:
            raise UserError(f"{path}: glucose of {largest:g} is no mmol/l; leave out --units mmol")
        for record in records.values():
            record.rows = [(PER_MMOL * glucose, *rest) for glucose, *rest in record.rows]  # type: ignore[misc]
    return records, gaps


def since(before: datetime, moment: datetime, where: str) -> timedelta:
    """The time between."""
    try:
        return moment - before
    except TypeError:
        text = "some timestamps have a time zone and some have none; write all alike"
        raise UserError(f"{where}: {text}") from None


def number(where: str, row: dict[str, Any], name: str) -> float:
    """A finite number that is not negative and not beyond what can be; an empty insulin or carbs is 0."""
    text = (row[name] or "").strip()
    try:
        value = float(text) if text or name == "glucose" else 0.0
    except ValueError:
        raise UserError(f"{where}: {name} {text!r} is no number; correct it") from None
    if not math.isfinite(value) or not 0 <= value <= LARGEST[name]:
        raise UserError(f"{where}: {name} of {text}; give 0 to {LARGEST[name]:g}")
    return value


def transitions(records: dict[str, Record]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of a log: an hour of readings and doses is the state, the dose that follows the action.

    The reward is the family's usual one, of the reading that the dose led to.
    """
    names = [f"{kind}_{back}" for kind in ("reading", "dose") for back in range(HISTORY - 1, -1, -1)]
    header = ["agent", "time", *(f"state_{name}" for name in names), "action", "reward"]
    header += [f"next_state_{name}" for name in names]
    rows = []
    for patient, record in records.items():
        for last in range(HISTORY, len(record.rows) - 1):
            first = last - HISTORY  # its dose is the oldest that is seen
            if record.moments[last + 1] - record.moments[first] != (HISTORY + 1) * STEP:
                continue
            glucose, insulin, _ = zip(*record.rows[first : last + 2], strict=True)
            state = [*glucose[1:-1], *insulin[:-2]]
            then = [*glucose[2:], *insulin[1:-1]]
            time = (record.moments[last] - record.moments[0]) // STEP
            rows.append([patient, time, *state, insulin[-2], reward(glucose[-1]), *then])
    if not rows:
        raise UserError(
            f"no patient has {HISTORY + 2} rows without a gap; a log of an hour and more is needed"
        )
    return header, rows


def reward(glucose: float) -> float:
    """1 - risk / risk(600), -15 at 40 mg/dl or less, 0 at 600."""
    if glucose <= FAILS_LOW:
        return FAILURE
    return 0.0 if glucose >= FAILS_HIGH else float(1 - risk(np.array(glucose)) / RISK_SCALE)


def simulate(chosen: str, num_days: int, seed: int) -> list[list[Any]]:
    """Rows of an export: days of patients who are dosed by a clinic's controller, until a failure."""
    family = Diabetes(max_episode_len=DAY_STEPS * num_days, **BasalBolus.settings)
    patients = family.members(chosen.split(","))
    known, everyone = read_patients()
    env = family.make_vec(patients, np.random.default_rng(seed))
    recording = Recording(env, BasalBolus(patients, misjudged=True))
    play(env, recording, family.max_episode_len)
    recording.keep()
    rows = []
    for i, weight in enumerate(patients["BW"]):
        name = known[int(np.flatnonzero(everyone["BW"] == weight)[0])]
        for t in range(int(np.sum([running[i] for running in recording.running])) - 1):
            moment = (FIRST_MOMENT + (t + 1) * STEP).isoformat(timespec="minutes")
            dose, grams = MINUTES * recording.given[t + 1][i], recording.eaten[t + 1][i]
            rows.append([name, moment, f"{recording.reading[t][i]:.1f}", f"{dose:.4f}", f"{grams:g}"])
    return rows


def main(comm: Comm) -> None:
    """Simulate or convert."""
    parser = argparse.ArgumentParser("python -m experiments.diabetes_logs")
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("simulate", help="an export of virtual patients")
    made.add_argument(
        "--members", default="all", help="all, adult, adolescent, child or names (default: all)"
    )
    made.add_argument("--days", type=int, default=1, help="days of each (default: 1)")
    made.add_argument("--seed", type=int, default=0, help="draws meals and sensors (default: 0)")
    converted = commands.add_parser("convert", help="an export to a log")
    converted.add_argument("export", help="the CSV file of the devices")
    converted.add_argument("--units", choices=["mg", "mmol"], default="mg", help="of glucose, per dl or l")
    for command in (made, converted):
        command.add_argument("--out", required=True, help="the CSV file to write")
    settings = parser.parse_args()
    with comm.agree():
        if not comm.is_root:
            return
        out = Path(settings.out)
        if settings.command == "simulate":
            if settings.days < 1 or settings.seed < 0:
                raise UserError("give --days of at least 1 and --seed of at least 0")
            header, rows = list(COLUMNS), simulate(settings.members, settings.days, settings.seed)
        else:
            records, gaps = read_export(Path(settings.export), settings.units)
            print("\n".join(gaps), end="\n" if gaps else "")
            header, rows = transitions(records)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, lines_as_csv(header, rows).encode())
        print(f"{out}: {len(rows)} rows of {len({row[0] for row in rows})} patients")


if __name__ == "__main__":
    guard(main)
