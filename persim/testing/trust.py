"""Which predictions are not to be trusted: beyond the range of training, or of members that disagree."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from common.evaluation import Row
from persim.learned_reward import NAME
from persim.limits import Wall
from persim.testing import prediction, report
from persim.testing.prediction import PredictionTask

MARGIN = 0.1  # of the span that training saw of a coordinate
# The variance of members around their mean, as a part of what the mean moves. It is this much smaller than
# errors: members that are wrong outside of what they have learnt are wrong alike.
DISAGREEMENT = 0.02
BAD, GOOD = 0.5, 0.95  # R² below and above which the flags are counted, where what is true is known


@dataclasses.dataclass(frozen=True)
class Trust:
    """What can be said of C windows of each of A agents before anything true is known of them."""

    beyond: np.ndarray
    """[A, C, D] how far a window's states, or their prediction, leave the range of training, in spans."""
    disagreement: np.ndarray
    """[A, C] the variance of the members, as a part of the mean's movement."""
    names: list[str]
    """[D] what the coordinates are called."""

    @property
    def outside(self) -> np.ndarray:
        """Windows [A, C] that leave the range."""
        return self.beyond.max(2) > MARGIN

    @property
    def flagged(self) -> np.ndarray:
        """Windows [A, C] whose predictions are not to be trusted."""
        return self.outside | (self.disagreement > DISAGREEMENT)


def judge(
    task: PredictionTask, predicted: np.ndarray, variance: np.ndarray, data: dict[str, Any]
) -> Trust | None:
    """What a save's `data` and an ensemble's mean and variance [A, C, T, D] say of a task's windows.

    None of saves of before, which do not tell their range.
    """
    if "limits" not in data:
        return None
    names = list(data["state_names"])
    kept = [i for i, name in enumerate(names) if name != NAME]
    low, high = (np.array(data["limits"][end])[kept] for end in ("low", "high"))
    counts = task.counts[..., None]
    span = np.where(high > low, high - low, 1.0)

    def excess(states: np.ndarray) -> np.ndarray:
        over = np.maximum(low - states[..., kept], states[..., kept] - high) / span
        return np.where(counts, over, -np.inf).max(2)

    beyond = np.maximum(excess(task.states[:, :, :-1]), excess(predicted))
    return Trust(
        beyond, disagreement(task, predicted[..., kept], variance[..., kept]), [names[i] for i in kept]
    )


def disagreement(task: PredictionTask, predicted: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """The variance of the members, summed over a window, as a part of the variance of its mean [A, C]."""
    counts = task.counts[..., None]
    number = np.maximum(task.counts.sum(2), 1)[..., None]
    mean = np.where(counts, predicted, 0.0).sum(2) / number
    moved = np.where(counts, np.square(predicted - mean[:, :, None]), 0.0).sum((2, 3))
    return np.where(counts, variance, 0.0).sum((2, 3)) / np.maximum(moved, 1e-12)


def touching(task: PredictionTask, walls: list[Wall]) -> np.ndarray:
    """Windows [A, C] of which a true state is at a wall."""
    touched = [wall.touched(task.states[:, :, 1:].astype(np.float32)) for wall in walls]
    return (np.logical_or.reduce([np.zeros(task.counts.shape, bool), *touched]) & task.counts).any(2)


def rows(
    make_rows: report.Rows,
    labels: list[str],
    trust: Trust | None,
    walls: list[Wall],
    task: PredictionTask,
    predicted: np.ndarray,
    variance: np.ndarray,
    begins: np.ndarray | None = None,
) -> list[Row]:
    """Rows on which windows are flagged, and on how well these, the others and those at walls are predicted.

    `task`, `predicted` and `variance` hold what is seen in an observation only. A row on an agent names the
    steps `begins` [A, C] at which its flagged windows begin, by default their numbers.
    """
    r2 = prediction.score(task, predicted)[1]
    valid = np.isfinite(r2)
    begins = np.broadcast_to(np.arange(r2.shape[1]), r2.shape) if begins is None else begins
    found = []
    for a, label in enumerate(labels):
        spread = np.sqrt(variance[a][task.counts[a]].mean()) if task.counts[a].any() else []
        found.append(make_rows.row("spread", spread, agent=label))
    if trust is not None:
        found.append(make_rows.row("out_of_range", trust.outside[valid].astype(float)))
        flagged = trust.flagged & valid
        found.append(make_rows.row("flagged", flagged[valid].astype(float)))
        for a, label in enumerate(labels):
            which = begins[a][flagged[a]].tolist()
            found.append(
                make_rows.row("flagged", flagged[a][valid[a]].astype(float), agent=label, begins=which)
            )
        for i, name in enumerate(trust.names):
            over = trust.beyond[..., i][valid]
            if (over > MARGIN).any():
                share, most = (over > MARGIN).astype(float), float(over.max())
                found.append(make_rows.row("state_out_of_range", share, state=name, spans=most))
        for metric, which in (("flagged_of_bad", r2 < BAD), ("flagged_of_good", r2 > GOOD)):
            found.append(make_rows.row(metric, flagged[which].astype(float)))
        found += parts(make_rows, r2, {"flagged": flagged, "trusted": ~trust.flagged & valid})
    at_walls = touching(task, walls) & valid
    if at_walls.any():
        found += parts(make_rows, r2, {"at_walls": at_walls, "away_from_walls": ~at_walls & valid}, labels)
    return found


def parts(
    make_rows: report.Rows, r2: np.ndarray, which: dict[str, np.ndarray], labels: Sequence[str] = ()
) -> list[Row]:
    """The median R² [A, C] of each kind of windows [A, C], and of each agent that has a label."""
    found = []
    for kind, windows in which.items():
        metric = f"median_r2_{kind}"
        found.append(make_rows.row(metric, median(r2[windows]), windows=int(windows.sum())))
        for a, label in enumerate(labels):
            own = r2[a][windows[a]]
            found.append(make_rows.row(metric, median(own), agent=label, windows=len(own)))
    return found


def median(values: np.ndarray) -> Any:
    """The median of values [N]; nothing of none."""
    return np.median(values) if len(values) else []
