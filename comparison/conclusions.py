"""What a comparison shows, and what it leaves open: paired differences with intervals, and sentences."""

from typing import NamedTuple

import numpy as np

from common.evaluation import Row
from comparison.tables import title
from experiments.grid import Result

LEVEL = 0.95
ONE_SEED = (
    "Each method was trained with one seed only. How much a result would change with another seed is "
    "unknown, so nothing is concluded here; give several, --seeds 0,1,2."
)


class Difference(NamedTuple):
    """How much more a method returns than another, with a 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def told_apart(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0

    @property
    def reversed(self) -> "Difference":
        """How much more the other returns."""
        return Difference(-self.mean, -self.high, -self.low)

    def __str__(self) -> str:
        return f"{self.mean:.1f} (95 % interval {self.low:.1f} to {self.high:.1f})"


def difference(results: list[Result], one: str, other: str, worst: bool = False) -> Difference | None:
    """The mean agent's return under one method less that under another, paired by seed and by agent.

    The variance of the mean is at most the sum of what differs between seeds and of what differs between
    agents (Owen 2007, "The pigeonhole bootstrap", bounds it so), and Student's t has the degrees of freedom
    of Welch and Satterthwaite: the interval holds for further seeds and for further agents of the kind.
    `worst`: of the tenth of the agents that is worst off under each, which has seeds alone to vary over.
    None with fewer than two seeds that both have.
    """
    from scipy.stats import t  # takes a second to import

    by_seed = [{r["seed"]: r for r in results if r["name"] == name} for name in (one, other)]
    seeds = sorted(by_seed[0].keys() & by_seed[1].keys())
    if len(seeds) < 2:
        return None
    if worst:
        gaps = np.array([by_seed[0][s]["worst_decile"] - by_seed[1][s]["worst_decile"] for s in seeds])[
            :, None
        ]
    else:
        gaps = np.array([np.subtract(by_seed[0][s]["returns"], by_seed[1][s]["returns"]) for s in seeds])
    parts = [
        (gaps.mean(1 - axis).var(ddof=1) / gaps.shape[axis], gaps.shape[axis] - 1)
        for axis in (0, 1)
        if gaps.shape[axis] > 1
    ]
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts) if variance else 1.0
    half = float(t.ppf(0.5 + LEVEL / 2, freedom) * np.sqrt(variance))
    mean = float(gaps.mean())
    return Difference(mean, mean - half, mean + half)


def best_of(rows: list[Row], figure: str = "mean") -> Row:
    """The method with the highest figure."""
    return max(rows, key=lambda row: row[figure])


def from_best(results: list[Result], rows: list[Row]) -> dict[str, Difference | None]:
    """By how much each method is below the one with the highest mean return."""
    best = best_of(rows)["name"]
    return {row["name"]: difference(results, best, row["name"]) for row in rows if row["name"] != best}


def sentences(results: list[Result], rows: list[Row]) -> list[str]:
    """What the figures say; nothing from one seed, nor where an interval contains 0."""
    if not rows:
        return ["Nothing is finished yet."]
    if len(rows) < 2:
        return ["There is one method, and nothing to compare it with."]
    found, best = from_best(results, rows), best_of(rows)
    gaps = {name: gap for name, gap in found.items() if gap is not None}
    if len(gaps) < len(found):
        return [ONE_SEED]
    alike = [best, *(row for row in rows if row["name"] in gaps and not gaps[row["name"]].told_apart)]
    return [
        highest(best, rows, gaps, alike),
        *personal(results, rows),
        *by_group(results, rows),
        *worst_off(results, rows),
        asks(alike),
    ]


def highest(best: Row, rows: list[Row], gaps: dict[str, Difference], alike: list[Row]) -> str:
    """Which method has the highest return, and which cannot be told apart from it."""
    first = f"The mean agent has the highest return with {best['method']} ({best['mean']:.1f})"
    if len(alike) > 1:
        names = listed([row["method"] for row in alike[1:]])
        return f"{first}, but {names} cannot be told apart from it by {best['seeds']} seeds."
    second = min((name for name in gaps), key=lambda name: gaps[name].mean)
    return f"{first}; {title(second)}, which comes next, is below it by {gaps[second]}."


def personal(results: list[Result], rows: list[Row]) -> list[str]:
    """Whether personalising pays: the best way of doing so beside one policy for all."""
    others = [row for row in rows if row["name"] != "single"]
    if len(others) == len(rows) or not others:
        return []
    best = best_of(others)
    gap = difference(results, best["name"], "single")
    assert gap is not None
    if not gap.told_apart:
        return [
            f"Whether personalising pays is open: {best['method']} returns {gap.mean:+.1f} beside one policy "
            f"for all, and the 95 % interval, {gap.low:.1f} to {gap.high:.1f}, contains 0."
        ]
    if gap.mean > 0:
        return [f"Personalising pays: {best['method']} returns more than one policy for all by {gap}."]
    return [
        f"Personalising does not pay: one policy for all returns more than {best['method']}, the best other, "
        f"by {gap.reversed}."
    ]


def by_group(results: list[Result], rows: list[Row]) -> list[str]:
    """Whether agents are better off with policies by known groups or with r-MDP's, if that can be told."""
    policies = {row["name"]: f"{row['policies']:.0f} policies" for row in rows}
    if not policies.keys() >= {"per_group", "rmdp"}:
        return []
    gap = difference(results, "rmdp", "per_group")
    if gap is None or not gap.told_apart:
        return []
    known, found = f"one policy per group ({policies['per_group']})", f"r-MDP ({policies['rmdp']})"
    if gap.mean > 0:
        return [f"{found}, which is told of no groups, returns more than {known} by {gap}."]
    return [f"{known.capitalize()} returns more than {found}, which is told of no groups, by {gap.reversed}."]


def worst_off(results: list[Result], rows: list[Row]) -> list[str]:
    """Which method serves the worst tenth best, if that can be told."""
    best, *others = sorted(rows, key=lambda row: -row["worst_decile"])
    gaps = [difference(results, best["name"], row["name"], worst=True) for row in others]
    if any(gap is None or not gap.told_apart for gap in gaps):
        return []
    return [
        f"The worst tenth of the agents fares best with {best['method']} ({best['worst_decile']:.1f}); "
        f"{others[0]['method']}, which comes next, is below it by {gaps[0]}."
    ]


def asks(alike: list[Row]) -> str:
    """Which of the methods with the highest returns asks for the fewest steps of a new agent."""
    least = min(row["new_agent_steps"] for row in alike)
    names = listed([row["method"] for row in alike if row["new_agent_steps"] == least])
    steps = "no steps" if least == 0 else f"{least:,.0f} steps"
    if len(alike) == 1:
        return f"{names} asks for {steps} of a new agent."
    return f"Of these, {names} asks for the fewest steps of a new agent: {'none' if least == 0 else steps}."


def listed(names: list[str]) -> str:
    """Names with commas and an "and"."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
