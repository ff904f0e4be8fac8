"""Tables of experiments.caml_study, made from its rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import t

from common.evaluation import Row, as_markdown
from experiments.tables import mean_and_se

SHOWN = (0, 1, 5)  # updates
CONFIDENCE = 0.95
DIGITS = {"last_reward": 3, "return": 1}


def markdown(studies: list[Row], shots: list[Row]) -> str:
    """All tables."""
    shown = [u for u in SHOWN if any(shot["update"] == u for shot in shots)]
    parts = [study_table(studies), *(few_shot_table(shots, m, shown) for m in ("last_reward", "return"))]
    parts += [difference_table(shots, metric, shown) for metric in ("last_reward", "return")]
    return "\n".join([*parts, share_table(shots, shown)])


def study_table(rows: list[Row]) -> str:
    """Adjusted Rand index and reward of the last step by population and update; beside each what overlap and
    physics allow at most. Means over seeds, and the lowest seed's index.
    """
    updates = sorted({row["update"] for row in rows})
    head = ["population", *(f"ARI at {u}" for u in updates), "ARI at most"]
    head += [*(f"reward at {u}" for u in updates), "at most"]
    body = []
    for name in dict.fromkeys(row["population"] for row in rows):

        def of(column: str, update: int | None = None, name: str = name) -> np.ndarray:
            own = [row for row in rows if row["population"] == name and update in (None, row["update"])]
            return np.array([row[column] for row in own])

        scores = [of("adjusted_rand_index", u) for u in updates]
        body.append(
            [
                name,
                *(f"{score.mean():.2f} (min {score.min():.2f})" for score in scores),
                f"{of('attainable_index').mean():.2f}",
                *(f"{of('last_reward', u).mean():.3f}" for u in updates),
                f"{of('attainable_reward').mean():.3f}",
            ]
        )
    return table("Divergence study: K-medoids against latent groups", head, body)


def few_shot_table(shots: list[Row], metric: str, updates: Sequence[int]) -> str:
    """Mean over query agents and seeds with a confidence interval over seeds, by method and update."""
    head = ["method", *(f"update {u}" for u in updates), "environment steps of training"]
    body = []
    for method in methods_of(shots):
        texts = [interval(of(shots, method, metric, u), DIGITS[metric]) for u in updates]
        steps = np.mean([shot["env_steps"] for shot in shots if shot["method"] == method])
        body.append([method.replace("_", " "), *texts, f"{steps / 1e6:.2f} million"])
    return table(f"{metric}: mean over query agents, {CONFIDENCE:.0%} interval over seeds", head, body)


def difference_table(shots: list[Row], metric: str, updates: Sequence[int]) -> str:
    """What CAML is ahead of each method: populations are the same, so differences are taken seed by seed."""
    head, body = ["caml ahead of", *(f"update {u}" for u in updates)], []
    for method in methods_of(shots)[1:]:
        pairs = [(of(shots, "caml", metric, u), of(shots, method, metric, u)) for u in updates]
        body.append(
            [method.replace("_", " "), *(interval(np.subtract(*pair), DIGITS[metric]) for pair in pairs)]
        )
    return table(f"{metric}: difference to caml, {CONFIDENCE:.0%} interval over seeds", head, body)


def share_table(shots: list[Row], updates: Sequence[int]) -> str:
    """How far from random initialisation to pretraining on the same agent each method is."""
    head, body = ["method", *(f"update {u}" for u in updates)], []
    methods = methods_of(shots)
    if not {"random", "same_agent"} <= set(methods):
        return ""
    for method in methods:
        texts = []
        for u in updates:
            low, value, high = (
                np.mean(of(shots, name, "return", u)) for name in ("random", method, "same_agent")
            )
            texts.append(f"{(value - low) / (high - low):.2f}")
        body.append([method.replace("_", " "), *texts])
    return table("Share of the way from random to same-agent in return", head, body)


def pooled(shots: list[Row]) -> list[Row]:
    """Rows as of an evaluation whose standard error is over seeds."""
    rows = []
    for method, metric, u in dict.fromkeys((s["method"], s["metric"], s["update"]) for s in shots):
        values = of(shots, method, metric, u)
        mean, se = mean_and_se(values)
        row = {"method": method, "metric": metric, "mean": mean, "n": len(values)}
        rows.append({**row, "se": float(np.nan_to_num(se)), "update": u, "agent": "all"})
    return rows


def methods_of(shots: list[Row]) -> list[str]:
    """The methods in order, CAML first."""
    return list(dict.fromkeys(shot["method"] for shot in shots))


def of(shots: list[Row], method: str, metric: str, update: int) -> list[float]:
    """The means of all seeds."""
    wanted = {"method": method, "metric": metric, "update": update}
    return [shot["mean"] for shot in shots if wanted.items() <= shot.items()]


def interval(values: Any, digits: int) -> str:
    """Mean ± half the width of the confidence interval (Student's t)."""
    mean, se = mean_and_se(values)
    width = t.ppf((1 + CONFIDENCE) / 2, max(len(values) - 1, 1)) * se
    return f"{mean:.{digits}f} ± {'-' if np.isnan(width) else f'{width:.{digits}f}'}"


def table(title: str, head: list[str], body: list[list[str]]) -> str:
    """A Markdown table under a heading."""
    return f"### {title}\n\n{as_markdown(head, body)}"
