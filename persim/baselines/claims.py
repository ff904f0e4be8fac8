"""What PerSim's paper says of its tables (section 6), counted in ours: over cells, a dataset and an agent."""

import numpy as np

BOUND = "true_model"  # no method, but what a perfect simulator would give
NEAR = 0.05  # of the best return, as a part of it
CADM = ("cadm", "cadm_pets")


def cells(found: dict) -> dict[str, dict[tuple[str, str], float]]:
    """Means over repeats {method: {(dataset, agent)}} of values {(dataset, method): {agent: [repeat]}}."""
    means = {}
    for (dataset, method), values in found.items():
        own = means.setdefault(method, {})
        own |= {(dataset, agent): float(np.mean(repeats)) for agent, repeats in values.items()}
    return means


def as_lines(environment: str, returns: dict, rmse: dict, r2: dict) -> list[str]:
    """A list of what holds in how many cells, from three of `cells`; none where one of them lacks PerSim."""
    if not all("persim" in metric for metric in (returns, rmse, r2)):
        return []
    lines = [f"### What the paper says, in numbers: {environment}", ""]
    lines += predictions(rmse, r2) + rewards(returns)
    return [*lines, ""]


def predictions(rmse: dict, r2: dict) -> list[str]:
    lines, own = [], rmse["persim"]
    rivals = [rmse[method] for method in CADM if method in rmse]
    if shared := [cell for cell in own if rivals and all(cell in rival for rival in rivals)]:
        times = [min(rival[cell] for rival in rivals) / own[cell] for cell in shared]
        better = f"PerSim's RMSE is lower than CaDM's in {sum(t > 1 for t in times)} of {len(times)} cells"
        lines.append(
            f"- {better}; that of the better CaDM is {min(times):.3g} to {max(times):.3g} times as high."
        )
    below = [f"{sum(v < 0 for v in own.values())} of {len(own)} ({name})" for name, own in r2.items()]
    lowest = min(r2["persim"].values())
    return [
        *lines,
        f"- Median R² is below zero in {', '.join(below)} cells; PerSim's lowest is {lowest:.4g}.",
    ]


def rewards(returns: dict) -> list[str]:
    lines, own = [], returns["persim"]
    best = {cell: max(r[cell] for m, r in returns.items() if m != BOUND and cell in r) for cell in own}
    near = sum(own[cell] >= best[cell] - NEAR * abs(best[cell]) for cell in own)
    highest = sum(own[cell] >= best[cell] for cell in own)
    lines.append(
        f"- PerSim returns most in {highest} of {len(own)} cells, within {NEAR:.0%} of that in {near}."
    )
    true = {agent: value for (_, agent), value in returns.get(BOUND, {}).items()}
    if not (apart := [(own[d, a] - true[a]) / abs(true[a]) for d, a in own if a in true]):
        return lines
    lines.append(f"- It returns {min(apart):+.1%} to {max(apart):+.1%} beside planning on the true dynamics.")
    for agent, value in true.items():
        above = [
            f"{method} ({', '.join(datasets)})"
            for method, rival in returns.items()
            if method != BOUND
            if (datasets := [d for d, a in rival if a == agent and rival[d, a] > value + NEAR * abs(value)])
        ]
        who = ", ".join(above) or "nobody"
        lines.append(f"- More than that, by over {NEAR:.0%}, returns agent {agent}: {who}.")
    return lines
