"""Tables and figures of a sweep, made from its two CSV files alone.

table.csv: the swept fields of a run, then method, metric, mean, se, n. curves.csv: the swept fields, then
iteration, env_steps, minutes and a column of metrics.csv. Whatever is measured, more is better.
"""

import csv
import io
import warnings
from pathlib import Path

import numpy as np
from scipy.stats import ttest_rel

from common.errors import UserError
from common.runs.files import write_atomic

ROW = ["method", "metric", "mean", "se", "n"]
CURVE = ["iteration", "env_steps", "minutes"]
LEVEL = 0.01


def write_rows(path: Path, header: list[str], rows: list[list]) -> None:
    """Write a CSV file, whole or not at all; numbers have 7 digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([[f"{v:.7g}" if isinstance(v, float) else v for v in row] for row in rows])
    write_atomic(path, text.getvalue().encode())


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


def of_metric(rows, fields, metric) -> list[dict]:
    """The row of each run that is about the run's own method: its first of this metric."""
    own = {}
    for row in rows:
        if row["metric"] == metric:
            own.setdefault(key(row, fields), row)
    return list(own.values())


def layout(fields) -> tuple[list[str], list[str]]:
    """Fields that name a group of cells to compare, and those of its members: the algorithm, if swept."""
    group = [field for field in fields if field == "environment"]
    rest = [field for field in fields if field not in ("environment", "seed")]
    if "algorithm" in rest:
        return group + [field for field in rest if field != "algorithm"], ["algorithm"]
    return group, rest


def key(row, fields) -> tuple[str, ...]:
    return tuple(row[field] for field in fields)


def grouped(rows, group, members) -> dict[tuple, dict[tuple, list[dict]]]:
    """Rows by group and by member."""
    found = {}
    for row in rows:
        found.setdefault(key(row, group), {}).setdefault(key(row, members), []).append(row)
    return found


def markdown(rows, fields, metric) -> str:
    """Mean ± standard error over seeds; one table for each environment, a group's best bold."""
    group, members = layout(fields)
    compared = grouped(rows, group, members)
    wide, env = members == ["algorithm"], len(group) and group[0] == "environment"
    names = list(dict.fromkeys(member for cells in compared.values() for member in cells))
    lines = [f"## {metric}", ""]
    for environment in dict.fromkeys(group_key[:1] if env else () for group_key in compared):
        here = {
            name: entries(cells)
            for name, cells in compared.items()
            if name[: len(environment)] == environment
        }
        if wide:
            head = [*group[len(environment) :], *(name for (name,) in names)]
            body = [
                [*g[len(environment) :], *(cells.get(name, "") for name in names)]
                for g, cells in here.items()
            ]
        else:
            head = [*members, metric]
            body = [[*member, entry] for cells in here.values() for member, entry in cells.items()]
        lines += [f"### {environment[0]}", ""] if env else []
        lines += [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)] + [""]
    compared_in = "row" if wide else "table"
    lines += [
        f"Mean over seeds ± standard error of that mean. Bold: the best of its {compared_in}, and what a",
        f"paired one-sided t-test over the seeds (p = {LEVEL}) does not find worse. One seed: no test (-).",
        "",
    ]
    return "\n".join(lines)


def entries(cells: dict[tuple, list[dict]]) -> dict[tuple, str]:
    """What a group's cells are printed as; one with fewer seeds than others says so."""
    values = {name: {row.get("seed", ""): float(row["mean"]) for row in rows} for name, rows in cells.items()}
    bold, most = not_worse(values), max(map(len, values.values()))
    texts = {}
    for name, by_seed in values.items():
        mean, se = mean_and_se(list(by_seed.values()))
        text = f"{mean:.2f} ± {'-' if np.isnan(se) else f'{se:.2f}'}"
        text = f"**{text}**" if name in bold else text
        texts[name] = text if len(by_seed) == most else f"{text} ({len(by_seed)} of {most} seeds)"
    return texts


def not_worse(values: dict[tuple, dict[str, float]]) -> set[tuple]:
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


def mean_and_se(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error, nan for one value."""
    return np.mean(values), np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
