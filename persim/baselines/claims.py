"""What PerSim's paper says of its tables (section 6), counted in ours by dataset and agent."""

from typing import Any

import numpy as np

UPPER_BOUND = "true_model"  # no method, but what a perfect simulator would give
NEAR = 0.05  # of the best return, as a part of it
CADM = ("cadm", "cadm_pets")
Means = dict[str, dict[tuple[str, str], float]]  # {method: {(dataset, agent)}}


def means_of(found: dict[Any, dict[str, list[float]]]) -> Means:
    """Means over repeats of values {(dataset, method): {agent: [repeat]}}."""
    means: Means = {}
    for (dataset, method), values in found.items():
        own = means.setdefault(method, {})
        own |= {(dataset, agent): float(np.mean(repeats)) for agent, repeats in values.items()}
    return means


def as_lines(environment: str, returns: Means, rmse: Means, r2: Means) -> list[str]:
    """A list of what holds in how many cases of the tables; empty where one of them lacks PerSim."""
    if not all("persim" in metric for metric in (returns, rmse, r2)):
        return []
    lines = [f"### What the paper says, in numbers: {environment}", ""]
    lines += predictions(rmse, r2) + rewards(returns)
    return [*lines, ""]


def predictions(rmse: Means, r2: Means) -> list[str]:
    """Lines on errors of prediction."""
    lines: list[str] = []
    own = rmse["persim"]
    others = [rmse[method] for method in CADM if method in rmse]
    if shared := [cell for cell in own if others and all(cell in other for other in others)]:
        times = [min(other[cell] for other in others) / own[cell] for cell in shared]
        better = f"PerSim's RMSE is lower than CaDM's in {sum(t > 1 for t in times)} of {len(times)} cases"
        lines.append(
            f"- {better}; that of the better CaDM is {min(times):.3g} to {max(times):.3g} times as high."
        )
    below = [f"{sum(v < 0 for v in own.values())} of {len(own)} ({name})" for name, own in r2.items()]
    lowest = min(r2["persim"].values())
    return [
        *lines,
        f"- Median R² is below zero in {', '.join(below)} cases; PerSim's lowest is {lowest:.4g}.",
    ]


def rewards(returns: Means) -> list[str]:
    """Lines on returns."""
    lines: list[str] = []
    own = returns["persim"]
    best = {cell: max(r[cell] for m, r in returns.items() if m != UPPER_BOUND and cell in r) for cell in own}
    near = sum(own[cell] >= best[cell] - NEAR * abs(best[cell]) for cell in own)
    highest = sum(own[cell] >= best[cell] for cell in own)
    lines.append(
        f"- PerSim returns most in {highest} of {len(own)} cases, within {NEAR:.0%} of that in {near}."
    )
    true = {agent: value for (_, agent), value in returns.get(UPPER_BOUND, {}).items()}
    if not (apart := [(own[d, a] - true[a]) / abs(true[a]) for d, a in own if a in true]):
        return lines
    lines.append(f"- It returns {min(apart):+.1%} to {max(apart):+.1%} beside planning on the true dynamics.")
    for agent, value in true.items():
        above = [
            f"{method} ({', '.join(datasets)})"
            for method, other in returns.items()
            if method != UPPER_BOUND
            if (datasets := [d for d, a in other if a == agent and other[d, a] > value + NEAR * abs(value)])
        ]
        who = ", ".join(above) or "no method"
        lines.append(f"- More than that, by over {NEAR:.0%}, returns agent {agent}: {who}.")
    return lines
