"""Steps of many trajectories with the steps before and after them, for models that learn from contexts."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from persim.data.transitions import Transitions

if TYPE_CHECKING:
    from persim.baselines.context_model import Cadm


def pairs(start: np.ndarray, future: int) -> np.ndarray:
    """All pairs [P, 2] of a row and one 0..future - 1 steps after it in the same run of `start` [N]."""
    rows = np.arange(len(start))
    later = [rows[rows - i >= start] for i in range(future)]
    return np.concatenate([np.stack([row - i, row], axis=1) for i, row in enumerate(later)])


def before(start: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """Rows [..., length] before each of `rows` [...], oldest first; -1 where its run has none."""
    index = rows[..., None] + np.arange(-length, 0)
    return np.where(index >= start[rows][..., None], index, -1)


class Batches:
    """Minibatches for each of M members: a past, and one of the next steps, which it is to explain.

    All pairs are equally likely. The authors' code so flattens the loss over the next steps: a batch holds
    256 pairs, not 256 whole futures.
    """

    def __init__(self, model: "Cadm", data: Transitions, rng: np.random.Generator) -> None:
        self.settings, self.rng = model.settings, rng
        self.start = data.starts()
        self.pairs = pairs(self.start, self.settings.future)
        state, action, following = (
            torch.from_numpy(array) for array in (data.state, data.action, data.next_state)
        )
        self.state, self.following = model.in_units(state), model.in_units(following)
        self.action = model.action_inputs(action)
        steps = model.steps(state, action, following)
        self.change = steps[:, : data.state.shape[1]]
        self.steps = torch.cat([steps, torch.zeros_like(steps[:1])])  # row -1: where nothing is known

    def take(self) -> tuple[torch.Tensor, ...]:
        """Pasts [M, B, K, d + a]; state, action, next state and change [M, B, ...] of one of the next."""
        size = (self.settings.num_models, self.settings.batch_size)
        now, step = np.moveaxis(self.pairs[self.rng.integers(0, len(self.pairs), size)], -1, 0)
        past = self.steps[torch.from_numpy(before(self.start, now, self.settings.history))]
        step = torch.from_numpy(step)
        return past, *(array[step] for array in (self.state, self.action, self.following, self.change))
