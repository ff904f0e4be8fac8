"""Rows of an evaluation, and the table that is printed."""

import numpy as np
import torch

from caml.clustering import attainable_rand_index, scores, silhouette
from caml.divergence_study import Snapshot
from caml.learner import Learner
from common.evaluation import EVALUATION, Row, row, standard_error
from common.runs.seeding import stream

METRICS = ("return", "last_reward")  # the sum over an episode, and the quantity of the paper's Figure 1


def adaptation(method: str, curve: np.ndarray, query: np.ndarray) -> list[Row]:
    """Rows from `curve [metrics, updates + 1, agents, repeats]`; `se` over repeats, for "all" over agents."""
    rows = []
    for m, u in np.ndindex(curve.shape[:2]):
        values = curve[m, u]
        rows.append(row(method, METRICS[m], values.mean(1), update=u, agent="all"))
        for agent, own in zip(query.tolist(), values, strict=True):
            rows.append(row(method, METRICS[m], own, update=u, agent=agent))
    return rows


def end_points(method: str, ends: np.ndarray, groups: np.ndarray, target: float) -> Row:
    """Where particles ended after the last update `[n, 2]`; the mean is the distance from the target."""
    columns = {"points": ends.round(4).tolist(), "groups": groups.tolist(), "target": target}
    distances = np.hypot(*(ends - target).T)
    found = row(method, "end_points", distances, **columns)
    # In single precision, as the rows that are stored.
    return {**found, "mean": float(distances.mean()), "se": standard_error(distances)}


def medoids(learner: Learner, groups: np.ndarray, seed: int) -> list[Row]:
    """How well a run's medoids divide its pool by the agents' `groups [n]`: each policy goes to the nearest
    medoid.
    """
    k = len(learner.medoids["agent"])
    saved = {name: torch.cat([learner.medoids[name], value]) for name, value in learner.pool.items()}
    divergences = learner.divergences(saved, stream(seed, "assignment", EVALUATION))
    labels = divergences[:k, k:].argmin(0)
    group = groups[saved["agent"].long().numpy()]
    found = scores(labels, group[k:]) | {"silhouette": silhouette(divergences[k:, k:], labels)}
    found["groups_covered"] = len(set(group[:k].tolist()))
    return [row("caml", f"medoids_{name}", [value]) for name, value in found.items()]


def study(snapshots: list[Snapshot], groups: np.ndarray, told_apart: np.ndarray) -> list[Row]:
    """Rows of the divergence study, one policy from scratch for each agent: scores, rewards and maps."""
    rows, best = [], attainable_rand_index(groups, told_apart)
    for snapshot in snapshots:
        at = {"update": snapshot.update}
        rows += [row("scratch", name, [value], **at) for name, value in snapshot.scores.items()]
        rows.append(row("scratch", "attainable_rand_index", [best], **at))
        rows.append(row("scratch", "study_last_reward", snapshot.last_rewards, **at))
        points = embedding(snapshot.divergences)
        columns = {"points": points.round(3).tolist(), "groups": groups.tolist()}
        rows.append(row("scratch", "embedding", snapshot.divergences.mean(1), **columns, **at))
    return rows


def embedding(divergences: np.ndarray) -> np.ndarray:
    """t-SNE `[P, 2]` of divergences `[P, P]`; neighbourhoods of about five, as groups have four members."""
    from sklearn.manifold import TSNE

    perplexity = min(5.0, (len(divergences) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, metric="precomputed", init="random", random_state=0)
    return tsne.fit_transform(divergences)


def show(rows: list[Row]) -> None:
    """Print the mean over query agents after each update, then the scores of clusters."""
    adapted = [row for row in rows if row.get("agent") == "all"]
    methods = list(dict.fromkeys(row["method"] for row in adapted))
    updates = sorted({row["update"] for row in adapted})
    steps = {row["method"]: row["mean"] for row in rows if row["metric"] == "env_steps"}
    for metric in METRICS:
        print(f"{metric:18s}" + "".join(f"{f'u{u}':>9s}" for u in updates) + f"{'trained for':>16s}")
        for method in methods:
            line = [r["mean"] for r in adapted if (r["metric"], r["method"]) == (metric, method)]
            print(
                f"  {method:16s}"
                + "".join(f"{value:9.3f}" for value in line)
                + f"{steps[method]:10.0f} steps"
            )
    for r in rows:
        if r["metric"].startswith("medoids_"):
            print(f"{r['metric']:42s}{r['mean']:7.2f}")
    study = [r for r in rows if r["method"] == "scratch"]
    for name in ("adjusted_rand_index", "attainable_rand_index", "study_last_reward"):
        if line := [f"u{r['update']} {r['mean']:.3f}" for r in study if r["metric"] == name]:
            print(f"{name:24s}" + "   ".join(line))
