"""One figure of an evaluation: adaptation curves, where particles end, and maps of the divergences."""

from pathlib import Path
from typing import Any

import numpy as np

from caml.report import METRICS
from common import plots
from common.evaluation import Row

LABELS = {"return": "return (sum over the episode)", "last_reward": "reward of the last step"}
COLUMNS = 4
COLOURS = {
    "caml": "black",
    "same_agent": "C2",
    "different_agent": "C3",
    "joint": "C1",
    "reptile": "C0",
    "maml": "C4",
    "fomaml": "C6",
    "random": "0.6",
}


def plot(rows: list[Row], path: str | Path, title: str) -> None:
    """Draw what the rows hold and write a PNG."""
    lines = []  # each with what draws it
    for metric, draw in (("end_points", draw_ends), ("embedding", draw_map)):
        chosen = [row for row in rows if row["metric"] == metric]
        lines += [(draw, chosen[i : i + COLUMNS]) for i in range(0, len(chosen), COLUMNS)]
    heights = [4.4] + [3.1] * len(lines)
    figure = plots.figure(12, sum(heights))
    figure.suptitle(title, fontsize=12)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, metric in zip(parts[0].subplots(1, len(METRICS)), METRICS, strict=True):
        draw_curves(axes, rows, metric)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for part, (draw, chosen) in zip(parts[1:], lines, strict=True):
        panels = part.subplots(1, COLUMNS)
        for axes in panels[len(chosen) :]:
            axes.axis("off")
        for axes, row in zip(panels, chosen, strict=False):
            draw(axes, row, rows)
    plots.save(figure, path)


def draw_curves(axes: Any, rows: list[Row], metric: str) -> None:
    """The paper's Figure 1: means over query agents, bands of two standard errors."""
    chosen = [row for row in rows if row["metric"] == metric and row.get("agent") == "all"]
    for method in dict.fromkeys(row["method"] for row in chosen):
        own = [row for row in chosen if row["method"] == method]
        u, mean, se = np.array([[row["update"], row["mean"], row["se"] or 0] for row in own]).T
        style = {"color": COLOURS.get(method, "C9"), "linewidth": 2.5 if method == "caml" else 1.3}
        axes.plot(u, mean, marker="o", markersize=3, label=method.replace("_", " "), **style)
        axes.fill_between(u, mean - 2 * se, mean + 2 * se, alpha=0.13, color=style["color"], linewidth=0)
    axes.set(xlabel="updates", ylabel=LABELS[metric])
    axes.grid(alpha=0.3)


def draw_ends(axes: Any, row: Row, _: list[Row]) -> None:
    """The paper's Figure 2: where the first episode after the last update ended, coloured by latent group."""
    x, y = np.array(row["points"]).T
    target = row["target"]
    axes.scatter(x, y, c=row["groups"], cmap="tab10", vmin=0, vmax=9, s=14, alpha=0.75, linewidths=0)
    axes.plot(0, 0, "+", color="black", markersize=9)
    axes.plot(target, target, "*", color="C3", markersize=11)
    axes.set(xlim=(-1.35 * target, 1.35 * target), ylim=(-1.35 * target, 1.35 * target), aspect="equal")
    axes.set_title(f"ends: {row['method'].replace('_', ' ')}", fontsize=9)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)


def draw_map(axes: Any, row: Row, rows: list[Row]) -> None:
    """The paper's Figure 4: t-SNE of the divergences of policies from scratch, coloured by latent group."""
    x, y = np.array(row["points"]).T
    axes.scatter(x, y, c=row["groups"], cmap="tab10", vmin=0, vmax=9, s=30)
    score = next(
        r["mean"] for r in rows if (r["metric"], r.get("update")) == ("adjusted_rand_index", row["update"])
    )
    axes.set_title(f"divergences after {row['update']} updates: ARI {score:.2f}", fontsize=9)
    axes.set(xticks=[], yticks=[])
