"""N tasks stepped at once, and one task as the same code with N = 1."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.parameters import EnvError, check_actions
from envs.protocols import Draws, Parameters


class TaskVectorEnv(VectorEnv):
    """Base of natively vectorised environments whose N tasks start together and have episodes of one length.

    A subclass defines `load`, `start` and `advance`, which draws the same number of variates at every step,
    whatever the data. `family` gives the spaces, `sample` and
    `check(parameters)`; it is the class a user meets.

    All randomness comes from `rng` when given (then seeds have no effect), else from `reset(seed=...)`.
    Without `parameters`, tasks are sampled at the first reset and at each reset with a seed; with
    `reset(options={"new_task": True})` always.

    Autoreset is Gymnasium's SAME_STEP. As all episodes end together, `infos["final_obs"]` is a plain array
    `[N, ...]` and its mask `_final_obs` is all true.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}
    ends_by_time = True  # the last step is `truncated`, by the time limit; False: `terminated`, by the task

    def __init__(
        self,
        family: Any,  # a `TaskFamily` of the subclass's kind
        num_envs: int | None,
        max_episode_len: int,
        parameters: Any = None,
        rng: Draws | None = None,
    ):
        self.family, self.max_episode_len, self.rng = family, max_episode_len, rng
        self.elapsed: Any = None  # steps of the running episode; an array [N] where tasks end separately
        self.parameters: Parameters | None = None
        self._given = parameters is not None
        self.num_envs = 1 if num_envs is None else num_envs
        if self._given:
            self.parameters = family.check(parameters)
            num_tasks = len(next(iter(self.parameters.values())))
            self.num_envs = num_tasks if num_envs is None else num_envs
            if self.num_envs != num_tasks:
                text = f"parameters of {num_tasks} tasks for num_envs={self.num_envs}; make them agree"
                raise EnvError(text)
        self.single_observation_space = family.observation_space
        self.single_action_space = family.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        if self.parameters is not None:
            self.load(self.parameters)

    def load(self, parameters: Parameters) -> None:
        """Keep the tasks' arrays."""
        raise NotImplementedError

    def start(self) -> np.ndarray:
        """Begin an episode in every task; the first observations `[N, ...]`."""
        raise NotImplementedError

    def advance(self, actions: np.ndarray, rng: Draws) -> tuple[np.ndarray, ...]:
        """What one step of every task leads to, in new arrays: observations and rewards `[N]`."""
        raise NotImplementedError

    def measures(self) -> dict[str, np.ndarray]:
        """What `final_info` reports of episodes so far as "episode", {name: [N]}; read where one ends."""
        return {}

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every task."""
        super().reset(seed=seed)
        sample = self.parameters is None or (seed is not None and not self._given)
        if sample or (options or {}).get("new_task"):
            self.parameters = self.family.sample(self._draws(), self.num_envs)
            self.load(self.parameters)
        self.elapsed = 0
        return self.start(), {}

    def _draws(self) -> Any:
        return self.np_random if self.rng is None else self.rng

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act once in every task."""
        if self.elapsed is None:
            raise ResetNeeded("step before reset: call reset() first")
        observations, rewards = self.advance(
            check_actions(actions, self.single_action_space, self.action_space.shape or ()), self._draws()
        )
        self.elapsed += 1
        none, all_ = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        infos: dict[str, Any] = {}
        if self.elapsed == self.max_episode_len:
            all_[:] = True
            infos = self.final(observations, all_.copy())
            observations, self.elapsed = self.start(), 0
        terminated, truncated = (none, all_) if self.ends_by_time else (all_, none)
        return observations, rewards, terminated, truncated, infos

    def final(self, observations: np.ndarray, ended: np.ndarray) -> dict[str, Any]:
        """Infos of a step that led to `observations` [N, ...] and `ended` [N] episodes."""
        told = self.measures()
        info = {"episode": told, "_episode": ended.copy()} if told else {}
        return {
            "final_obs": observations,
            "_final_obs": ended,
            "final_info": info,
            "_final_info": ended.copy(),
        }


class SeparateTaskVectorEnv(TaskVectorEnv):
    """Base of natively vectorised environments whose N tasks end their episodes each at its own time.

    Here `advance` returns (observations, rewards, terminated), and a subclass defines `begin` in place of
    `start`. `elapsed` [N] are clocks.

    `infos["final_obs"]` stays a plain array [N, ...] of what the step itself led to, in every row;
    `_final_obs` tells in which rows an episode ended.
    """

    def begin(self, tasks: np.ndarray) -> np.ndarray:
        """Begin an episode in the tasks `[N]` bool, without a draw; all observations `[N, ...]`."""
        raise NotImplementedError

    def start(self) -> np.ndarray:
        """Begin an episode in every task; the first observations `[N, ...]`."""
        self.elapsed = np.zeros(self.num_envs, np.int64)
        return self.begin(np.ones(self.num_envs, bool))

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act once in every task."""
        if self.elapsed is None:
            raise ResetNeeded("step before reset: call reset() first")
        actions = check_actions(actions, self.single_action_space, self.action_space.shape or ())
        self.elapsed += 1
        observations, rewards, terminated = self.advance(actions, self._draws())
        truncated = (self.elapsed == self.max_episode_len) & ~terminated
        ended = terminated | truncated
        infos: dict[str, Any] = {}
        if ended.any():
            infos = self.final(observations, ended)
            self.elapsed[ended] = 0
            observations = self.begin(ended)
        return observations, rewards, terminated, truncated, infos


class FamilyVectorEnv(SeparateTaskVectorEnv):
    """Base of those whose family is named by its class and sizes, as Gymnasium's registry does."""

    def __init__(
        self,
        family_type: Callable[..., Any],
        num_envs: int | None = None,
        *,
        parameters: Any = None,
        rng: Draws | None = None,
        **sizes: Any,
    ):
        family = family_type(**sizes)
        super().__init__(family, num_envs, family.max_episode_len, parameters, rng)


class SingleTaskEnv(gymnasium.Env):
    """One task as a `gymnasium.Env`: a `TaskVectorEnv` with N = 1, without its autoreset."""

    metadata = {"render_modes": []}

    def __init__(self, vector: TaskVectorEnv):
        self.vector, self._over = vector, False
        self.observation_space = vector.single_observation_space
        self.action_space = vector.single_action_space

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; `options={"new_task": True}` samples a new task, a seed determines everything."""
        observations, infos = self.vector.reset(seed=seed, options=options)
        self._np_random, self._np_random_seed = self.vector.np_random, self.vector.np_random_seed
        self._over = False
        return observations[0], infos

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act once in every task."""
        if self._over:
            raise ResetNeeded("step after the end of the episode: call reset() first")
        observations, rewards, terminated, truncated, infos = self.vector.step(np.asarray(action)[None])
        self._over = bool(terminated[0] or truncated[0])
        observation = infos["final_obs"][0] if self._over else observations[0]
        return observation, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}
