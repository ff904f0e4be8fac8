"""The figures of a report, each with the data that it shows; drawn as SVG without a display."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np

from common import plots
from common.evaluation import Row, lines_as_csv
from comparison.tables import ORDER, scalars, title
from envs import Problem
from experiments.grid import Result

COLOURS = {"single": "#7f7f7f", "rmdp": "#1f77b4", "caml": "#2ca02c", "rl2": "#d62728"}
COLOURS |= {"persim": "#9467bd", "per_group": "#ff7f0e", "per_agent": "#000000"}
MARKS = {
    "single": "s",
    "per_group": "P",
    "rmdp": "o",
    "caml": "^",
    "rl2": "D",
    "persim": "v",
    "per_agent": "*",
}
GROUPS = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#bcbd22", "#17becf"]
SIZE = (4.2, 3.3)  # inches: text stays readable on a telephone


@dataclass(frozen=True)
class Figure:
    """A picture, what it shows in a sentence or two, and its data as CSV."""

    name: str
    heading: str
    text: str
    svg: bytes
    names: list[str]
    lines: list[list]

    @property
    def csv(self) -> str:
        """The data that it shows."""
        return lines_as_csv(self.names, self.lines)


def canvas(
    rows: int = 1, columns: int = 1, size: tuple[float, float] = SIZE, **options: Any
) -> tuple[Any, Any]:
    """A figure and its axes."""
    import matplotlib

    matplotlib.rcParams.update(
        {"font.size": 10, "svg.hashsalt": "comparison", "axes.grid": True, "grid.alpha": 0.3}
    )
    drawn = plots.figure(*size)
    return drawn, drawn.subplots(rows, columns, **options)


def as_bytes(figure: Any, kind: str = "svg") -> bytes:
    """The picture; the same bytes for the same picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=130, metadata={"Date" if kind == "svg" else "Software": None})
    return buffer.getvalue()


def style(name: str) -> dict[str, str]:
    """Colour and mark of a method."""
    return {"color": COLOURS.get(name, "#6baed6"), "marker": MARKS.get(name, "o")}


def main_methods(results: list[Result]) -> list[str]:
    """Names that are there, without further budgets of r-MDP."""
    present = {r["name"] for r in results}
    return [name for name in ORDER if name in present]


def of(results: list[Result], name: str) -> list[Result]:
    """The results of a method, one for each seed."""
    return [r for r in results if r["name"] == name]


def draw_gains(axes: Any, results: list[Result], rows: list[Row]) -> None:
    """A line for each method from the worst tenth to the mean agent."""
    shown = [row for row in reversed(rows)]
    for y, row in enumerate(shown):
        own = of(results, row["name"])
        colour = style(row["name"])["color"]
        axes.plot([row["worst_decile"], row["mean"]], [y, y], color=colour, linewidth=2, zorder=2)
        axes.plot(row["mean"], y, "o", color=colour, markersize=8, zorder=3)
        axes.plot(row["worst_decile"], y, "o", color="white", markeredgecolor=colour, markersize=7, zorder=3)
        axes.plot([r["mean"] for r in own], [y + 0.25] * len(own), "|", color=colour, markersize=6)
    axes.set_yticks(range(len(shown)), [row["method"] for row in shown])
    axes.set(xlabel="return of an episode", ylim=(-0.6, len(shown) - 0.3))


def gains(results: list[Result], rows: list[Row]) -> Figure:
    """What the mean agent and the worst tenth get."""
    figure, axes = canvas()
    draw_gains(axes, results, rows)
    names = ["method", "mean", "se_mean", "worst_decile", "se_worst_decile"]
    lines = [[row["method"], *(row[name] for name in names[1:])] for row in rows]
    text = (
        "Full circle: the mean agent. Open circle: the mean over the tenth of the agents with the lowest "
        "returns. A short line means that returns are alike for all agents. Ticks: single seeds."
    )
    return Figure("gains", "Returns of each method", text, as_bytes(figure), names, lines)


def draw_curves(axes: Any, results: list[Result]) -> list[list]:
    """Return against steps spent on a new agent; the points drawn."""
    lines = []
    for name in main_methods(results):
        own = of(results, name)
        points = min(len(r["curve"]) for r in own)
        steps = np.mean([[p["steps"] for p in r["curve"][:points]] for r in own], axis=0)
        mean = np.mean([[p["mean"] for p in r["curve"][:points]] for r in own], axis=0)
        worst = np.mean([[p["worst_decile"] for p in r["curve"][:points]] for r in own], axis=0)
        axes.plot(steps, mean, label=title(name), markersize=5, linewidth=1.3, **style(name))
        lines += [[title(name), s, m, w] for s, m, w in zip(steps, mean, worst, strict=True)]
    largest = max((line[1] for line in lines), default=1)
    axes.set_xscale("symlog", linthresh=10, linscale=0.4)
    axes.set_xlim(-1, max(largest, 10) * 2)
    axes.set(xlabel="steps spent on a new agent", ylabel="return of the mean agent")
    axes.legend(fontsize=8)
    return lines


