"""What the four systems have in common: a learner that trains, and the actor that it makes."""

from typing import Any, Protocol

import numpy as np
import torch


class Actor(Protocol):
    """What a trained run is for: actions for a batch of agents, with exploration off."""

    def reset(self, num: int) -> None:
        """Begin `num` rows anew; row i acts for agent i modulo the number of the actor's agents."""
        ...

    def act(
        self,
        observation: np.ndarray,
        reward: np.ndarray | None,
        done: np.ndarray | None,
        running: np.ndarray | None = None,
    ) -> np.ndarray:
        """Actions `[num, ...]`, as the environment takes them, for observations `[num, ...]`.

        `reward [num]` and `done [num]` bool are what the step before led to, None at first. Actions of rows
        where `running [num]` is false will not be used; knowing them may save work.
        """
        ...


class Trainable(Protocol):
    """What the training loop drives; every method is called on all ranks."""

    def train_iteration(self, i: int) -> dict[str, float]:
        """Collect, estimate, update, report; the metrics of all ranks together.

        Where an `eval/return` among them is the `eval/best_return`, the highest so far, the state is kept as
        the best.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next iteration and an evaluation need."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`, at any number of ranks."""
        ...

    def tensors_in_sync(self) -> dict[str, torch.Tensor]:
        """What must be the same on all ranks, to the last bit."""
        ...


class Learner(Trainable, Protocol):
    """A system's learner, made as `Learner(config, comm, problem)`."""

    def actor(self, agents: Any = None) -> Actor:
        """An actor for the agents with these numbers, or for all of the population."""
        ...
