"""Weighted importance sampling, with the logged behaviour's probabilities estimated from the log."""

from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from common.errors import UserError

LEAST = 0.01  # of a probability: an action that was taken was not that unlikely


def weighted_importance_sampling(
    trial: Any, actions: np.ndarray, latents: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values [n] of a policy that took `actions` [n, K, T + 1] along the log, and effective episodes [n].

    An episode weighs the product, over its steps, of 1 / b(a | s) where the policy takes the logged action,
    and 0 where it does not (Precup et al. 2000). b is estimated by gradient-boosted trees, which see the
    state and the agent's `latents` [n, r]. The value is no number where no episode follows the policy.
    Raises `UserError` for actions that are vectors.
    """
    log, episodes = trial.log, trial.episodes
    if not log.discrete:
        raise UserError("--importance: needs discrete actions; a vector is never taken twice")
    inputs = np.concatenate([log.state[:, : trial.seen], latents[log.agent]], axis=1)
    probability = np.ones(len(log))
    if len(np.unique(log.action)) > 1:
        behaviour = HistGradientBoostingClassifier(max_iter=50, random_state=0).fit(inputs, log.action)
        place = np.searchsorted(behaviour.classes_, log.action)
        probability = behaviour.predict_proba(inputs)[np.arange(len(log)), place].clip(LEAST)
    n, K = episodes.rows.shape
    weights = np.zeros((n, K))
    for a, k in np.argwhere(episodes.there):
        rows = episodes.rows[a, k] + np.arange(episodes.lengths[a, k])
        if (actions[a, k, : len(rows)] == log.action[rows]).all():
            weights[a, k] = -np.log(probability[rows]).sum()
        else:
            weights[a, k] = -np.inf
    weights[~episodes.there] = -np.inf
    top = weights.max(1, keepdims=True)
    weights = np.where(np.isfinite(weights), np.exp(weights - np.where(np.isfinite(top), top, 0.0)), 0.0)
    total = weights.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights * episodes.returns).sum(1) / total, total**2 / np.square(weights).sum(1)
