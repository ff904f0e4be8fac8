"""Tables and figures of a sweep, made from its two CSV files alone.

table.csv: the swept fields of a run, then method, metric, mean, se, n. curves.csv: the swept fields, then
iteration, env_steps, minutes and a column of metrics.csv. Whatever is measured, more is better.
"""

import csv
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ttest_rel

from common.errors import UserError
from common.evaluation import Row, as_csv, as_markdown, standard_error
from common.runs.files import write_atomic

ROW = ["method", "metric", "mean", "se", "n"]
CURVE = ["iteration", "env_steps", "minutes"]
LEVEL = 0.01
Key = tuple[str, ...]


def write_csv(path: Path, rows: Iterable[Row], columns: Sequence[str]) -> None:
    """Write a CSV file, whole or not at all; numbers have 7 digits."""
    write_atomic(path, as_csv(rows, columns, digits=7).encode())


def read_rows(path: Path, first: str) -> tuple[list[str], list[dict[str, str]]]:
    """The swept fields, which are the columns before `first`, and the rows, sorted by them."""
    try:
        with open(path, newline="") as file:
            reader = csv.DictReader(file)
            rows, header = list(reader), list(reader.fieldnames or [])
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); is this a sweep's --table?") from error
    if first not in header or not rows:
        raise UserError(f"{path}: holds no rows of a sweep")
    fields = header[: header.index(first)]
    order = {field: in_order([row[field] for row in rows]) for field in fields}
    return fields, sorted(rows, key=lambda row: [order[field].index(row[field]) for field in fields])


def in_order(values: list[str]) -> list[str]:
    """Distinct values: numbers by size, words as they come."""
    distinct = list(dict.fromkeys(values))
    try:
        return sorted(distinct, key=float)
    except ValueError:
        return distinct


def of_metric(rows: list[Row], fields: list[str], metric: str) -> list[Row]:
    """The row of each run that is about the run's own method: its first of this metric."""
    own: dict[Key, Row] = {}
    for row in rows:
        if row["metric"] == metric:
            own.setdefault(key(row, fields), row)
    return list(own.values())


def layout(fields: list[str]) -> tuple[list[str], list[str]]:
    """Fields that name a group of runs to compare, and those of its members: the algorithm, if swept."""
    group = [field for field in fields if field == "environment"]
    rest = [field for field in fields if field not in ("environment", "seed")]
    if "algorithm" in rest:
        return group + [field for field in rest if field != "algorithm"], ["algorithm"]
    return group, rest


def key(row: Row, fields: list[str]) -> Key:
    """The values of some fields."""
    return tuple(row[field] for field in fields)


def grouped(rows: list[Row], group: list[str], members: list[str]) -> dict[Key, dict[Key, list[Row]]]:
    """Rows by group and by member."""
    found: dict[Key, dict[Key, list[Row]]] = {}
    for row in rows:
        found.setdefault(key(row, group), {}).setdefault(key(row, members), []).append(row)
    return found


def markdown(rows: list[Row], fields: list[str], metric: str) -> str:
    """Mean ± standard error over seeds; one table for each environment, a group's best bold."""
    group, members = layout(fields)
    compared = {name: entries(found) for name, found in grouped(rows, group, members).items()}
    across, apart = members == ["algorithm"], int(group[:1] == ["environment"])
    names = list(dict.fromkeys(member for found in compared.values() for member in found))
    text = f"## {metric}\n\n"
    for environment in dict.fromkeys(name[:apart] for name in compared):
        here = {name[apart:]: found for name, found in compared.items() if name[:apart] == environment}
        if across:
            head = [*group[apart:], *(name for (name,) in names)]
            body = [[*name, *(found.get(member, "") for member in names)] for name, found in here.items()]
        else:
            head = [*members, metric]
            body = [[*member, entry] for found in here.values() for member, entry in found.items()]
        text += f"### {environment[0]}\n\n" if environment else ""
        text += as_markdown(head, body) + "\n"
    return (
        f"{text}Mean over seeds ± standard error of that mean. Bold: the best of its "
        f"{'row' if across else 'table'}, and what a\n"
        f"paired one-sided t-test over the seeds (p = {LEVEL}) does not find worse. One seed: no test (-).\n"
    )


def entries(compared: dict[Key, list[Row]]) -> dict[Key, str]:
    """What a group's members are printed as; one with fewer seeds than others says so."""
    values = {
        name: {row.get("seed", ""): float(row["mean"]) for row in rows} for name, rows in compared.items()
    }
    bold, most = not_worse(values), max(map(len, values.values()))
    texts = {}
    for name, by_seed in values.items():
        mean, se = mean_and_se(list(by_seed.values()))
        text = f"{mean:.2f} ± {'-' if np.isnan(se) else f'{se:.2f}'}"
        text = f"**{text}**" if name in bold else text
        texts[name] = text if len(by_seed) == most else f"{text} ({len(by_seed)} of {most} seeds)"
    return texts


def not_worse(values: Mapping[Key, dict[str, float]]) -> set[Key]:
    """The member with the best mean and those that are not worse over the seeds both have (section 4.3)."""
    best = max(values, key=lambda name: np.mean(list(values[name].values())))
    bold = set()
    for name, by_seed in values.items():
        seeds = sorted(by_seed.keys() & values[best].keys())
        if len(values) == 1 or len(seeds) < 2:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no variance at all: p is then 0, or nan between equals
            pairs = [values[best][s] for s in seeds], [by_seed[s] for s in seeds]
            worse = ttest_rel(*pairs, alternative="greater").pvalue < LEVEL
        if not worse:
            bold.add(name)
    return bold


def mean_and_se(values: Any) -> tuple[float, float]:
    """Mean and its standard error, nan for one value."""
    error = standard_error(values)
    return float(np.mean(values)), np.nan if error is None else error
