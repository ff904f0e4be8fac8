"""What a run is shown beside where no classical algorithm is known: random actions, one policy for all."""

from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from common.progress import at
from common.protocols import Trainable
from common.rollout import bounded


class RandomActions:
    """Acts uniformly in a Discrete or Box space; `rng` draws `random(size)` with first axis num.

    Where a Box has no bound, its numbers are those between -1 and 1.
    """

    def __init__(self, space: Any, rng: Any):
        self.space, self.rng = space, rng
        if not isinstance(space, Discrete):
            unit = np.clip(-1, space.low, space.high), np.clip(1, space.low, space.high)
            self.low = np.where(bounded(space), space.low, unit[0])
            self.width = np.where(bounded(space), space.high, unit[1]) - self.low

    def reset(self, num: int) -> None:
        """Nothing is remembered."""

    def act(self, observation: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
        """Actions `[num, ...]` for observations `[num, ...]`."""
        num, space = len(observation), self.space
        uniform = self.rng.random((num, *space.shape))
        if isinstance(space, Discrete):
            return space.start + (uniform * space.n).astype(np.int64)
        return (self.low + uniform * self.width).astype(space.dtype)


def train(learner: Trainable, iterations: int, name: str) -> dict[str, float]:
    """Train a baseline; the metrics of the last iteration. A collective."""
    metrics: dict[str, float] = {}
    for i in range(iterations):
        at(f"training {name}, iteration {i + 1} of {iterations}")
        metrics = learner.train_iteration(i)
    return metrics
