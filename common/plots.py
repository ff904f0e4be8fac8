"""Figures, drawn without a display."""

from pathlib import Path

import numpy as np


def curves_figure(
    path, curves: dict[str, tuple], *, xlabel: str, ylabel: str, title: str, highlight: str = ""
):
    """Lines with bands of two standard errors, written to `path` as PNG.

    `curves[name] = (x [K], mean [K], se [K])`; the curve called `highlight` is drawn thick and on top.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5))
    order = sorted(curves, key=lambda name: -np.nanmean(curves[name][1]))
    for number, name in enumerate(order):
        x, mean, se = (np.asarray(values, dtype=float) for values in curves[name])
        strong = name == highlight
        style = {"linewidth": 3, "color": "black", "zorder": 9} if strong else {"color": f"C{number % 10}"}
        axes.plot(x, mean, label=name, marker="o" if len(x) <= 20 else None, markersize=3, **style)
        axes.fill_between(x, mean - 2 * se, mean + 2 * se, alpha=0.15, color=style["color"], linewidth=0)
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.grid(alpha=0.3)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    plt.close(figure)
