"""Agents whose dynamics are given and differ in a few covariates, for PerSim and its planner."""

import numpy as np
from gymnasium.error import ResetNeeded

from envs.parameters import EnvError, check_parameters, check_shapes, check_sizes
from envs.task_env import SeparateTaskVectorEnv, SingleTaskEnv


class Dynamics:
    """Base of the heterogeneous families of PerSim (Agarwal et al. 2021, arXiv 2102.06961).

    A task is an agent: a positive float64 for each of `covariates`, parameters {name: [n]}. A subclass sets
    `name`, `state_names`, both spaces, `max_episode_len`, `covariates` {name: (low, high)}, from which agents
    are drawn uniformly, `default` {name: value}, and `test_agents` and `behaviour_agents` {name: [k]}. It
    defines, for any leading axes [...]:
    - `start(rng, n) -> state [n, d]` float64, drawing as many variates for each row;
    - `advance(state [..., d], action [...] or [..., a], parameters) -> next state [..., d]`, deterministic,
      with parameters that broadcast to [...];
    - `reward(state, action, next_state) -> [...]` and `terminated(next_state) -> [...]` bool, of NumPy arrays
      or of torch tensors.
    The observation is the state in float32. Time limits are the environment's affair: `truncated`.
    """

    def __init__(self, max_episode_len: int | None = None):
        if max_episode_len is not None:
            check_sizes(self.name, max_episode_len=max_episode_len)
            self.max_episode_len = int(max_episode_len)

    def sample(self, rng, n: int) -> dict[str, np.ndarray]:
        ranges = self.covariates.items()
        return {name: low + (high - low) * rng.random(n, dtype=np.float64) for name, (low, high) in ranges}

    def check(self, parameters) -> dict[str, np.ndarray]:
        arrays = check_parameters(self.name, parameters)
        check_shapes(self.name, arrays, {name: () for name in self.covariates})
        for name, array in arrays.items():
            if (array <= 0).any():
                task = (array <= 0).argmax()
                raise EnvError(f"{self.name}: {name} of task {task} is {array[task]}; give a positive number")
        return {name: arrays[name].astype(np.float64) for name in self.covariates}

    def make_vec(self, parameters, rng=None) -> "DynamicsVectorEnv":
        limit = {"max_episode_len": self.max_episode_len}
        return DynamicsVectorEnv(type(self), parameters=parameters, rng=rng, **limit)


class DynamicsVectorEnv(SeparateTaskVectorEnv):
    """N agents of one `Dynamics` family stepped at once; steps follow from `state` [N, d] float64 alone."""

    def __init__(self, family_type, num_envs: int | None = None, *, parameters=None, rng=None, **sizes):
        family = family_type(**sizes)
        super().__init__(family, num_envs, family.max_episode_len, parameters, rng)

    def load(self, parameters):
        self.state = np.zeros((self.num_envs, len(self.family.state_names)))

    def start(self):
        self.first = self.family.start(self._draws(), self.num_envs)
        return super().start()

    def begin(self, tasks):
        self.state[tasks] = self.first[tasks]
        return self.state.astype(np.float32)

    def advance(self, actions, rng):
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

    def set_state(self, state) -> np.ndarray:
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

    def __init__(self, family_type, *, parameters=None, **sizes):
        super().__init__(DynamicsVectorEnv(family_type, parameters=parameters, **sizes))
