"""The prediction protocol: 50 steps ahead under actions that come from a policy not seen in training."""

from dataclasses import dataclass

import numpy as np
import torch

from persim.data.trajectories import trajectories

KNOWN = 9  # the true state after so many steps is the last one that a prediction is given
NUM_STEPS = 51  # predicted from there, the first of them one step ahead (the authors' code)


@dataclass(frozen=True, eq=False)
class Test:
    """C trajectories of each of A agents under a test policy, from the last state that is given."""

    parameters: dict[str, np.ndarray]  # [A, 1]
    states: np.ndarray  # [A, C, NUM_STEPS + 1, d]
    actions: np.ndarray  # [A, C, NUM_STEPS] or [A, C, NUM_STEPS, a]
    counts: np.ndarray  # [A, C, NUM_STEPS] bool: the step was made before the episode's end
    past: tuple[np.ndarray, np.ndarray] | None = None
    """States [A, C, KNOWN + 1, d] up to the last that is given, and actions [A, C, KNOWN, ...] between."""


def draw_test(family, parameters, make_policy, num_trajectories: int, rng) -> Test:
    """Play `num_trajectories` of each agent {name: [A]}; `make_policy(A * C)` acts on the true states."""
    A, C, total = len(next(iter(parameters.values()))), num_trajectories, KNOWN + NUM_STEPS
    each = {name: np.repeat(values, C) for name, values in parameters.items()}
    played = trajectories(family, each, make_policy(A * C), rng, total)
    arrays = [array[:, KNOWN:] for array in (played.states, played.actions, played.alive)]
    arrays += [played.states[:, : KNOWN + 1], played.actions[:, :KNOWN]]
    *future, states, actions = (array.reshape(A, C, *array.shape[1:]) for array in arrays)
    columns = {name: values[:, None] for name, values in parameters.items()}
    return Test(columns, *future, (states, actions))


def predict(personal, test: Test) -> np.ndarray:
    """States [A, C, NUM_STEPS, d] in the mean of the ensemble, each of whose members goes its own way."""
    state = torch.from_numpy(test.states[:, :, 0].astype(np.float32))[None]
    actions, predicted = torch.from_numpy(test.actions), []
    for t in range(NUM_STEPS):
        state = personal.step(state, actions[:, :, t])
        predicted.append(state.mean(0).double().numpy())
    return np.stack(predicted, axis=2)


def ceiling(family, test: Test, predicted) -> np.ndarray:
    """What the true dynamics predict [A, C, NUM_STEPS, d] from the model's own first prediction.

    Where small errors grow, no simulator with that one-step error can be expected to do better.
    """
    state, states = predicted[:, :, 0], [predicted[:, :, 0]]
    for t in range(1, NUM_STEPS):
        state = family.advance(state, test.actions[:, :, t], test.parameters)
        states.append(state)
    return np.stack(states, axis=2)


def score(test: Test, predicted) -> tuple[np.ndarray, np.ndarray]:
    """RMSE over all states and steps, and R² weighted by variance, of each trajectory: [A, C], [A, C].

    NaN where an episode ended before the first prediction; R² also where nothing moved.
    """
    counts = test.counts[..., None]
    number = test.counts.sum(2)
    true = test.states[:, :, 1:]
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        wrong = np.where(counts, predicted - true, 0.0)
        squares = np.square(wrong).sum((2, 3))
        mean = np.where(counts, true, 0.0).sum(2) / number[..., None]
        spread = np.where(counts, np.square(true - mean[:, :, None]), 0.0).sum((2, 3))
        return np.sqrt(squares / (number * true.shape[-1])), 1 - squares / np.where(
            spread > 0, spread, np.nan
        )


def constant(test: Test) -> np.ndarray:
    """The best constant prediction of each trajectory, its own mean: what an R² of 0 stands for."""
    counts, true = test.counts[..., None], test.states[:, :, 1:]
    mean = np.where(counts, true, 0.0).sum(2, keepdims=True) / np.maximum(counts.sum(2, keepdims=True), 1)
    return np.broadcast_to(mean, true.shape)
