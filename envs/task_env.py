"""N tasks stepped at once, and one task as the same code with N = 1."""

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.parameters import EnvError, check_actions


class TaskVectorEnv(VectorEnv):
    """Base of natively vectorised environments whose N tasks start together and have episodes of one length.

    A subclass defines `load(parameters)` (keep the tasks' arrays), `start() -> observations` and
    `advance(actions, rng) -> (observations, rewards)`. `advance` draws the same number of variates at every
    step, whatever the data, and returns new arrays. `family` gives the spaces, `sample` and
    `check(parameters)`; it is the class a user meets.

    All randomness comes from `rng` when given (then seeds have no effect), else from `reset(seed=...)`.
    Without `parameters`, tasks are sampled at the first reset and at each reset with a seed; with
    `reset(options={"new_task": True})` always.

    Autoreset is Gymnasium's SAME_STEP. As all episodes end together, `infos["final_obs"]` is a plain array
    `[N, ...]` and its mask `_final_obs` is all true.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}
    ends_by_time = True  # the last step is `truncated`, by the time limit; False: `terminated`, by the task

    def __init__(self, family, num_envs: int | None, max_episode_len: int, parameters=None, rng=None):
        self.family, self.max_episode_len, self.rng = family, max_episode_len, rng
        self.elapsed, self._given = None, parameters is not None
        self.parameters = family.check(parameters) if self._given else None
        num_tasks = len(next(iter(self.parameters.values()))) if self._given else num_envs
        self.num_envs = (num_tasks if self._given else 1) if num_envs is None else num_envs
        if self._given and self.num_envs != num_tasks:
            raise EnvError(f"parameters of {num_tasks} tasks for num_envs={self.num_envs}; make them agree")
        self.single_observation_space = family.observation_space
        self.single_action_space = family.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        if self._given:
            self.load(self.parameters)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        sample = self.parameters is None or (seed is not None and not self._given)
        if sample or (options or {}).get("new_task"):
            self.parameters = self.family.sample(self._draws(), self.num_envs)
            self.load(self.parameters)
        self.elapsed = 0
        return self.start(), {}

    def _draws(self):
        return self.np_random if self.rng is None else self.rng

    def step(self, actions):
        if self.elapsed is None:
            raise ResetNeeded("step before reset: call reset() first")
        observations, rewards = self.advance(
            check_actions(actions, self.single_action_space, self.action_space.shape), self._draws()
        )
        self.elapsed += 1
        none, all_, infos = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool), {}
        if self.elapsed == self.max_episode_len:
            all_[:] = True
            infos = {"final_obs": observations, "_final_obs": all_.copy()}
            infos |= {"final_info": {}, "_final_info": all_.copy()}
            observations, self.elapsed = self.start(), 0
        terminated, truncated = (none, all_) if self.ends_by_time else (all_, none)
        return observations, rewards, terminated, truncated, infos


class SeparateTaskVectorEnv(TaskVectorEnv):
    """Base of natively vectorised environments whose N tasks end their episodes each at its own time.

    Here `advance` returns (observations, rewards, terminated), and a subclass defines `begin(tasks) ->
    observations`, which starts an episode in the tasks [N] bool and draws nothing. `elapsed` [N] are clocks.

    `infos["final_obs"]` stays a plain array [N, ...] of what the step itself led to, in every row;
    `_final_obs` tells in which rows an episode ended.
    """

    def start(self):
        self.elapsed = np.zeros(self.num_envs, np.int64)
        return self.begin(np.ones(self.num_envs, bool))

    def step(self, actions):
        if self.elapsed is None:
            raise ResetNeeded("step before reset: call reset() first")
        actions = check_actions(actions, self.single_action_space, self.action_space.shape)
        self.elapsed += 1
        observations, rewards, terminated = self.advance(actions, self._draws())
        truncated = (self.elapsed == self.max_episode_len) & ~terminated
        ended, infos = terminated | truncated, {}
        if ended.any():
            infos = {"final_obs": observations, "_final_obs": ended}
            infos |= {"final_info": {}, "_final_info": ended.copy()}
            self.elapsed[ended] = 0
            observations = self.begin(ended)
        return observations, rewards, terminated, truncated, infos


class SingleTaskEnv(gymnasium.Env):
    """One task as a `gymnasium.Env`: a `TaskVectorEnv` with N = 1, without its autoreset."""

    metadata = {"render_modes": []}

    def __init__(self, vector: TaskVectorEnv):
        self.vector, self._over = vector, False
        self.observation_space = vector.single_observation_space
        self.action_space = vector.single_action_space

    def reset(self, *, seed=None, options=None):
        """Start an episode; `options={"new_task": True}` samples a new task, a seed determines everything."""
        observations, infos = self.vector.reset(seed=seed, options=options)
        self._np_random, self._np_random_seed = self.vector.np_random, self.vector.np_random_seed
        self._over = False
        return observations[0], infos

    def step(self, action):
        if self._over:
            raise ResetNeeded("step after the end of the episode: call reset() first")
        observations, rewards, terminated, truncated, infos = self.vector.step(np.asarray(action)[None])
        self._over = bool(terminated[0] or truncated[0])
        observation = infos["final_obs"][0] if self._over else observations[0]
        return observation, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}
