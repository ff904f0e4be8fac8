"""One figure of an evaluation: predicted against true paths, and factors against covariates."""

from pathlib import Path
from typing import Any

import numpy as np

from common.evaluation import Row
from common.plots import figure, save


def plot(rows: list[Row], path: str | Path, title: str) -> None:
    """Draw what the rows hold and write a PNG."""
    paths = [row for row in rows if row["metric"] == "paths"]
    factors = [row for row in rows if row["metric"] == "factor_correlation"]
    width = max(len(paths), len(factors), 1)
    lines = [line for line in (paths, factors) if line]
    drawn = figure(3.2 * width, 3.2 * len(lines))
    axes = drawn.subplots(len(lines), width, squeeze=False)
    drawn.suptitle(title, fontsize=12)
    for line, panels in zip(lines, axes, strict=True):
        for panel in panels[len(line) :]:
            panel.axis("off")
        for row, panel in zip(line, panels, strict=False):
            (draw_paths if row["metric"] == "paths" else draw_factors)(panel, row)
    save(drawn, path)


def draw_paths(axes: Any, row: Row) -> None:
    """The first two states against one another: true solid, predicted dashed."""
    for i, (true, predicted) in enumerate(zip(row["true"], row["predicted"], strict=True)):
        true, predicted = (np.reshape(path, (len(path), -1)) for path in (true, predicted))
        axes.plot(*true.T[:2], color=f"C{i}", linewidth=1)
        axes.plot(*predicted.T[:2], color=f"C{i}", linestyle="--", linewidth=1.8)
    axes.set_title(f"agent {row['agent']}", fontsize=9)
    axes.set(xlabel="state 1", ylabel="state 2" if axes.get_subplotspec().is_first_col() else "")


def draw_factors(axes: Any, row: Row) -> None:
    """The hidden covariate of every agent, and what is read off its learned factors."""
    axes.scatter(*np.array(row["points"]).T, s=6, alpha=0.5)
    axes.set_title(f"{row['covariate']}: rank correlation {row['mean']:.3f}", fontsize=9)
    axes.set(xlabel="true", ylabel="read off the factors")
