"""Tables of experiments.caml_study, made from its rows."""

import numpy as np
from scipy.stats import t

from experiments.tables import mean_and_se

SHOWN = (0, 1, 5)  # updates
CONFIDENCE = 0.95
DIGITS = {"last_reward": 3, "return": 1}


def markdown(studies: list[list], shots: list[list]) -> str:
    """All tables."""
    shown = [u for u in SHOWN if any(shot[3] == u for shot in shots)]
    parts = [study_table(studies), *(few_shot_table(shots, m, shown) for m in ("last_reward", "return"))]
    parts += [difference_table(shots, metric, shown) for metric in ("last_reward", "return")]
    return "\n".join([*parts, way_table(shots, shown)])


def study_table(rows: list[list]) -> str:
    """Adjusted Rand index and reward of the last step by population and update; beside each what overlap and
    physics allow at most. Means over seeds, and the lowest seed's index.
    """
    updates = sorted({row[2] for row in rows})
    scores = [f"ARI at {u}" for u in updates] + ["ARI at most"]
    head = ["population", *scores, *(f"reward at {u}" for u in updates), "at most"]
    body = []
    for name in dict.fromkeys(row[0] for row in rows):
        own = np.array([row[2:] for row in rows if row[0] == name])
        at = [own[own[:, 0] == u] for u in updates]
        cells = [f"{a[:, 1].mean():.2f} (min {a[:, 1].min():.2f})" for a in at]
        cells += [f"{own[:, 2].mean():.2f}", *(f"{a[:, 3].mean():.3f}" for a in at)]
        body.append([name, *cells, f"{own[:, 4].mean():.3f}"])
    return table("Divergence study: K-medoids against latent groups", head, body)


def few_shot_table(shots: list[list], metric: str, updates) -> str:
    """Mean over query agents and seeds with a confidence interval over seeds, by method and update."""
    head = ["method", *(f"update {u}" for u in updates), "environment steps of training"]
    body = []
    for method in dict.fromkeys(shot[1] for shot in shots):
        cells = [interval(of(shots, method, metric, u), DIGITS[metric]) for u in updates]
        steps = np.mean([shot[5] for shot in shots if shot[1] == method])
        body.append([method.replace("_", " "), *cells, f"{steps / 1e6:.2f} million"])
    return table(f"{metric}: mean over query agents, {CONFIDENCE:.0%} interval over seeds", head, body)


def difference_table(shots: list[list], metric: str, updates) -> str:
    """What CAML is ahead of each method: populations are the same, so differences are taken seed by seed."""
    head, body = ["caml ahead of", *(f"update {u}" for u in updates)], []
    for method in list(dict.fromkeys(shot[1] for shot in shots))[1:]:
        pairs = [(of(shots, "caml", metric, u), of(shots, method, metric, u)) for u in updates]
        body.append(
            [method.replace("_", " "), *(interval(np.subtract(*pair), DIGITS[metric]) for pair in pairs)]
        )
    return table(f"{metric}: difference to caml, {CONFIDENCE:.0%} interval over seeds", head, body)


def way_table(shots: list[list], updates) -> str:
    """How far from random initialisation to pretraining on the same agent each method is."""
    head, body = ["method", *(f"update {u}" for u in updates)], []
    methods = list(dict.fromkeys(shot[1] for shot in shots))
    if not {"random", "same_agent"} <= set(methods):
        return ""
    for method in methods:
        cells = []
        for u in updates:
            low, value, high = (
                np.mean(of(shots, name, "return", u)) for name in ("random", method, "same_agent")
            )
            cells.append(f"{(value - low) / (high - low):.2f}")
        body.append([method.replace("_", " "), *cells])
    return table("Share of the way from random to same-agent in return", head, body)


def pooled(shots: list[list]) -> list[dict]:
    """Rows as of an evaluation whose standard error is over seeds."""
    rows = []
    for method, metric, u in dict.fromkeys(tuple(shot[1:4]) for shot in shots):
        values = of(shots, method, metric, u)
        mean, se = mean_and_se(values)
        row = {"method": method, "metric": metric, "mean": float(mean), "n": len(values)}
        rows.append(row | {"se": float(np.nan_to_num(se)), "update": u, "agent": "all"})
    return rows


def of(shots: list[list], method: str, metric: str, update: int) -> list[float]:
    """The means of all seeds."""
    return [shot[4] for shot in shots if shot[1:4] == [method, metric, update]]


def interval(values, digits: int) -> str:
    """Mean ± half the width of the confidence interval (Student's t)."""
    mean, se = mean_and_se(values)
    width = t.ppf((1 + CONFIDENCE) / 2, max(len(values) - 1, 1)) * se
    return f"{mean:.{digits}f} ± {'-' if np.isnan(width) else f'{width:.{digits}f}'}"


def table(title: str, head: list[str], body: list[list[str]]) -> str:
    """A Markdown table under a heading."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)]
    return "\n".join([f"### {title}", "", *lines, ""])
