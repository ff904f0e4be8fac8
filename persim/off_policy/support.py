"""Where a log has data: near which states and actions anybody has been."""

import numpy as np
from scipy.spatial import cKDTree

from persim.data.transitions import Transitions

USUAL = 0.99  # of a log's steps have a neighbour that is nearer than what counts as near
MOST_STEPS = 20_000  # of a log that are remembered


class Support:
    """Tells steps at which a log has no data: none of its steps with such an action is near.

    Near is how near another step of the log is to 99 % of its own, so that one step in a hundred of the log
    itself has no data. States count in the log's deviations; an action that is a vector is part of the point.
    """

    def __init__(self, log: Transitions, seen: int) -> None:
        self.seen, self.discrete = seen, log.discrete
        rows = np.unique(np.linspace(0, len(log) - 1, MOST_STEPS).astype(int))
        self.scale = log.state[:, :seen].std(0)
        self.scale = np.where(self.scale > 0, self.scale, 1.0)
        self.action_scale = 1.0 if log.discrete else np.maximum(log.action.std(0), 1e-6)
        points, kinds = self.points(log.state[rows], log.action[rows])
        self.trees = {kind: cKDTree(points[kinds == kind]) for kind in np.unique(kinds)}
        between = [tree.query(tree.data, 2)[0][:, 1] for tree in self.trees.values() if tree.n > 1]
        self.near = float(np.quantile(np.concatenate(between), USUAL)) if between else 0.0

    def points(self, state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Steps as points [B, p], and kinds of actions [B], each of which has points of its own."""
        points = state[..., : self.seen].reshape(-1, self.seen) / self.scale
        if self.discrete:
            return points, action.reshape(-1)
        action = action.reshape(len(points), -1) / self.action_scale
        return np.concatenate([points, action], axis=1), np.zeros(len(points), np.int64)

    def lacks(self, state: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Which steps [B] are like none of the log, for states [B, D] and actions [B] or [B, a]."""
        points, kinds = self.points(state, action)
        lacking = np.ones(len(points), bool)
        for kind, tree in self.trees.items():
            own = kinds == kind
            lacking[own] = tree.query(points[own], distance_upper_bound=self.near)[0] > self.near
        return lacking

    def count(self, state: np.ndarray, action: np.ndarray, running: np.ndarray) -> np.ndarray:
        """Steps [2, n] of each agent of [M, n, k]: those like none of the log, and all that are `running`."""
        lacking = np.zeros(running.shape, bool)
        lacking[running] = self.lacks(state[running], action[running])
        return np.stack([lacking.sum((0, 2)), running.sum((0, 2))]).astype(float)
