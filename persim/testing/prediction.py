"""The prediction protocol: 50 steps ahead under actions that come from a policy not seen in training."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from persim.data.behaviour import BehaviourPolicy
from persim.data.trajectories import trajectories
from persim.partial import states_along
from persim.planning.candidate_returns import AgentModel

KNOWN = 9  # the true state after so many steps is the last one that a prediction is given
NUM_STEPS = 51  # predicted from there, the first of them one step ahead (the authors' code)


@dataclass(frozen=True, eq=False)
class PredictionTask:
    """C trajectories of each of A agents under a test policy, from the last state that is given."""

    parameters: dict[str, np.ndarray]  # [A, 1]
    states: np.ndarray  # [A, C, NUM_STEPS + 1, d]
    actions: np.ndarray  # [A, C, NUM_STEPS] or [A, C, NUM_STEPS, a]
    counts: np.ndarray  # [A, C, NUM_STEPS] bool: the step was made before the episode's end
    past: tuple[np.ndarray, np.ndarray] | None = None
    """States [A, C, KNOWN + 1, d] up to the last that is given, and actions [A, C, KNOWN, ...] between."""


def draw_task(
    family: Any,
    parameters: dict[str, np.ndarray],
    make_policy: Callable[[int], BehaviourPolicy],
    num_trajectories: int,
    rng: np.random.Generator,
) -> PredictionTask:
    """Play `num_trajectories` of each agent {name: [A]}; `make_policy(A * C)` acts on the true states."""
    A, C, total = len(next(iter(parameters.values()))), num_trajectories, KNOWN + NUM_STEPS
    each = {name: np.repeat(values, C) for name, values in parameters.items()}
    played = trajectories(family, each, make_policy(A * C), rng, total)

    def by_agent(array: np.ndarray) -> np.ndarray:
        return array.reshape(A, C, *array.shape[1:])

    return PredictionTask(
        {name: values[:, None] for name, values in parameters.items()},
        by_agent(played.states[:, KNOWN:]),
        by_agent(played.actions[:, KNOWN:]),
        by_agent(played.alive[:, KNOWN:]),
        (by_agent(played.states[:, : KNOWN + 1]), by_agent(played.actions[:, :KNOWN])),
    )


def in_states(task: PredictionTask, family: Any) -> PredictionTask:
    """A task drawn of whole states in those of the `planned` family, which remember the task's past."""
    assert task.past is not None
    observations, actions = (
        np.concatenate(pair, axis=2)
        for pair in ((task.past[0][:, :, :-1], task.states), (task.past[1], task.actions))
    )
    states = states_along(
        family, observations.reshape(-1, *observations.shape[2:]), actions.reshape(-1, *actions.shape[2:])
    )
    return dataclasses.replace(
        task, states=states.reshape(*task.states.shape[:2], -1, states.shape[-1])[:, :, KNOWN:]
    )


def predict(models: AgentModel, task: PredictionTask) -> np.ndarray:
    """States [A, C, NUM_STEPS, d] in the mean of the ensemble, each of whose members goes its own way."""
    return forecast(models, task)[0]


def forecast(models: AgentModel, task: PredictionTask) -> tuple[np.ndarray, np.ndarray]:
    """What `predict` gives, and the variance of the members around it, of the same shape."""
    state = torch.from_numpy(task.states[:, :, 0].astype(np.float32))[None]
    actions, predicted, variance = torch.from_numpy(task.actions), [], []
    for t in range(NUM_STEPS):
        state = models.step(state, actions[:, :, t])
        predicted.append(state.mean(0).double().numpy())
        variance.append(state.double().var(0, correction=0).numpy())
    return np.stack(predicted, axis=2), np.stack(variance, axis=2)


def upper_bound(family: Any, task: PredictionTask, predicted: np.ndarray) -> np.ndarray:
    """What the true dynamics predict [A, C, NUM_STEPS, d] from the model's own first prediction.

    Where small errors grow, no simulator with that one-step error can be expected to do better.
    """
    state, states = predicted[:, :, 0], [predicted[:, :, 0]]
    for t in range(1, NUM_STEPS):
        state = family.advance(state, task.actions[:, :, t], task.parameters)
        states.append(state)
    return np.stack(states, axis=2)


def score(task: PredictionTask, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """RMSE over all states and steps, and R² weighted by variance, of each trajectory: [A, C], [A, C].

    NaN where an episode ended before the first prediction; R² also where nothing moved.
    """
    counts = task.counts[..., None]
    number = task.counts.sum(2)
    true = task.states[:, :, 1:]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        wrong = np.where(counts, predicted - true, 0.0)
        squares = np.square(wrong).sum((2, 3))
        mean = np.where(counts, true, 0.0).sum(2) / number[..., None]
        spread = np.where(counts, np.square(true - mean[:, :, None]), 0.0).sum((2, 3))
        return np.sqrt(squares / (number * true.shape[-1])), 1 - squares / np.where(
            spread > 0, spread, np.nan
        )


def best_constant(task: PredictionTask) -> np.ndarray:
    """The best constant prediction of each trajectory, its own mean: what an R² of 0 stands for."""
    counts, true = task.counts[..., None], task.states[:, :, 1:]
    mean = np.where(counts, true, 0.0).sum(2, keepdims=True) / np.maximum(counts.sum(2, keepdims=True), 1)
    return np.broadcast_to(mean, true.shape)


def only(size: int, task: PredictionTask, *predictions: np.ndarray) -> tuple[Any, ...]:
    """A task and predictions of the first `size` coordinates: those that are seen in an observation.

    What follows, a learned reward and what is remembered, would drown them.
    """
    return dataclasses.replace(task, states=task.states[..., :size]), *(p[..., :size] for p in predictions)
