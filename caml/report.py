"""Rows of an evaluation, and the table that is printed."""

import numpy as np
import torch

from caml.clustering import attainable_rand_index, scores, silhouette
from caml.divergence import policy_divergences
from caml.policy import Policies
from common.runs.seeding import stream

METRICS = ("return", "last_reward")  # the sum over an episode, and the quantity of the paper's Figure 1


def row(method: str, metric: str, values, **columns) -> dict:
    """Mean and standard error of some values."""
    n = len(values)
    se = float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else None
    return {"method": method, "metric": metric, "mean": float(np.mean(values)), "se": se, "n": n, **columns}


def adaptation(method: str, curve, query) -> list[dict]:
    """Rows from `curve [metrics, updates + 1, types, repeats]`; `se` over repeats, for "all" over types."""
    rows = []
    for m, u in np.ndindex(curve.shape[:2]):
        values = curve[m, u]
        rows.append(row(method, METRICS[m], values.mean(1), update=u, entity_type="all"))
        for entity_type, own in zip(query.tolist(), values, strict=True):
            rows.append(row(method, METRICS[m], own, update=u, entity_type=entity_type))
    return rows


def end_points(method: str, ends, groups, target: float) -> dict:
    """Where particles ended after the last update `[n, 2]`; the mean is the distance from the target."""
    columns = {"points": ends.round(4).tolist(), "groups": groups.tolist(), "target": target}
    return row(method, "end_points", np.hypot(*(ends - target).T), **columns)


def medoids(config, state, types, seed: int) -> list[dict]:
    """How well the run's medoids divide its pool: each policy goes to the nearest medoid."""
    saved = {
        name: torch.cat([torch.as_tensor(value), torch.as_tensor(state["pool"][name])])
        for name, value in (state["policy"] | {"states": state["trajectories"]}).items()
    }
    lengths = np.concatenate([np.asarray(state["length"]), np.asarray(state["pool"]["length"])]).astype(int)
    divergences = policy_divergences(
        [states[:n] for states, n in zip(saved.pop("states"), lengths, strict=True)],
        Policies(saved, config.activation).probabilities,
        config.num_states,
        stream(seed, "assignment", 2**31),
        config.bandwidth,
        config.normalised_occupancy,
    )
    k = len(state["length"])
    labels = divergences[:k, k:].argmin(0)
    group = types.group[np.asarray(state["pool"]["type"]).astype(int)]
    found = scores(labels, group) | {"silhouette": silhouette(divergences[k:, k:], labels)}
    found["groups_covered"] = len(set(types.group[np.asarray(state["type"]).astype(int)].tolist()))
    return [row("caml", f"medoids_{name}", [value]) for name, value in found.items()]


def study(snapshots, groups, told_apart) -> list[dict]:
    """Rows of the divergence study, one policy from scratch for each type: scores, rewards and maps."""
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


def embedding(divergences):
    """t-SNE `[P, 2]` of divergences `[P, P]`; neighbourhoods of about five, as groups have four members."""
    from sklearn.manifold import TSNE

    perplexity = min(5.0, (len(divergences) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, metric="precomputed", init="random", random_state=0)
    return tsne.fit_transform(divergences)


def show(rows: list[dict]) -> None:
    """Print the mean over query types after each update, then the scores of clusters."""
    adapted = [row for row in rows if row.get("entity_type") == "all"]
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
