"""N copies of dynamics that a whole population shares, stepped at once; rewards are computed later."""

from typing import Any, NamedTuple

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from envs.parameters import EnvError, check_actions, check_sizes
from envs.protocols import Draws, SharedRewardEnv, SharedRewardFamily

GOLDEN_RATIO = (5**0.5 - 1) / 2


class Step(NamedTuple):
    """What one step of N environments led to; an episode is never both terminated and truncated.

    `observation` is where acting goes on: the new episode's first where one ended. `final_observation` is
    what the step itself led to, and equals `observation` where nothing ended.
    """

    observation: np.ndarray  # [N, D] float32
    outcome: np.ndarray  # [N, O] float32, what the family's `rewards` takes
    terminated: np.ndarray  # [N] bool
    truncated: np.ndarray  # [N] bool
    final_observation: np.ndarray  # [N, D] float32


class SharedVectorEnv:
    """Base of environments whose step is rewarded for all agents of a population (Ivanov & Ben-Porat 2024).

    `index` [num_envs] are the environments' global numbers (default: 0, 1, ...). Episode p of environment
    number i draws from `default_rng([seed, i, p])` only, so results do not depend on how environments are
    divided. With `stagger`, each first episode ends early, at its own time, so that later ends are spread.

    A subclass sets `action_space` (of one environment) and defines the five methods that raise here.
    """

    action_space: Space[Any]

    def __init__(
        self, num_envs: int, *, max_episode_len: int, seed: int, index: Any = None, stagger: bool = False
    ):
        check_sizes("shared environment", max_episode_len=max_episode_len)
        for name, value in (("num_envs", num_envs), ("seed", seed)):  # a rank's share may be empty
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
                raise EnvError(f"shared environment: {name} is {value!r}; give a whole number of at least 0")
        index = np.arange(num_envs) if index is None else np.asarray(index)
        if index.shape != (num_envs,) or (index.size and (index.dtype.kind not in "iu" or index.min() < 0)):
            raise EnvError(f"shared environment: index must be {num_envs} whole numbers of at least 0")
        self.num_envs, self.max_episode_len, self.seed = int(num_envs), int(max_episode_len), int(seed)
        self.index, self.stagger = index.astype(np.int64), stagger
        self.elapsed: Any = None  # [N] steps of the running episode
        self.episode = np.full(self.num_envs, -1)  # [N] number of the running episode

    def start(self, envs: np.ndarray, generators: list[np.random.Generator]) -> None:
        """Begin an episode at the positions that `envs` lists."""
        raise NotImplementedError

    def observe(self) -> np.ndarray:
        """The present observations `[N, D]` float32, a new array."""
        raise NotImplementedError

    def advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outcomes `[N, O]` float32 and ends `[N]` bool of one step, new arrays."""
        raise NotImplementedError

    def dynamics_state(self) -> dict[str, np.ndarray]:
        """What the physics continue from, {name: `[N, ...]`}."""
        raise NotImplementedError

    def set_dynamics_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `dynamics_state`."""
        raise NotImplementedError

    def reset(self) -> np.ndarray:
        """Begin the next episode of every environment; observations [N, D]."""
        first = self.elapsed is None
        self.elapsed = np.zeros(self.num_envs, np.int64)
        self._begin(np.arange(self.num_envs))
        if first and self.stagger:
            self.elapsed += (self.index * GOLDEN_RATIO % 1 * self.max_episode_len).astype(np.int64)
        return self.observe()

    def _begin(self, envs: np.ndarray) -> None:
        self.elapsed[envs] = 0
        self.episode[envs] += 1
        numbers = zip(self.index[envs].tolist(), self.episode[envs].tolist(), strict=True)
        self.start(envs, [np.random.default_rng([self.seed, *pair]) for pair in numbers])

    def step(self, actions: Any) -> Step:
        """Act once in every environment (`actions` [N, A] or [N]); where an episode ends, the next begins."""
        if self.elapsed is None:
            raise ResetNeeded("step before reset: call reset() first")
        shape = (self.num_envs, *(self.action_space.shape or ()))
        outcome, terminated = self.advance(check_actions(actions, self.action_space, shape))
        self.elapsed += 1
        truncated = (self.elapsed >= self.max_episode_len) & ~terminated
        observation = final_observation = self.observe()
        ended = np.flatnonzero(terminated | truncated)
        if ended.size:
            self._begin(ended)
            observation = self.observe()
        return Step(observation, outcome, terminated, truncated, final_observation)

    def get_state(self) -> dict[str, np.ndarray]:
        """Copies {name: [N, ...]} of everything that continuing bit for bit needs."""
        if self.elapsed is None:
            raise ResetNeeded("get_state before reset: call reset() first")
        dynamics = {name: np.array(array) for name, array in self.dynamics_state().items()}
        return {"elapsed": self.elapsed.copy(), "episode": self.episode.copy(), **dynamics}

    def set_state(self, state: dict[str, np.ndarray]) -> np.ndarray:
        """Continue from what `get_state` gave; the observations [N, D] that acting goes on from."""
        state = {name: np.array(array) for name, array in state.items()}
        for name, array in state.items():
            if array.shape[:1] != (self.num_envs,):
                text = f"state {name!r} has shape {list(array.shape)} for {self.num_envs} environments"
                raise EnvError(f"{text}; restore it into as many as it was saved from")
        if not {"elapsed", "episode"} <= state.keys():
            raise EnvError(f"state has only {sorted(state)}; give what get_state returned")
        elapsed, episode = state.pop("elapsed"), state.pop("episode")
        self.set_dynamics_state(state)
        self.elapsed, self.episode = elapsed, episode
        return self.observe()


class OwnRewardVectorEnv(VectorEnv):
    """A `SharedRewardFamily` with N agents, each in an environment and with a reward of its own.

    Each reset draws a number for each agent, from `rng` or by `reset(seed=...)`, and all its episodes follow
    from it. Autoreset is SAME_STEP; `infos["final_obs"]` is a plain array `[N, D]`.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, family: SharedRewardFamily, parameters: Any, rng: Draws | None = None):
        self.family, self.rng = family, rng
        self.env: SharedRewardEnv | None = None
        self.parameters = family.check(parameters)
        self.num_envs = len(next(iter(self.parameters.values())))
        self.single_observation_space = family.observation_space
        self.single_action_space = family.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in every task."""
        super().reset(seed=seed)
        draws = (self.np_random if self.rng is None else self.rng).random(self.num_envs, np.float64)
        index = (draws * 2**62).astype(np.int64)
        self.env = self.family.make_shared(self.num_envs, seed=0, index=index)
        return self.env.reset(), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Act once in every task."""
        if self.env is None:
            raise ResetNeeded("step before reset: call reset() first")
        step = self.env.step(actions)
        ended, infos = step.terminated | step.truncated, {}
        if ended.any():
            infos = {"final_obs": step.final_observation, "_final_obs": ended}
        reward = self.family.own_rewards(step.outcome, self.parameters)
        return step.observation, reward.astype(np.float32), step.terminated, step.truncated, infos
