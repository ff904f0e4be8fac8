"""A user's environments as learners take them: what they return is copied in time; of their infos, what an
episode reports of itself is handed on.

A Discrete space of any dtype and start becomes one that counts from 0 in int64; actions are handed over as
the environment's own space has them.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete, Space
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from envs.failing_task import Recording
from envs.parameters import EnvError, shown, told
from envs.protocols import Draws, Parameters

NOT_FINITE = "an observation or reward is not finite"
Stepped = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]


class SingleEnvs(SyncVectorEnv):
    """Single environments stepped in turn, with SAME_STEP autoreset.

    Infos hold final observations and, as "episode", what environments put there where an episode ends.

    `tasks` are their parameters, which an error names. With `rng` each reset draws a seed for each of them.
    The environments are closed even where one of them cannot be made or closed.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[dict[str, Any]], gymnasium.Env],
        tasks: Sequence[dict[str, Any]],
        rng: Draws | None = None,
    ):
        self.name, self.tasks, self.rng = name, tasks, rng
        with ExitStack() as made:
            made.callback(setattr, self, "closed", True)

            def keep(task: dict[str, Any]) -> gymnasium.Env:
                env = make(task)
                made.callback(env.close)
                return env

            super().__init__([partial(keep, task) for task in tasks], autoreset_mode=AutoresetMode.SAME_STEP)
            made.pop_all()
        self.own = (self.single_observation_space, self.single_action_space)
        self.single_observation_space, self.single_action_space = map(from_zero, self.own)
        self.observation_space, self.action_space = (
            batch_space(space, self.num_envs)
            for space in (self.single_observation_space, self.single_action_space)
        )
        self.seeds: list[int | None] = [None] * self.num_envs
        self.elapsed, self.episode = np.zeros((2, self.num_envs), np.int64)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every task."""
        if self.rng is not None:
            self.seeds = list(draw_seeds(self.rng, self.num_envs))
        elif isinstance(seed, int | np.integer):
            self.seeds = [int(seed) + i for i in range(self.num_envs)]
        else:
            self.seeds = [None] * self.num_envs if seed is None else list(seed)
        self.elapsed[:], self.episode[:] = 0, 1
        observation = self._empty()
        for i, own_seed in enumerate(self.seeds):
            observation[i] = self._begin(i, seed=own_seed, options=options)
        return observation, {}

    def step(self, actions: Any) -> Stepped:
        """Act once in every task."""
        reward, (terminated, truncated) = np.zeros(self.num_envs), np.zeros((2, self.num_envs), bool)
        observation, final = self._empty(), self._empty()
        told: dict[str, np.ndarray] = {}
        for i, action in enumerate(to_own(actions, self.own[1])):
            self.elapsed[i] += 1
            try:
                seen, reward[i], terminated[i], truncated[i], own = self.envs[i].step(action)
                final[i] = from_own(seen, self.own[0], final.shape[1:])
                if not (finite(final[i]) and finite(reward[i])):
                    raise ValueError(NOT_FINITE)
                if terminated[i] or truncated[i]:
                    reported = own.get("episode")
                    for name, value in reported.items() if isinstance(reported, dict) else ():
                        told.setdefault(name, np.full(self.num_envs, None))[i] = value
            except Exception as error:
                raise self._fault(i, f"step {self.elapsed[i]} of episode {self.episode[i]}", error) from error
            observation[i] = final[i]
            if terminated[i] or truncated[i]:
                self.elapsed[i] = 0
                self.episode[i] += 1
                observation[i] = self._begin(i)
        ended = terminated | truncated
        infos: dict[str, Any] = {"final_obs": final, "_final_obs": ended} if ended.any() else {}
        if told:
            infos |= {"episode": told, "_episode": ended}
        return observation, reward, terminated, truncated, infos

    def close_extras(self, **_: Any) -> None:
        """Close all environments, also those after one that fails in it."""
        self.closed = True
        with ExitStack() as stack:
            for env in getattr(self, "envs", ()):
                stack.callback(env.close)

    def _empty(self) -> np.ndarray:
        space = self.single_observation_space
        return np.zeros((self.num_envs, *(space.shape or ())), space.dtype)

    def _begin(self, i: int, **how: Any) -> np.ndarray:
        try:
            return from_own(self.envs[i].reset(**how)[0], self.own[0], self.single_observation_space.shape)
        except Exception as error:
            raise self._fault(i, f"the reset before episode {self.episode[i]}", error) from error

    def _fault(self, i: int, what: str, error: Exception) -> EnvError:
        seed = "" if self.seeds[i] is None else f", begun by reset(seed={self.seeds[i]})"
        return EnvError(
            f"{self.name}: {what}{seed}, failed in the task {shown(self.tasks[i])}: {told(error)}"
        )


class CopiedVectorEnv(VectorWrapper):
    """A user's own `make(parameters, rng)` of tasks at once, which may reuse its arrays from step to step."""

    def __init__(self, name: str, make: Callable[..., VectorEnv], parameters: Parameters, rng: Draws | None):
        self.name, self.parameters, self.elapsed = name, parameters, 0
        self.recording = Recording(make, parameters, rng)
        try:
            env = make(parameters, rng)
        except EnvError:
            raise
        except Exception as error:
            raise self._fault("make_vec", error) from error
        super().__init__(env)
        self.own = (env.single_observation_space, env.single_action_space)
        self.single_observation_space, self.single_action_space = map(from_zero, self.own)
        self.observation_space, self.action_space = (
            batch_space(space, env.num_envs)
            for space in (self.single_observation_space, self.single_action_space)
        )
        # Gymnasium's hands on the arrays of single environments as they are, even if these go on to use them.
        self.hands_on = isinstance(env.unwrapped, SyncVectorEnv)
        self.ended: list[tuple[Any, np.ndarray]] = []  # final observations of the last step, and copies

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every task."""
        self.ended, self.elapsed = [], 0
        self.recording.reset(seed, options)
        try:
            seen = self.env.reset(seed=seed, options=options)[0]
            return from_own(seen, self.own[0], self.observation_space.shape), {}
        except Exception as error:
            raise self._fault("reset", error) from error

    def step(self, actions: Any) -> Stepped:
        """Act once in every task."""
        self.elapsed += 1
        given = to_own(actions, self.own[1])
        self.recording.step(given)
        try:
            seen, reward, terminated, truncated, infos = self.env.step(given)
            observation = from_own(seen, self.own[0], self.observation_space.shape)
        except Exception as error:
            raise self._fault(f"step {self.elapsed} after the reset", error) from error
        if not (finite(observation) and finite(reward)):
            good = np.isfinite(observation).reshape(self.num_envs, -1).all(1) & np.isfinite(reward)
            raise self._fault_of(int(good.argmin()), f"step {self.elapsed} after the reset", NOT_FINITE)
        if any(not np.array_equal(final, copy) for final, copy in self.ended):
            raise EnvError(
                f"{self.name}: an environment reuses the array of its observations, which SyncVectorEnv "
                "then gives as the final one; return a new array at each step and reset"
            )
        ended, info = np.logical_or(terminated, truncated), {}
        self.ended = []
        if ended.any():
            if "final_obs" not in infos:
                raise EnvError(f'{self.name}: an episode ended without infos["final_obs"]; put it there')
            final = observation.copy()
            for i in np.flatnonzero(ended):
                own = infos["final_obs"][i]
                if np.shares_memory(own, seen):
                    text = 'infos["final_obs"] is the array of the observations; put a copy there'
                    raise EnvError(f"{self.name}: {text}")
                final[i] = from_own(own, self.own[0], final.shape[1:])
                if self.hands_on:
                    self.ended.append((own, np.array(own)))
            info = {"final_obs": final, "_final_obs": ended}
            info |= {name: infos[name] for name in ("episode", "_episode", "final_info") if name in infos}
        return observation, np.array(reward), np.array(terminated), np.array(truncated), info

    def _fault(self, what: str, error: Exception) -> EnvError:
        rows, text = self.recording.failing(error), told(error)
        if rows.stop - rows.start == 1:
            return self._fault_of(rows.start, what, text)
        some = {name: values[rows] for name, values in self.parameters.items()}
        tasks = f"in one of {rows.stop - rows.start} tasks {shown(some)}"
        return EnvError(f"{self.name}: {what} failed {tasks}: {text}")

    def _fault_of(self, row: int, what: str, text: str) -> EnvError:
        task = shown({name: values[row] for name, values in self.parameters.items()})
        num = self.recording.num_tasks
        alone = f", also alone (row {row} of {num})" if num > 1 and text != NOT_FINITE else ""
        return EnvError(f"{self.name}: {what} failed in the task {task}{alone}: {text}")


def finite(values: Any) -> bool:
    """Whether all numbers are; quick for many."""
    values = np.asarray(values)
    return values.dtype.kind in "biu" or bool(np.isfinite(values).all())


def from_zero(space: Space[Any]) -> Space[Any]:
    """The space as learners have it."""
    return Discrete(int(space.n)) if isinstance(space, Discrete) else space


def from_own(observation: Any, space: Space[Any], shape: Any) -> np.ndarray:
    """A copy of observations of a user's `space`, as in `from_zero(space)`; ValueError for a wrong shape."""
    discrete = isinstance(space, Discrete)
    array = np.array(observation, np.int64 if discrete else space.dtype)
    if array.shape != shape:
        raise ValueError(f"an observation of shape {array.shape}, where the space has {shape}")
    return array - int(space.start) if isinstance(space, Discrete) else array


def to_own(action: Any, space: Space[Any]) -> np.ndarray:
    """A copy of actions `[...]` of `from_zero(space)`, as the user's `space` has them."""
    if isinstance(space, Discrete):
        return (np.array(action, np.int64) + int(space.start)).astype(space.dtype)
    return np.array(action, space.dtype)


def draw_seeds(rng: Draws, n: int) -> list[int]:
    """n seeds below 2^31 (older libraries take no larger) from floats, which every shared stream draws."""
    return [int(draw * 2**31) for draw in rng.random(n, dtype=np.float64)]
