"""Figures of a sweep, made from the same two CSV files as its tables."""

import re
from pathlib import Path

import numpy as np

from common.evaluation import Row
from common.plots import curves_figure
from experiments.tables import CURVE, grouped, layout, mean_and_se, read_rows


def draw_budgets(out: Path, rows: list[Row], fields: list[str], metric: str) -> None:
    """The metric against the number of policies, if there are several."""
    if len({row.get("num_policies") for row in rows}) < 2:
        return
    group, rest = layout(fields)
    lines = [field for field in [*rest, *group] if field not in ("environment", "num_policies")]
    for name, curves in grouped(rows, group[:1] if "environment" in group else [], lines).items():
        drawn = {}
        for line, its_rows in curves.items():
            points = grouped(its_rows, ["num_policies"], [])
            stats = [mean_and_se([float(row["mean"]) for row in found[()]]) for found in points.values()]
            drawn[" ".join(line) or metric] = (np.array([float(k) for (k,) in points]), *np.transpose(stats))
        path, title = out / file_name("num_policies", name), " ".join([*name, "band of two standard errors"])
        curves_figure(path, drawn, xlabel="policies", ylabel=metric, title=title)


def draw_curves(out: Path) -> None:
    """Learning curves, one figure for each group of runs that are compared."""
    fields, rows = read_rows(out / "curves.csv", CURVE[0])
    group, members = layout(fields)
    column = list(rows[0])[-1]
    for name, lines in grouped(rows, group, members).items():
        drawn = {}
        for line, its_rows in lines.items():
            by_iteration = [found[()] for found in grouped(its_rows, ["iteration"], []).values()]
            points = [p for p in by_iteration if len(p) == max(map(len, by_iteration))]
            stats = [mean_and_se([float(row[column]) for row in p]) for p in points]
            drawn[" ".join(line) or column] = (
                np.array([float(p[0]["env_steps"]) for p in points]),
                *np.transpose(stats),
            )
        title = ", ".join(
            [*(f"{f} {v}" for f, v in zip(group, name, strict=True)), "band of two standard errors"]
        )
        path = out / file_name("curves", name)
        curves_figure(path, drawn, xlabel="environment steps", ylabel=f"{column} in training", title=title)


def file_name(stem: str, name: tuple[str, ...]) -> str:
    """A figure's file, named after the group that it shows."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", "_".join([stem, *name])) + ".png"