def curves(results: list[Result]) -> Figure:
    """Return against steps spent on a new agent."""
    figure, axes = canvas()
    lines = draw_curves(axes, results)
    text = (
        "Returns with a new agent, by the number of steps with it. Left edge: no step with it. The scale is "
        "logarithmic from 10 steps on."
    )
    names = ["method", "steps", "mean", "worst_decile"]
    return Figure("curves", "Steps with a new agent", text, as_bytes(figure), names, lines)


def budgets(rows: list[Row]) -> Figure | None:
    """Welfare against the number of policies, by r-MDP's code from 1 to n; groups that are given apart."""
    learned = [
        r for r in rows if r["name"] in ("single", "rmdp", "per_agent") or r["name"].startswith("rmdp_k")
    ]
    learned = sorted(learned, key=lambda row: row["policies"])
    if len(learned) < 2:
        return None
    given = [row for row in rows if row["name"] == "per_group"]
    figure, axes = canvas()
    for shown, name, more in ((learned, "rmdp", ""), (given, "per_group", ", by group")):
        for key, label, line, fill in (
            ("mean", "mean agent", "-", "full"),
            ("worst_decile", "worst tenth", "--", "none"),
        ):
            policies = [row["policies"] for row in shown]
            values = [row[key] for row in shown]
            errors = [row[f"se_{key}"] or 0.0 for row in shown]
            look = style(name) | {"linestyle": line, "fillstyle": fill, "capsize": 3, "markersize": 6}
            if shown:
                axes.errorbar(policies, values, errors, label=label + more, **look)
    k = sorted({row["policies"] for row in learned + given})
    axes.set_xscale("log")
    axes.set_xticks(k, [f"{int(j)}" for j in k])
    axes.minorticks_off()
    axes.set(xlabel="policies that may be kept", ylabel="return")
    axes.legend(fontsize=8)
    names = ["method", "policies", "mean", "se_mean", "worst_decile", "se_worst_decile"]
    lines = [
        [row["method"], int(row["policies"]), *(row[name] for name in names[2:])] for row in learned + given
    ]
    text = (
        "Returns by the number of policies that have to be checked and certified. One policy for all is at "
        "the left, one for each agent at the right, r-MDP between; all are trained by the same code."
    )
    text += " Apart from these: one policy for each of the groups that are known." if given else ""
    return Figure("budgets", "Welfare against the budget of policies", text, as_bytes(figure), names, lines)


def draw_learning(axes: Any, results: list[Result]) -> list[list]:
    """Return against steps of training; the points drawn."""
    lines = []
    for name in main_methods(results):
        own = of(results, name)
        points = min(len(r["learning"]) for r in own)  # the last is what the table has
        cut = [[*r["learning"][: points - 1], r["learning"][-1]] for r in own]
        steps, mean, worst = (
            np.mean([[p[key] for p in points] for points in cut], axis=0)
            for key in ("steps", "mean", "worst_decile")
        )
        axes.plot(steps, mean, label=title(name), markersize=4, linewidth=1.3, **style(name))
        if len(own) > 1:
            spread = np.std([[p["mean"] for p in points] for points in cut], axis=0, ddof=1) / len(own) ** 0.5
            axes.fill_between(steps, mean - spread, mean + spread, color=style(name)["color"], alpha=0.15)
        lines += [[title(name), s, m, w] for s, m, w in zip(steps, mean, worst, strict=True)]
    axes.set_xlim(left=-0.02 * max((line[1] for line in lines), default=1))  # marks at 0 are whole
    axes.ticklabel_format(axis="x", style="sci", scilimits=(0, 0), useMathText=True)
    axes.set(xlabel="steps of training, all agents together", ylabel="return of the mean agent")
    return lines


def learning(results: list[Result]) -> Figure:
    """Return against steps of training."""
    figure, axes = canvas()
    lines = draw_learning(axes, results)
    axes.legend(fontsize=7.5)
    text = (
        "What the agents would get if training stopped there, up to the budget: one episode of each, and at "
        "the end the whole test. Shades: the standard error over seeds."
    )
    names = ["method", "train_steps", "mean", "worst_decile"]
    return Figure("learning", "Steps of training", text, as_bytes(figure), names, lines)


def quantiles(results: list[Result]) -> Figure:
    """Returns of all agents, sorted."""
    figure, axes = canvas()
    lines = []
    for name in main_methods(results):
        each = np.mean([np.sort(r["returns"]) for r in of(results, name)], axis=0)
        share = (np.arange(len(each)) + 0.5) / len(each) * 100
        axes.plot(share, each, label=title(name), linewidth=1.5, color=style(name)["color"])
        lines += [[title(name), s, v] for s, v in zip(share, each, strict=True)]
    axes.set(xlabel="per cent of the agents, lowest return first", ylabel="return of an agent")
    axes.legend(fontsize=8)
    text = (
        "All agents in the order of their returns, mean over seeds. Where a line dips at the left, some "
        "agents have low returns."
    )
    names = ["method", "per_cent_of_agents", "return"]
    return Figure("agents", "Return of each agent", text, as_bytes(figure), names, lines)


