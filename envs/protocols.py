"""What families, environments and dynamics must answer. They are held by these types alone, no base class."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from gymnasium.spaces import Space
from gymnasium.vector import VectorEnv

Parameters = dict[str, np.ndarray]  # a population or a batch of tasks: arrays [n, ...]


class Draws(Protocol):
    """What tasks and environments draw from: a NumPy generator, or a stream that ranks share.

    Sizes begin with the number of rows, so that a rank that has some of the rows draws the same for them.
    """

    def random(self, size: Any, dtype: Any = ...) -> Any:
        """Uniform in [0, 1)."""
        ...

    def standard_normal(self, size: Any, dtype: Any = ...) -> Any:
        """Normal with mean 0 and variance 1."""
        ...

    def standard_exponential(self, size: Any, dtype: Any = ...) -> Any:
        """Exponential with mean 1."""
        ...


@runtime_checkable
class Family(Protocol):
    """A distribution of tasks that share both spaces. A task is an agent of the population.

    It may have `steps_per_day`, by which reports tell days too, and a `note` that they show;
    `task_numbers(parameters) -> [n, k]`, what a policy is given that is to know the task, in place of the
    parameters themselves; `return_range(parameters) -> (floor [n], best [n])`, returns of an episode that
    count as nothing for an agent and the best that it can have; and `newcomers(rng, n)`, independent draws of
    n tasks where those of `sample` are not.
    """

    name: str
    max_episode_len: int

    @property
    def observation_space(self) -> Space[Any]:
        """Of one task's environment."""
        ...

    @property
    def action_space(self) -> Space[Any]:
        """Of one task's environment."""
        ...

    def sample(self, rng: Any, n: int) -> Parameters:
        """Parameters `[n, ...]` of n tasks."""
        ...

    def check(self, parameters: Any) -> Parameters:
        """The parameters as arrays of the family's types; raises `EnvError` for what cannot be."""
        ...


@runtime_checkable
class TaskFamily(Family, Protocol):
    """A family whose tasks are environments of their own."""

    def make_vec(self, parameters: Parameters, rng: Any = None) -> VectorEnv:
        """The n tasks side by side, with SAME_STEP autoreset, drawing from `rng` if it is given.

        `infos["final_obs"]` holds the last observations of episodes that ended in the step.
        """
        ...


@runtime_checkable
class SharedRewardFamily(TaskFamily, Protocol):
    """A family whose tasks share their dynamics: one step is rewarded for every agent.

    An outcome `[..., outcome_size]` is what rewards are made of.
    """

    outcome_size: int

    def rewards(self, outcome: Any, parameters: Parameters) -> Any:
        """Rewards `[..., n]` of outcomes `[..., outcome_size]`, NumPy arrays or torch tensors."""
        ...

    def own_rewards(self, outcome: np.ndarray, parameters: Parameters) -> np.ndarray:
        """Rewards `[n]` where agent i had the outcome `[n, outcome_size]`'s row i."""
        ...

    def order(self, parameters: Parameters) -> np.ndarray:
        """The agents `[n]` in an order in which neighbours are alike."""
        ...

    def make_shared(
        self, num_envs: int, *, seed: int, index: np.ndarray | None = None, stagger: bool = False
    ) -> "SharedRewardEnv":
        """`num_envs` environments, those with the global numbers `index`."""
        ...


class SharedRewardEnv(Protocol):
    """N environments whose steps are rewarded later, for a whole population."""

    num_envs: int

    def reset(self) -> np.ndarray:
        """The first observations `[N, D]`."""
        ...

    def step(self, actions: np.ndarray) -> Any:
        """Act in each; an `envs.shared_reward_env.Step`."""
        ...

    def get_state(self) -> dict[str, np.ndarray]:
        """All that continuing bit for bit needs, `[N, ...]`."""
        ...

    def set_state(self, state: dict[str, np.ndarray]) -> np.ndarray:
        """Continue from `get_state`; the observations `[N, D]` that acting goes on from."""
        ...


@runtime_checkable
class Dynamics(TaskFamily, Protocol):
    """A family whose transitions are given as functions, which planners call."""

    state_names: tuple[str, ...]

    def start(self, rng: Any, n: int) -> np.ndarray:
        """First states `[n, d]` float64."""
        ...

    def advance(self, state: Any, action: Any, parameters: Parameters) -> Any:
        """Next states `[..., d]`, for parameters that broadcast to `[...]`."""
        ...

    def reward(self, state: Any, action: Any, next_state: Any) -> Any:
        """Rewards `[...]`, NumPy arrays or torch tensors."""
        ...

    def terminated(self, next_state: Any) -> Any:
        """Whether an episode ends there `[...]`, NumPy arrays or torch tensors."""
        ...
