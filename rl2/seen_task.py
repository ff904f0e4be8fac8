"""What an oracle acts in: environments whose observations hold the parameters of the task too."""

from typing import Any

import numpy as np
from gymnasium import spaces

from common.errors import UserError
from common.rollout import final_observations
from envs.protocols import Parameters


def task_numbers(family: Any, parameters: Parameters) -> np.ndarray:
    """The tasks as vectors `[n, k]` float32: as the family tells them, or their parameters one by one."""
    own = getattr(family, "task_numbers", None)
    rows = {"task": own(parameters)} if own else parameters
    n = len(next(iter(rows.values())))
    return np.concatenate([np.asarray(rows[name], np.float32).reshape(n, -1) for name in sorted(rows)], 1)


class SeenTask:
    """A family whose observations are those of `family` and, behind them, the numbers of the task.

    Discrete observations become one-hot vectors. `agents` are the population, where there is one; else a
    task is drawn to see how many numbers it has. Raises `UserError` where they cannot be shown.
    """

    def __init__(self, family: Any, agents: Parameters | None = None):
        self.family, self.name = family, family.name
        self.max_episode_len = family.max_episode_len
        self.declares_length = getattr(family, "declares_length", True)
        self.action_space, own = family.action_space, family.observation_space
        self.num_values = int(own.n) if isinstance(own, spaces.Discrete) else 0  # 0: vectors
        parameters = family.sample(np.random.default_rng(0), 2) if agents is None else agents
        shape = (self.num_values,) if self.num_values else own.shape
        try:
            size = task_numbers(family, parameters).shape[1]
        except (TypeError, ValueError, StopIteration) as error:
            raise UserError(
                f"--see_task True: the tasks of {self.name} cannot be shown as numbers ({error})"
            ) from None
        if not size or len(shape) != 1:
            raise UserError(
                f"--see_task True: {self.name} has {size} numbers a task and observations of shape "
                f"{list(shape)}; it needs some numbers, and vectors"
            )
        if self.num_values:
            low, high = np.zeros(self.num_values), np.ones(self.num_values)
        else:
            low, high = own.low, own.high
        self.size, unknown = size, np.full(size, np.inf)
        self.observation_space = spaces.Box(
            np.concatenate([low, -unknown]).astype(np.float32),
            np.concatenate([high, unknown]).astype(np.float32),
            dtype=np.float32,
        )

    def sample(self, rng: Any, n: int) -> Parameters:
        """Tasks of the family."""
        return self.family.sample(rng, n)

    def check(self, parameters: Any) -> Parameters:
        """The parameters as the family has them."""
        return self.family.check(parameters)

    def make_vec(self, parameters: Parameters, rng: Any = None) -> "SeenTaskEnv":
        """The tasks side by side; raises `UserError` for tasks of another length than the first."""
        numbers = task_numbers(self.family, parameters)
        if numbers.shape[1] != self.size:
            raise UserError(
                f"--see_task True: {self.name} has tasks of {self.size} and of {numbers.shape[1]} numbers; "
                "all need as many"
            )
        return SeenTaskEnv(self, self.family.make_vec(parameters, rng), numbers)


class SeenTaskEnv:
    """Environments of a `SeenTask` family; they show `numbers [N, k]` behind each observation."""

    def __init__(self, family: SeenTask, env: Any, numbers: np.ndarray):
        self.env, self.num_envs, self.num_values, self.numbers = env, env.num_envs, family.num_values, numbers
        self.single_action_space = env.single_action_space
        self.single_observation_space = family.observation_space

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin all episodes."""
        observation, infos = self.env.reset(**options)
        return self.whole(observation), infos

    def step(self, actions: np.ndarray) -> tuple:
        """Act in each."""
        observation, reward, terminated, truncated, infos = self.env.step(actions)
        if "final_obs" in infos:
            final = final_observations(observation, infos, np.logical_or(terminated, truncated))
            infos = {**infos, "final_obs": self.whole(final)}
        return self.whole(observation), reward, terminated, truncated, infos

    def whole(self, observation: Any) -> np.ndarray:
        """Observations `[N, d + k]` float32, in arrays of their own."""
        seen = np.asarray(observation)
        seen = np.eye(self.num_values, dtype=np.float32)[seen] if self.num_values else seen
        return np.concatenate([seen, self.numbers], axis=1, dtype=np.float32)

    def close(self) -> None:
        """Close the environments."""
        self.env.close()