def plane(problem: Problem) -> tuple[np.ndarray, list[str]]:
    """Two coordinates [n, 2] of the agents and what they are called."""
    found = scalars(problem)
    values = np.array(list(found.values()), float).T
    if values.shape[1] == 1:
        return np.column_stack([values[:, 0], np.arange(len(values))]), [*found, "number of the agent"]
    if values.shape[1] == 2:
        return values, list(found)
    spread = values.std(0)
    scaled = (values - values.mean(0)) / np.where(spread > 0, spread, 1.0)
    _, _, axes = np.linalg.svd(scaled, full_matrices=False)
    return scaled @ axes[:2].T, ["first principal axis of the parameters", "second principal axis"]


def clusters(problem: Problem, results: list[Result]) -> Figure | None:
    """Agents in the plane of their parameters, coloured by the policy they are assigned to."""
    named = ("per_group", "rmdp", "caml")
    shown = [name for name in named if any(r["groups"] for r in of(results, name))]
    if not shown:
        return None
    where, axis_names = plane(problem)
    size = (SIZE[0], 2.6 * len(shown) + 0.5)
    figure, panels = canvas(len(shown), size=size, squeeze=False, sharex=True)
    lines = []
    for axes, name in zip(panels.flat, shown, strict=True):
        first = min(of(results, name), key=lambda r: r["seed"])
        groups = np.array(first["groups"])
        sizes = np.bincount(groups)
        for number, j in enumerate(np.argsort(-sizes)[: (sizes > 0).sum()]):
            own, colour = groups == j, GROUPS[number % len(GROUPS)]
            axes.scatter(*where[own].T, s=18, color=colour)
        axes.set_ylabel(axis_names[1], fontsize=9)
        axes.set_title(f"{title(name)}: {grouped(sizes)}", fontsize=9)
        lines += [[title(name), first["seed"], i, *where[i], groups[i]] for i in range(problem.num_agents)]
    panels[-1, 0].set_xlabel(axis_names[0], fontsize=9)
    text = (
        "Each point is an agent, placed by its true parameters, which r-MDP and CAML are not given. Agents "
        "of one colour share a policy, or the medoid of CAML that they start from (first seed)."
    )
    names = ["method", "seed", "agent", *axis_names, "group"]
    return Figure("clusters", "Who shares a policy", text, as_bytes(figure), names, lines)


def grouped(sizes: np.ndarray) -> str:
    """How many agents groups have, the largest first."""
    some = [f"{size}" for size in sorted(sizes[sizes > 0], reverse=True)]
    if len(some) == 1:
        return f"all {some[0]} agents"
    return f"{len(some)} groups of " + ", ".join(some[:6] + ["…"] * (len(some) > 6))


def maps(problem: Problem, results: list[Result]) -> Figure:
    """Agents in the plane of their parameters, coloured by what they get from each method."""
    shown = main_methods(results)
    where, axis_names = plane(problem)
    each = {name: np.mean([r["returns"] for r in of(results, name)], axis=0) for name in shown}
    low, high = min(v.min() for v in each.values()), max(v.max() for v in each.values())
    lines_of = -(-len(shown) // 2)
    size = (SIZE[0], 1.9 * lines_of + 0.8)
    figure, panels = canvas(lines_of, 2, size=size, squeeze=False, sharex=True, sharey=True)
    for axes, name in zip(panels.flat, shown, strict=False):
        colours = {"c": each[name], "vmin": low, "vmax": high + (high == low), "cmap": "viridis"}
        points = axes.scatter(*where.T, s=12, **colours)
        axes.set_title(title(name), fontsize=9)
    for axes in panels.flat[len(shown) :]:
        axes.axis("off")
    figure.supxlabel(axis_names[0], fontsize=9)
    figure.supylabel(axis_names[1], fontsize=9)
    figure.colorbar(points, ax=panels, location="top", shrink=0.8, label="return of the agent")
    names = ["agent", *axis_names, *(title(name) for name in shown)]
    lines = [[i, *where[i], *(each[name][i] for name in shown)] for i in range(problem.num_agents)]
    text = "The same plane, coloured by the return of each agent: bright is high, dark is low."
    return Figure("maps", "Returns over the population", text, as_bytes(figure), names, lines)


def summary(results: list[Result], rows: list[Row]) -> bytes:
    """Returns of each method, by steps of training, and by steps with a new agent, side by side, as PNG."""
    figure, (left, middle, right) = canvas(1, 3, size=(13, 3.6))
    draw_gains(left, results, rows)
    draw_learning(middle, results)
    draw_curves(right, results)
    return as_bytes(figure, "png")


def all_figures(problem: Problem, results: list[Result], rows: list[Row]) -> list[Figure]:
    """Those that the results allow, in reading order."""
    made = [gains(results, rows), learning(results), curves(results), budgets(rows), quantiles(results)]
    made += [clusters(problem, results), maps(problem, results)]
    return [figure for figure in made if figure is not None]
