"""Random tabular Markov decision processes (Duan et al. 2016, section 3.2)."""

from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from envs.parameters import EnvError, check_parameters, check_shapes, check_sizes
from envs.protocols import Draws, Parameters
from envs.task_env import SingleTaskEnv, TaskVectorEnv


class TabularMDP:
    """The family of random tabular MDPs (Duan et al. 2016, arXiv 1611.02779, section 3.2).

    A task has S = `num_states` states and A = `num_actions` actions: parameters {"transition": [n, S, A, S]
    float32, "reward_mean": [n, S, A] float32}. Each transition[s, a] is drawn from the flat Dirichlet
    distribution, each reward_mean[s, a] from N(1, 1). An episode starts in state 0 and is `truncated` after
    `max_episode_len` steps. The reward of action a in state s is reward_mean[s, a] + `noise_scale` *
    N(0, 1), with new noise at each step. The observation is the state, in Discrete(S). The defaults
    are the paper's.
    """

    name = "tabular_mdp"
    random_reward = 1.0  # the mean of a step of random actions: a mean reward is N(1, 1)

    def __init__(
        self, num_states: int = 10, num_actions: int = 5, max_episode_len: int = 10, noise_scale: float = 1.0
    ):
        check_sizes("tabular_mdp", num_states=num_states, num_actions=num_actions)
        check_sizes("tabular_mdp", max_episode_len=max_episode_len)
        if not 0 <= noise_scale < np.inf:
            raise EnvError(f"tabular_mdp: noise_scale is {noise_scale!r}; give a finite number of at least 0")
        self.num_states, self.num_actions = int(num_states), int(num_actions)
        self.max_episode_len, self.noise_scale = int(max_episode_len), float(noise_scale)
        self.observation_space, self.action_space = Discrete(self.num_states), Discrete(self.num_actions)

    def sample(self, rng: Draws, n: int) -> Parameters:
        """Parameters `[n, ...]` of n tasks."""
        pairs = (n, self.num_states, self.num_actions)
        # Normalised exponentials are flat Dirichlet; unlike rng.dirichlet they come in float32.
        transition = rng.standard_exponential((*pairs, self.num_states), dtype=np.float32)
        transition /= transition.sum(axis=-1, keepdims=True)
        return {"transition": transition, "reward_mean": 1 + rng.standard_normal(pairs, dtype=np.float32)}

    def check(self, parameters: Any) -> Parameters:
        """The parameters as arrays of the right types; raises `EnvError` for what cannot be."""
        arrays = check_parameters("tabular_mdp", parameters)
        pairs = (self.num_states, self.num_actions)
        check_shapes("tabular_mdp", arrays, {"transition": (*pairs, self.num_states), "reward_mean": pairs})
        arrays = {name: array.astype(np.float32, copy=False) for name, array in arrays.items()}
        transition = arrays["transition"]
        if (transition < 0).any() or (np.abs(transition.sum(axis=-1) - 1) > 1e-4).any():
            raise EnvError("tabular_mdp: a row of transition does not sum to 1; give probabilities")
        return arrays

    def make_vec(self, parameters: Any, rng: Draws | None = None) -> "TabularMDPVectorEnv":
        """The n tasks side by side."""
        return TabularMDPVectorEnv(
            parameters=parameters,
            rng=rng,
            num_states=self.num_states,
            num_actions=self.num_actions,
            max_episode_len=self.max_episode_len,
            noise_scale=self.noise_scale,
        )


class TabularMDPVectorEnv(TaskVectorEnv):
    """N tabular MDPs stepped at once; see `TabularMDP`."""

    def __init__(
        self, num_envs: int | None = None, *, parameters: Any = None, rng: Draws | None = None, **sizes: Any
    ):
        family = TabularMDP(**sizes)
        super().__init__(family, num_envs, family.max_episode_len, parameters, rng)

    def load(self, parameters: Parameters) -> None:
        """Keep the tasks' arrays."""
        S, A = self.family.num_states, self.family.num_actions
        self.reward_mean = np.ascontiguousarray(parameters["reward_mean"]).ravel()
        cumulative = parameters["transition"].reshape(-1, S).cumsum(axis=1, dtype=np.float64)
        # Rounding leaves sums below 1: from the last possible state on, the bound must exceed every draw.
        cumulative[cumulative >= cumulative[:, -1:]] = 2
        self.cumulative = cumulative.astype(np.float32)  # [N * S * A, S]
        self.first_row = np.arange(self.num_envs) * (S * A)

    def start(self) -> np.ndarray:
        """Begin an episode in every task; the first observations `[N, ...]`."""
        self.row = self.first_row  # [N] of (task, state 0)
        return np.zeros(self.num_envs, np.int64)

    def advance(self, actions: np.ndarray, rng: Draws) -> tuple[np.ndarray, ...]:
        """What one step leads to."""
        uniform = rng.random(self.num_envs, dtype=np.float32)
        noise = rng.standard_normal(self.num_envs, dtype=np.float32)
        index = self.row + actions
        states = (self.cumulative.take(index, axis=0) > uniform[:, None]).argmax(axis=1)
        self.row = self.first_row + states * self.family.num_actions
        return states, self.reward_mean.take(index) + np.float32(self.family.noise_scale) * noise


class TabularMDPEnv(SingleTaskEnv):
    """One tabular MDP; see `TabularMDP`. `parameters` with n = 1 fixes the task."""

    def __init__(self, *, parameters: Any = None, **sizes: Any):
        super().__init__(TabularMDPVectorEnv(parameters=parameters, **sizes))
