"""The one evaluation loop: an episode in each environment, rewards summed until it ends."""

from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import VectorEnv

from common.protocols import Actor

UNBOUNDED = 1e18  # some write their type's largest number for no bound


class Episodes(NamedTuple):
    """One episode of each of N environments."""

    returns: np.ndarray  # [N] float64
    lengths: np.ndarray  # [N] int64
    measures: dict[str, np.ndarray]  # {name: [N]}: what environments report of them; nan where nothing is


class Recorder:
    """Keeps the steps of episodes as lists of `[N, ...]`; those of row i count where `running[t][i]`."""

    def __init__(self) -> None:
        self.observation: list[np.ndarray] = []
        self.action: list[np.ndarray] = []
        self.reward: list[np.ndarray] = []
        self.next_observation: list[np.ndarray] = []  # what the step itself led to
        self.terminated: list[np.ndarray] = []
        self.running: list[np.ndarray] = []


def play(env: VectorEnv, actor: Actor, num_steps: int, record: Recorder | None = None) -> Episodes:
    """One episode of at most `num_steps` steps in each of the environments; what comes after its end is left.

    The actor is reset, and told the environments that still run. What environments report of an episode
    that ends is kept (see `keep_measures`).
    """
    num_envs = env.num_envs
    actor.reset(num_envs)
    observation, reward, done = np.array(env.reset()[0]), None, None
    running = np.ones(num_envs, bool)
    returns, lengths = np.zeros(num_envs), np.zeros(num_envs, np.int64)
    measures: dict[str, np.ndarray] = {}
    for _ in range(num_steps):
        action = actor.act(observation, reward, done, running)
        seen = observation
        observation, reward, terminated, truncated, infos = env.step(action)
        # Copies: environments may reuse their arrays, and actors remember what they saw.
        observation, reward = np.array(observation), np.array(reward, np.float64)
        done = np.logical_or(terminated, truncated)
        if record:
            record.observation.append(seen)
            record.action.append(np.array(action))
            record.reward.append(reward)
            record.next_observation.append(final_observations(observation, infos, done))
            record.terminated.append(np.array(terminated))
            record.running.append(running)
        returns += np.where(running, reward, 0.0)
        lengths += running
        keep_measures(measures, infos, running & done)
        running = running & ~done
        if not running.any():
            break
    return Episodes(returns, lengths, measures)


def keep_measures(measures: dict[str, np.ndarray], infos: dict[str, Any], ended: np.ndarray) -> None:
    """Put what infos report of the episodes that `ended` [N] into `measures` {name: [N]}.

    As Gymnasium's RecordEpisodeStatistics reports them, {name: [N]} at "episode" in infos or in their
    "final_info", with masks; its own r, l and t are left, and all that are no numbers.
    """
    told: Any = [infos, infos.get("final_info")] if ended.any() else []
    for source in (some for some in told if isinstance(some, dict) and isinstance(some.get("episode"), dict)):
        for name, values in source["episode"].items():
            if name in ("r", "l", "t") or name.startswith("_"):
                continue
            try:
                numbers = np.broadcast_to(np.asarray(values, np.float64), ended.shape)
            except (TypeError, ValueError):
                continue
            rows = ended & source["episode"].get(f"_{name}", source.get("_episode", True))
            measures.setdefault(name, np.full(len(ended), np.nan))[rows] = numbers[rows]


def final_observations(observation: np.ndarray, infos: dict[str, Any], done: np.ndarray) -> np.ndarray:
    """A copy of what a step led to `[N, ...]`: the last observation of an episode where one is `done [N]`."""
    final = np.array(observation)
    if done.any():
        final[done] = np.stack([infos["final_obs"][i] for i in np.flatnonzero(done)])
    return final


def to_space(action: np.ndarray, space: Any, scaled: bool = True) -> np.ndarray:
    """Actions `[N, ...]` as environments take them, never out of bounds.

    A policy acts in -1..1 wherever a Box is bounded on both sides, and that range is stretched to the
    bounds, rounded if the Box holds whole numbers; with `scaled=False`, and where there is no bound, its
    numbers are taken as they are.
    """
    if isinstance(space, Discrete):
        return action
    if scaled:
        centre, half = stretch(space)
        action = np.where(bounded(space), np.clip(action, -1, 1), action)
        action = centre + half * action
        action = np.rint(action) if whole(space) else action
    return np.clip(action, space.low, space.high).astype(space.dtype)


def bounded(space: Any) -> np.ndarray:
    """Which dimensions of a Box have two bounds that mean something."""
    return (np.abs(space.low.astype(float)) < UNBOUNDED) & (np.abs(space.high.astype(float)) < UNBOUNDED)


def whole(space: Any) -> bool:
    """Whether a Box holds whole numbers."""
    return np.issubdtype(space.dtype, np.integer)


def stretch(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """Centre and half width of a Box in each dimension, float32; 0 and 1 where it is not bounded."""
    both = bounded(space)
    low, high = (np.where(both, bound.astype(np.float64), 0.0) for bound in (space.low, space.high))
    half = np.where(both, (high - low) / 2, 1.0)
    return ((low + high) / 2).astype(np.float32), half.astype(np.float32)
