"""Rows of an evaluation, and the tables that are printed."""

from typing import Any

import numpy as np
from scipy.stats import spearmanr

from common.evaluation import Row, row
from persim.simulator import Simulator
from persim.testing import prediction
from persim.testing.prediction import PredictionTask

PATHS, PANELS = 3, 5  # drawn for each agent, and agents drawn
TOLD = 5  # agents of whom most windows are flagged
SHOWN = 25  # agents in the printed table
PARTS = {
    "flagged": "windows that are flagged",
    "trusted": "windows that are not flagged",
    "at_walls": "windows at walls",
    "away_from_walls": "windows away from walls",
}
OF_TRUST = (
    "spread",
    "flagged",
    "flagged_of_bad",
    "flagged_of_good",
    "out_of_range",
    "state_out_of_range",
    *(f"median_r2_{kind}" for kind in PARTS),
)


def labels(parameters: dict[str, np.ndarray]) -> list[str]:
    """What agents are called: their covariates."""
    return [
        ", ".join(f"{value:.4g}" for value in values) for values in zip(*parameters.values(), strict=True)
    ]


class Rows:
    """Makes rows of one run, whose simulators are the `method`."""

    def __init__(self, dataset: str, method: str) -> None:
        self.dataset, self.method = dataset, method

    def row(self, metric: str, values: Any, method: str = "", **columns: Any) -> Row:
        """A row of this dataset, by default of this method; see `common.evaluation.row`."""
        return row(method or self.method, metric, values, dataset=self.dataset, **columns)

    def predictions(
        self,
        labels: list[str],
        task: PredictionTask,
        predicted: np.ndarray,
        upper_bound: np.ndarray | None = None,
    ) -> list[Row]:
        """Rows on the simulators, on the bound that their first step leaves if given, and on a constant."""
        rows, medians = [], []
        found = {"": prediction.score(task, predicted)}
        if upper_bound is not None:
            found["upper_bound"] = prediction.score(task, upper_bound)
        found["mean"] = prediction.score(task, prediction.best_constant(task))
        for method, (rmse, r2) in found.items():
            for a, label in enumerate(labels):
                error, fit = (values[a][np.isfinite(values[a])] for values in (rmse, r2))
                median = np.median(fit) if len(fit) else []
                rows.append(self.row("median_r2", median, method, agent=label, trajectories=len(fit)))
                rows.append(self.row("rmse", error, method, agent=label))
                medians += [] if method else [median]
        for a, label in enumerate(labels[:PANELS]):
            lengths = task.counts[a, :PATHS].sum(1)
            true, own = (
                [path[:n].tolist() for path, n in zip(paths[a], lengths, strict=False)]
                for paths in (task.states[:, :, 1:], predicted)
            )
            rows.append(self.row("paths", lengths, agent=label, true=true, predicted=own))
        return [self.row("median_r2", np.hstack(medians)), *rows]

    def returns(
        self, method: str, labels: list[str], returns: np.ndarray, metric: str = "return"
    ) -> list[Row]:
        """Rows on planning, `returns` [agents, episodes] or another metric; `sd` is over episodes."""
        rows = [self.row(metric, returns.mean(0), method)]
        for label, values in zip(labels, returns, strict=True):
            rows.append(self.row(metric, values, method, agent=label, sd=float(values.std())))
        return rows

    def factors(self, simulator: Simulator, covariates: dict[str, np.ndarray]) -> list[Row]:
        """How well each covariate is read off the learned factors: rank correlation with the best linear map.

        Values are one for each active member; `points` are the first one's.
        """
        factors = simulator.factors().detach()[simulator.active_members].double().numpy()
        rows = []
        for name, values in covariates.items():
            read = np.stack([linear_readout(own, values) for own in factors])
            found = [spearmanr(own, values).statistic for own in read]
            points = np.stack([values, read[0]], axis=1).tolist()
            rows.append(self.row("factor_correlation", found, covariate=name, points=points))
        return rows

    def unseen(self, method: str, task: PredictionTask, predicted: np.ndarray) -> Row:
        """The median R² of each agent that is in no data; `lowest` is the worst agent's."""
        r2 = np.nanmedian(prediction.score(task, predicted)[1], axis=1)
        return self.row("unseen_median_r2", r2, method, lowest=float(r2.min()))


