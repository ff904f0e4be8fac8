"""What policies do for their agents: speeds over a histogram of targets, walks over the grid, or returns."""

import math
from typing import Any

import numpy as np

from common import plots
from common.evaluation import Row
from envs.resource_gathering import HOME, SIZE
from rmdp.certificate import numbers

NAMED = 12  # policies up to which a legend has room


def plot(rows: list[Row], path: Any, title: str) -> None:
    """Draw the policies of one run from its rows and write a PNG."""
    welfare = next(r["mean"] for r in rows if r["metric"] == "social_welfare")
    returns = [r for r in rows if r["metric"] == "policy_return"]
    walks = [r for r in rows if r["metric"] == "walk"]
    speeds = [r for r in rows if r["metric"] == "policy_speed"]
    if newcomers := [r for r in rows if r["metric"] == "newcomer_utility"]:
        figure = draw_newcomers(newcomers)
    elif walks or speeds:
        figure = draw_walks(walks, returns) if walks else draw_speeds(speeds, returns)
    else:
        figure = draw_agents([r for r in rows if r["metric"] == "agent_return"])
    figure.suptitle(f"{title}, social welfare {welfare:.2f}", fontsize=11)
    plots.save(figure, path, dpi=130, tight=True)


def draw_speeds(speeds: list[Row], returns: list[Row]) -> Any:
    """Histogram of targets, coloured by the agents' policy; triangles: the policies' mean speeds."""
    import matplotlib

    figure = plots.figure(9, 4.5)
    axes = figure.subplots()
    order = np.argsort([r["mean"] for r in speeds])
    colours = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(order)))
    if len(order) > 2:  # neighbours in speed get colours far apart
        stride = next(
            s for s in range(int(len(order) * 0.38) + 1, len(order)) if math.gcd(s, len(order)) == 1
        )
        colours = colours[np.arange(len(order)) * stride % len(order)]
    edges = np.linspace(speeds[0]["low"], speeds[0]["high"], len(speeds[0]["assigned"]) + 1)
    below = np.zeros(len(edges) - 1)
    for colour, j in zip(colours, order, strict=True):
        assigned = np.array(speeds[j]["assigned"])
        label = f"policy {j}: {speeds[j]['mean']:.2f} m/s, {returns[j]['agents']} agents"
        axes.bar(
            edges[:-1], assigned, np.diff(edges), below, align="edge", color=colour, alpha=0.75, label=label
        )
        below += assigned
    axes.set_ylim(0, 1.12 * max(below.max(), 1))
    means = np.array([speeds[j]["mean"] for j in order])
    marks = np.full(len(means), 1.06 * max(below.max(), 1))
    axes.scatter(means, marks, color=colours, marker="v", edgecolors="black", linewidths=0.5, zorder=3)
    if len(order) <= NAMED:
        axes.vlines(means, 0, marks, color="black", linewidth=0.8)
    axes.set(xlabel="target speed of agents (bars), mean speed of policies (triangles), m/s", ylabel="agents")
    if len(order) <= NAMED:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw_walks(walks: list[Row], returns: list[Row]) -> Any:
    """One grid a policy: coloured cells are its agents' homes, the line is its walk from home."""
    columns = math.ceil(math.sqrt(len(walks)))
    lines = math.ceil(len(walks) / columns)
    figure = plots.figure(max(4.5, 2.4 * columns), 2.6 * lines + 0.5)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes in panels.flat[len(walks) :]:
        axes.axis("off")
    for axes, walk, row in zip(panels.flat, walks, returns, strict=False):
        assigned = np.array(walk["assigned"]).reshape(SIZE, SIZE)
        axes.imshow(assigned > 0, cmap="Blues", vmin=0, vmax=2)
        y, x = np.divmod(walk["cells"], SIZE)
        # The way out and the way back may share cells: a later step lies a little further right and down.
        shift = np.linspace(-0.16, 0.16, len(x))
        axes.plot(x + shift, y + shift, color="C3", linewidth=1.5)
        if len(x) > 2:
            middle = len(x) // 2
            start, end = ((x + shift)[middle - 1 : middle + 1], (y + shift)[middle - 1 : middle + 1])
            arrow = {"arrowstyle": "-|>", "color": "C3"}
            axes.annotate("", (start[1], end[1]), (start[0], end[0]), arrowprops=arrow)
        axes.plot(HOME[1], HOME[0], "s", color="black", markersize=5)
        came_home = len(x) > 1 and (y[-1], x[-1]) == HOME
        returned = "" if row["mean"] is None else f", return {row['mean']:.1f}"
        steps = f"steps: {len(x) - 1}" if came_home else "does not come home"
        title = f"policy {walk['policy']}: {row['agents']} agents{returned}\n{steps}"
        axes.set_title(title, fontsize=8)
        axes.set_xticks(np.arange(SIZE + 1) - 0.5, labels=[])
        axes.set_yticks(np.arange(SIZE + 1) - 0.5, labels=[])
        axes.grid(color="0.8", linewidth=0.5)
        axes.tick_params(length=0)
    return figure


def draw_agents(agents: list[Row]) -> Any:
    """A bar for each agent, coloured by its policy; the worst-off of a policy first."""
    figure = plots.figure(9, 4.5)
    axes = figure.subplots()
    policies = np.array([r["policy"] for r in agents], int)
    returns = np.array([r["mean"] for r in agents], float)
    order = np.lexsort((returns, policies))
    place = np.argsort(order)
    for j in np.unique(policies):
        own = policies == j
        axes.bar(place[own], returns[own], width=1.0, color=f"C{j % 10}", label=f"policy {j}: {own.sum()}")
    axes.set(xlabel="agents, by their policy", ylabel="return")
    if len(np.unique(policies)) <= NAMED:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), title="agents")
    return figure


def draw_newcomers(agents: list[Row]) -> Any:
    """Fresh agents over the two parameters that tell the badly served best, coloured by their utility.

    Crosses are those that are not covered. With one parameter, it and the utility are the axes.
    """
    import matplotlib

    figure = plots.figure(7, 5)
    axes = figure.subplots()
    utility = np.array([r["mean"] for r in agents])
    covered = np.array([r["covered"] for r in agents])
    columns = numbers(agents)
    # How far apart the covered and the others lie, in deviations
    apart = {name: told_apart(values, covered) for name, values in columns.items()}
    names = sorted(columns, key=lambda name: -apart[name])[:2]
    x = columns[names[0]]
    y = columns[names[1]] if len(names) > 1 else utility
    colours = matplotlib.colors.Normalize(min(0.0, utility.min()), max(1.0, utility.max()))
    for own, mark, label in ((covered, "o", "covered"), (~covered, "x", "not covered")):
        shown = axes.scatter(x[own], y[own], c=utility[own], norm=colours, marker=mark, s=18, cmap="viridis")
        shown.set_label(f"{label}: {own.sum():,}")
    figure.colorbar(shown, ax=axes, label="utility")
    axes.set(xlabel=names[0], ylabel=names[1] if len(names) > 1 else "utility")
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.12), ncols=2)
    return figure


def told_apart(values: np.ndarray, covered: np.ndarray) -> float:
    """How far the means of `values [m]` of the covered and of the others lie apart, in deviations."""
    if covered.all() or not covered.any() or not values.std():
        return 0.0
    return abs(float(values[covered].mean() - values[~covered].mean())) / float(values.std())
