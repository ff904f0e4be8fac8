"""Intervals of a policy's value, and the verdict on it for each agent."""

from typing import NamedTuple

import numpy as np
from scipy import stats

CONFIDENCE = 0.9
UNLIKE = 0.5  # share of steps without data from which on nothing is concluded
PRIOR = 2.0  # episodes that the spread among all agents' episodes counts as, beside an agent's own


class Interval(NamedTuple):
    """Of each of n agents."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def interval(values: np.ndarray, there: np.ndarray) -> Interval:
    """The mean of episodes' values [M, n, K] of each agent, with an interval at the level `CONFIDENCE`.

    Two things are not known. The dynamics: these are taken for one more member of the ensemble, which differs
    from the mean as the M members do from one another, beyond what chance does (the members' component of an
    analysis of variance). And the starts: an agent's episodes [n, K] that are `there` are a sample of them,
    whose variance is drawn towards that within all agents, as of few episodes it is hardly known (the
    moderated t of Smyth 2004). The quantile is Student's with Satterthwaite's degrees of freedom.
    """
    M, count = len(values), there.sum(1)  # [n]
    of_members = (values * there).sum(2) / count  # [M, n]
    of_starts, mean = values.mean(0), of_members.mean(0)  # [n, K], [n]
    deviation = np.where(there, of_starts - mean[:, None], 0.0)
    chance = np.where(there, values - of_members[..., None] - deviation, 0.0)
    freedom = np.maximum((M - 1) * (count - 1), 1)
    chance = np.square(chance).sum((0, 2)) / freedom / count
    members = np.maximum(of_members.var(0, ddof=int(M > 1)) - chance, 0.0) * (1 + 1 / M)
    within = np.square(deviation).sum() / max(1, (count - 1).sum())
    if (count == 1).all():  # nobody shows how starts differ: as agents do
        within = mean.var()
    starts = (np.square(deviation).sum(1) + PRIOR * within) / (count - 1 + PRIOR) / count
    total = members + starts
    parts = members**2 / max(M - 1, 1) + starts**2 / (count - 1 + PRIOR)
    freedom = total**2 / np.maximum(parts, np.finfo(float).tiny)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, np.maximum(freedom, 1)) * np.sqrt(total)
    return Interval(mean, mean - half, mean + half)


def verdicts(gain: Interval, unlike: np.ndarray) -> list[str]:
    """better, worse or unknown for each agent, by the `gain` over the log and the steps `unlike` it."""
    known = unlike <= UNLIKE
    better, worse = known & (gain.low > 0), known & (gain.high < 0)
    return np.where(better, "better", np.where(worse, "worse", "unknown")).tolist()


def in_words(verdict: str, gain: tuple[float, float], unlike: float) -> str:
    """The verdict on one agent as a sentence."""
    reach = f"{gain[0]:+.4g} to {gain[1]:+.4g}"
    if verdict == "better":
        return f"better than what was logged, by {reach}"
    if verdict == "worse":
        return f"worse than what was logged, by {reach}: do not deploy"
    where = f"the policy goes where the log has no data in {100 * unlike:.3g} % of the steps"
    return f"do not deploy: the difference reaches from {reach}; {where}"
