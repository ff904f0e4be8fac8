"""Agents whose dynamics are given and differ in a few covariates, for PerSim and its planner."""

from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Space

from envs.parameters import EnvError, check_parameters, check_shapes, check_sizes
from envs.protocols import Draws, Parameters
from envs.task_env import FamilyVectorEnv, SingleTaskEnv


class Dynamics:
    """Base of the heterogeneous families of PerSim (Agarwal et al. 2021, arXiv 2102.06961).

    A task is an agent: a positive float64 for each of `covariates`, parameters {name: [n]}. A subclass sets
    the attributes below, `covariates` being {name: (low, high)}, from which agents are drawn uniformly, and
    `test_agents` and `behaviour_agents` {name: [k]}. It defines `start`, and for any leading axes [...] the
    deterministic `advance` (of states [..., d] and actions [...] or [..., a]), `reward` and `terminated`.
    The observation is the state in float32. Time limits are the environment's affair: `truncated`.
    """

    name: str
    state_names: tuple[str, ...]
    observation_space: Space[Any]
    action_space: Space[Any]
    max_episode_len: int
    covariates: dict[str, tuple[float, float]]
    default: dict[str, float]
    test_agents: dict[str, np.ndarray]
    behaviour_agents: dict[str, np.ndarray]

    def __init__(self, max_episode_len: int | None = None):
        if max_episode_len is not None:
            check_sizes(self.name, max_episode_len=max_episode_len)
            self.max_episode_len = int(max_episode_len)

    def start(self, rng: Draws, n: int) -> np.ndarray:
        """First states `[n, d]` float64, with as many draws for each row."""
        raise NotImplementedError

    def advance(self, state: Any, action: Any, parameters: Parameters) -> Any:
        """Next states `[..., d]`; the parameters broadcast to `[...]`."""
        raise NotImplementedError

    def reward(self, state: Any, action: Any, next_state: Any) -> Any:
        """Rewards `[...]` of steps, NumPy arrays or torch tensors."""
        raise NotImplementedError

    def terminated(self, next_state: Any) -> Any:
        """Whether an episode ends in the states `[..., d]`, NumPy arrays or torch tensors."""
        raise NotImplementedError

    def sample(self, rng: Draws, n: int) -> Parameters:
        """Parameters `[n, ...]` of n tasks."""
        ranges = self.covariates.items()
        return {name: low + (high - low) * rng.random(n, dtype=np.float64) for name, (low, high) in ranges}

    def check(self, parameters: Any) -> Parameters:
        """The parameters as arrays of the right types; raises `EnvError` for what cannot be."""
        arrays = check_parameters(self.name, parameters)
        check_shapes(self.name, arrays, {name: () for name in self.covariates})
        for name, array in arrays.items():
            if (array <= 0).any():
                task = (array <= 0).argmax()
                raise EnvError(f"{self.name}: {name} of task {task} is {array[task]}; give a positive number")
        return {name: arrays[name].astype(np.float64) for name in self.covariates}

    def make_vec(self, parameters: Any, rng: Draws | None = None) -> "DynamicsVectorEnv":
        """The n tasks side by side."""
        limit = self.max_episode_len
        return DynamicsVectorEnv(type(self), parameters=parameters, rng=rng, max_episode_len=limit)


class DynamicsVectorEnv(FamilyVectorEnv):
    """N agents of one `Dynamics` family stepped at once; steps follow from `state` [N, d] float64 alone."""

    def load(self, parameters: Parameters) -> None:
        """Keep the tasks' arrays."""
        self.state = np.zeros((self.num_envs, len(self.family.state_names)))

    def start(self) -> np.ndarray:
        """Begin an episode in every task; the first observations `[N, ...]`."""
        self.first = self.family.start(self._draws(), self.num_envs)
        return super().start()

    def begin(self, tasks: np.ndarray) -> np.ndarray:
        """Begin an episode in the tasks `[N]` bool; all observations `[N, ...]`."""
        self.state[tasks] = self.first[tasks]
        return self.state.astype(np.float32)

    def advance(self, actions: np.ndarray, rng: Draws) -> tuple[np.ndarray, ...]:
        """What one step leads to."""
        # Starts are drawn for all tasks at every step: when episodes end depends on the data.
        self.first = self.family.start(rng, self.num_envs)
        before, self.state = self.state, self.family.advance(self.state, actions, self.parameters)
        rewards = self.family.reward(before, actions, self.state).astype(np.float32)
        return self.state.astype(np.float32), rewards, self.family.terminated(self.state)

    def get_state(self) -> dict[str, np.ndarray]:
        """Copies of "state" [N, d] float64 and "elapsed" [N], the steps of each running episode."""
        if self.elapsed is None:
            raise ResetNeeded("get_state before reset: call reset() first")
        return {"state": self.state.copy(), "elapsed": self.elapsed.copy()}

    def set_state(self, state: dict[str, np.ndarray]) -> np.ndarray:
        """Go on from what `get_state` gave, or from states of one's own; the observations [N, d].

        Raises `EnvError` for states that are none.
        """
        if self.parameters is None:
            raise ResetNeeded("set_state before there are agents: give parameters or call reset() first")
        arrays = check_parameters(f"{self.family.name}: set_state", state, self.num_envs)
        check_shapes(f"{self.family.name}: set_state", arrays, {"state": self.state.shape[1:], "elapsed": ()})
        elapsed = arrays["elapsed"]
        if elapsed.dtype.kind not in "iu" or ((elapsed < 0) | (elapsed >= self.max_episode_len)).any():
            text = f"elapsed must be whole numbers in 0..{self.max_episode_len - 1}"
            raise EnvError(f"{self.family.name}: set_state: {text}")
        self.state, self.elapsed = arrays["state"].astype(np.float64), elapsed.astype(np.int64)
        return self.state.astype(np.float32)


class DynamicsEnv(SingleTaskEnv):
    """One agent of a `Dynamics` family; `parameters` with n = 1 fix the agent."""

    def __init__(self, family_type: type[Dynamics], *, parameters: Any = None, **sizes: Any):
        super().__init__(DynamicsVectorEnv(family_type, parameters=parameters, **sizes))