def linear_readout(factors: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The linear function (with a constant) of `factors` [n, r] that is nearest to `values` [n]."""
    inputs = np.concatenate([factors, np.ones((len(factors), 1))], axis=1)
    return inputs @ np.linalg.lstsq(inputs, values, rcond=None)[0]


def show(rows: list[Row]) -> None:
    """Print a table of the agents for each kind of simulators, and what is about all of them."""
    for method in [r["method"] for r in rows if r["metric"] == "median_r2" and "agent" not in r]:
        show_agents(rows, method)
    show_trust(rows)
    told = ("median_r2", "rmse", "return", "paths", "factor_correlation", "unseen_median_r2", *OF_TRUST)
    for r in rows:
        if r["metric"] not in told and "agent" not in r:
            at = f", pessimism {r['pessimism']:g}" if "pessimism" in r else ""
            print(f"{r['metric'].replace('_', ' ')}{at}: {r['mean']:.1f}")
        if r["metric"] in ("factor_correlation", "unseen_median_r2"):
            what = r.get("covariate") or f"{r['method'].replace('_', ' ')}, worst agent {r['lowest']:.3f}"
            print(f"{r['metric'].replace('_', ' ')} ({what}): {r['mean']:.3f}")


def show_trust(rows: list[Row]) -> None:
    """Print how many windows are flagged, why and whose, and how well each kind of windows is predicted."""
    for r in (r for r in rows if r["metric"] == "flagged" and "agent" not in r):
        same = [other for other in rows if other["method"] == r["method"]]
        outside = next(other["mean"] for other in same if other["metric"] == "out_of_range")
        print(
            f"{r['method']}: {100 * r['mean']:.3g} % of {r['n']} windows are not to be trusted, "
            f"{100 * outside:.3g} % leave the range of training"
        )
        for state in (other for other in same if other["metric"] == "state_out_of_range"):
            share, spans = 100 * state["mean"], state["spans"]
            print(f"  {state['state']}: in {share:.3g} %, by up to {spans:.2g} times what training spanned")
        for metric, what in (("flagged_of_bad", "below .5"), ("flagged_of_good", "above .95")):
            for part in (other for other in same if other["metric"] == metric and other["n"]):
                print(f"  flagged are {100 * part['mean']:.3g} % of {part['n']} windows with an R2 {what}")
        own = [other for other in same if other["metric"] == "flagged" and "agent" in other]
        worst = sorted((one for one in own if one["mean"]), key=lambda one: -one["mean"])[:TOLD]
        if worst:
            shares = ", ".join(f"{one['agent']} {100 * one['mean']:.3g} %" for one in worst)
            print(f"  most of agents {shares}")
    for kind, what in PARTS.items():
        for r in rows:
            if r["metric"] == f"median_r2_{kind}" and "agent" not in r and r["windows"]:
                print(f"{r['method']}: median R2 of {r['windows']} {what}: {r['mean']:.4g}")


def show_agents(rows: list[Row], own: str) -> None:
    """Print a line for each agent that the method `own` was tested on."""
    columns = {
        "median R2": ("median_r2", own),
        "upper bound": ("median_r2", "upper_bound"),
        "RMSE": ("rmse", own),
        "return": ("return", own),
        "true model": ("return", "true_model"),
    }
    found = {(r["metric"], r["method"], r.get("agent")): r["mean"] for r in rows}
    if any(r["method"] == "learned" for r in rows):
        columns["return"] = ("return", "learned")
    agents = [r["agent"] for r in rows if (r["metric"], r["method"]) == ("median_r2", own) and "agent" in r]
    print(f"{rows[0]['dataset']}, {own}")
    print(f"{'agent':16s}" + "".join(f"{head:>13s}" for head in columns))
    for agent in agents[:SHOWN]:
        cells = [found.get((*column, agent)) for column in columns.values()]
        print(f"{agent:16s}" + "".join(f"{'-':>13s}" if c is None else f"{c:13.4g}" for c in cells))
    if len(agents) > SHOWN:
        print(f"and {len(agents) - SHOWN} more, in the rows")
