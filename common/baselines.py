"""What a run is shown beside where no classical algorithm is known: random actions, one policy for all."""

import sys
import time
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from common.protocols import Trainable

PROGRESS_SECONDS = 10.0


class RandomActions:
    """Acts uniformly in a Discrete or bounded Box space; `rng` draws `random(size)` with first axis num."""

    def __init__(self, space: Any, rng: Any):
        self.space, self.rng = space, rng

    def reset(self, num: int) -> None:
        """Nothing is remembered."""

    def act(self, observation: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
        """Actions `[num, ...]` for observations `[num, ...]`."""
        num, space = len(observation), self.space
        uniform = self.rng.random((num, *space.shape))
        if isinstance(space, Discrete):
            return space.start + (uniform * space.n).astype(np.int64)
        return (space.low + uniform * (space.high - space.low)).astype(space.dtype)


def train(learner: Trainable, iterations: int, name: str, comm: Any) -> dict[str, float]:
    """Train a baseline and tell how far it is; the metrics of the last iteration. A collective."""
    metrics: dict[str, float] = {}
    told = time.monotonic()
    for i in range(iterations):
        metrics = learner.train_iteration(i)
        if comm.is_root and time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            print(f"{name}: iteration {i + 1}/{iterations}", file=sys.stderr, flush=True)
    return metrics
