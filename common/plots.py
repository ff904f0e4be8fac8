"""Figures, drawn without a display; no other file of ours chooses how matplotlib draws."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = tuple[Any, ...]  # x, mean, standard error, each [K] numbers


def figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    """An empty figure of `width` x `height` inches: `figure.subplots(...)` gives its axes.

    It belongs to no window and to no global list, so that there is nothing to close.
    """
    from matplotlib.figure import Figure  # a second of imports, which nobody else waits for

    return Figure(figsize=(width, height), layout=layout)  # type: ignore[arg-type]


def save(drawn: Figure, path: Path | str, dpi: int = 110, tight: bool = False) -> None:
    """Write a figure to `path`, by whose ending it is PNG or SVG; `tight` cuts its empty margins."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path, dpi=dpi, bbox_inches="tight" if tight else None)


def curves_figure(
    path: Path | str, curves: dict[str, Curve], *, xlabel: str, ylabel: str, title: str, highlight: str = ""
) -> None:
    """Lines with bands of two standard errors, written to `path` as PNG.

    The curve called `highlight` is drawn thick and on top.
    """
    drawn = figure(8, 5, layout=None)
    axes = drawn.subplots()
    order = sorted(curves, key=lambda name: -np.nanmean(curves[name][1]))
    for number, name in enumerate(order):
        x, mean, se = (np.asarray(values, dtype=float) for values in curves[name])
        strong = name == highlight
        color = "black" if strong else f"C{number % 10}"
        marker = "o" if len(x) <= 20 else None
        line = axes.plot(x, mean, label=name, marker=marker, markersize=3, color=color)
        if strong:
            line[0].set(linewidth=3, zorder=9)
        axes.fill_between(x, mean - 2 * se, mean + 2 * se, alpha=0.15, color=color, linewidth=0)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.grid(alpha=0.3)
    save(drawn, path, dpi=130, tight=True)
