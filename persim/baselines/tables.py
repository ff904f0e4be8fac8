"""Tables and the figure of PerSim and its baselines, from the rows of `experiments.persim_baselines`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.evaluation import Row
from common.plots import figure, save
from common.runs.files import write_atomic
from persim.baselines import claims
from persim.baselines.claims import UPPER_BOUND
from persim.config import Config

FILE, OLD_FILE = "baselines.json", "opponents.json"
COLUMNS = ["environment", "dataset", "method", "repeat", "agent", "metric", "value"]
METRICS = {"return": "Return", "rmse": "RMSE of 50 steps ahead", "median_r2": "Median R² of 50 steps ahead"}
BEST = {"return": max, "rmse": min, "median_r2": max}


def find(folder: Path) -> Path | None:
    """The file of a table in `folder`, under its present or its old name; None if there is none."""
    return next((folder / name for name in (FILE, OLD_FILE) if (folder / name).is_file()), None)


def read(folder: Path) -> dict[str, Any]:
    """What `write` wrote in `folder`: `budgets` and `rows`."""
    path = find(folder) or folder / FILE
    try:
        report = json.loads(path.read_text())
        if not all(set(COLUMNS) <= set(row) for row in report["rows"]) or not report["rows"]:
            raise ValueError("rows lack columns, or there are none")
        today = Config.VALUE_ALIASES["environment"]
        rows = [
            {**row, "environment": today.get(row["environment"], row["environment"])}
            for row in report["rows"]
        ]
        return {"budgets": dict(report["budgets"]), "rows": rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        text = f"not a table of baselines ({error}); delete it and run the command that made it again"
        raise UserError(f"{path}: {text}") from None


def write(folder: Path, report: dict[str, Any]) -> None:
    """Write the data, a row a line, and the table in Markdown."""
    rows = ",\n".join(json.dumps(row) for row in report["rows"])
    text = f'{{"budgets": {json.dumps(report["budgets"])},\n"rows": [\n{rows}\n]}}\n'
    write_atomic(folder / FILE, text.encode())
    write_atomic(folder / "baselines.md", as_markdown(report).encode())


def show(folder: Path, plot: str = "") -> None:
    """Print the table that is in `folder`, and draw its figure there, or at `plot`."""
    report = read(folder)
    print(as_markdown(report))
    path = plot or folder / "baselines.png"
    draw(report, path)
    print(f"figure: {path}")


def grouped(rows: list[Row], metric: str, environment: str) -> dict[tuple, dict[str, list[float]]]:
    """Values over repeats of each (dataset, method) and agent."""
    found: dict[tuple, dict[str, list[float]]] = {}
    for row in rows:
        if (row["metric"], row["environment"]) == (metric, environment):
            own = found.setdefault((row["dataset"], row["method"]), {})
            own.setdefault(row["agent"], []).append(row["value"])
    return found


def as_markdown(report: dict[str, Any]) -> str:
    """A table for each metric and environment: datasets and methods down, agents across."""
    rows: list[Row] = report["rows"]
    lines: list[str] = []
    for metric, title in METRICS.items():
        for environment in dict.fromkeys(row["environment"] for row in rows):
            found = grouped(rows, metric, environment)
            if not found:
                continue
            agents = list(dict.fromkeys(agent for values in found.values() for agent in values))
            lines += [f"### {title}: {environment}", "", f"| data | method | {' | '.join(agents)} | mean |"]
            lines.append("|---|---|" + "---|" * (len(agents) + 1))
            for dataset in dict.fromkeys(dataset for dataset, _ in found):
                lines += of_dataset(found, dataset, agents, BEST[metric])
            lines.append("")
    for environment in dict.fromkeys(row["environment"] for row in rows):
        means = [claims.means_of(grouped(rows, metric, environment)) for metric in METRICS]
        lines += claims.as_lines(environment, *means)
        lines += comparisons(means[0], environment)
    lines += ["Mean ± standard deviation over repeats; bold: the best of its dataset.", ""]
    budgets = ", ".join(f"{name} {value}" for name, value in report["budgets"].items())
    return "\n".join([*lines, f"Budgets: {budgets}.", "", f"Seeds: {seeds(rows)}.", ""])


def seeds(rows: list[Row]) -> str:
    """Which seeds which methods have, in words; those with the same are named together."""
    alike: dict[str, list[str]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = sorted({row["repeat"] for row in rows if row["method"] == method})
        alike.setdefault(", ".join(map(str, own)), []).append(method)
    return "; ".join(f"{own} ({', '.join(methods)})" for own, methods in alike.items())


def comparisons(returns: claims.Means, environment: str) -> list[str]:
    """A table of how often one method's return is above another's, over datasets and agents."""
    means = {method: own for method, own in returns.items() if method != UPPER_BOUND}
    if len(means) < 2:
        return []
    lines = [f"### Whose return is higher, of datasets and agents: {environment}", ""]
    lines += [f"| | {' | '.join(f'than {method}' for method in means)} |", "|---|" + "---|" * len(means)]
    for method, own in means.items():
        cells = []
        for other, theirs in means.items():
            both = own.keys() & theirs.keys()
            cells.append(f"{sum(own[c] > theirs[c] for c in both)} of {len(both)}" if other != method else "")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return [*lines, ""]


def of_dataset(
    found: dict[tuple, dict[str, list[float]]], dataset: str, agents: list[str], better: Callable
) -> list[str]:
    """The lines of one dataset, with the best of each column in bold."""
    own = {method: values for (of, method), values in found.items() if of == dataset}
    means = {
        method: [float(np.mean(values[a])) if a in values else np.nan for a in agents]
        for method, values in own.items()
    }
    means = {method: [*values, float(np.mean(values))] for method, values in means.items()}
    best = [better(column) for column in zip(*means.values(), strict=True)]
    lines = []
    for method, values in own.items():
        cells = [values.get(agent, []) for agent in agents]
        spreads = [f" ± {np.std(cell, ddof=1):.2g}" if len(cell) > 1 else "" for cell in cells] + [""]
        texts = [f"{mean:.4g}{spread}" for mean, spread in zip(means[method], spreads, strict=True)]
        if dataset != "none":
            pairs = zip(texts, means[method], best, strict=True)
            texts = [f"**{text}**" if mean == top else text for text, mean, top in pairs]
        lines.append(f"| {dataset} | {method} | {' | '.join(texts)} |")
    return lines


def draw(report: dict[str, Any], path: str | Path) -> None:
    """The returns as PNG: a panel for each environment and dataset, a group of bars for each agent."""
    from matplotlib import colormaps

    rows = report["rows"]
    environments = list(dict.fromkeys(row["environment"] for row in rows))
    datasets = list(dict.fromkeys(row["dataset"] for row in rows if row["method"] != UPPER_BOUND))
    methods = list(dict.fromkeys(row["method"] for row in rows if row["metric"] == "return"))
    drawn = figure(4.6 * len(datasets), 3.2 * len(environments))
    axes = drawn.subplots(len(environments), len(datasets), squeeze=False)
    colours = dict(zip(methods, (colormaps["tab20"](i) for i in range(20)), strict=False))
    for line, environment in zip(axes, environments, strict=True):
        found = grouped(rows, "return", environment)
        for panel, dataset in zip(line, datasets, strict=True):
            own = {m: found.get((dataset if m != UPPER_BOUND else "none", m), {}) for m in methods}
            agents = list(dict.fromkeys(agent for values in own.values() for agent in values))
            for i, (method, values) in enumerate(own.items()):
                place = np.arange(len(agents)) + (i - (len(own) - 1) / 2) * 0.8 / len(own)
                heights = [np.mean(values[a]) if a in values else np.nan for a in agents]
                spread = [np.std(values[a]) if a in values else 0 for a in agents]
                panel.bar(place, heights, 0.8 / len(own), yerr=spread, color=colours[method], label=method)
            fit_to_methods(panel, own)
            panel.set_xticks(range(len(agents)), agents, fontsize=7)
            panel.set_title(f"{environment}, {dataset}", fontsize=9)
        line[0].set_ylabel("return")
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    save(drawn, path)


def fit_to_methods(panel: Any, own: dict[str, dict[str, list[float]]]) -> None:
    """Cut bars of true dynamics that would dwarf all methods, and write on those what they return."""
    others = [values.values() for method, values in own.items() if method != UPPER_BOUND]
    methods = [float(np.mean(repeats)) for values in others for repeats in values]
    if not methods:
        return
    low, high = min(0.0, *methods), max(0.0, *methods)
    margin = 0.3 * (high - low)
    for agent, repeats in enumerate(own.get(UPPER_BOUND, {}).values()):
        if (value := np.mean(repeats)) > high + margin:
            panel.set_ylim(low - margin, high + margin)
            place = (agent - 0.4, high + margin)  # left of the bar
            panel.text(*place, f"{value:,.0f} ", rotation=90, fontsize=6, va="top", ha="right")
