"""Walks over a small grid, rewarded for the agents whose cells they pass (Ivanov & Ben-Porat 2024)."""

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete

from envs.parameters import EnvError, check_parameters, check_shapes
from envs.protocols import Draws, Parameters
from envs.shared_reward_env import OwnRewardVectorEnv, SharedVectorEnv

SIZE, HOME = 5, (4, 2)  # rows and columns, counted from the upper left
NUM_CELLS = SIZE * SIZE
MOVES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]])  # up, down, left, right
STEP_COST = 0.01


class ResourceGathering:
    """The family of agents who each live in one cell of a 5x5 grid and wait for a walk to pass by.

    The grid is that of mo-gymnasium's resource-gathering-v0 without its enemies and resources, as in Ivanov &
    Ben-Porat 2024 (arXiv 2401.06514). A walk starts at home, row 4 and column 2; actions 0..3 move up, down,
    left, right, and a move against the wall stays where it is. The walk ends when a move leads to home, also
    by bumping the wall there; the reward is then 1 - t/100 after t steps for each agent whose cell it has
    visited. A walk that is not home after 40 steps has failed, with no reward for anybody; it is
    `terminated` like one that came home, since this limit belongs to the task: a value after it would
    credit walks that never end.

    An agent's parameter is {"cell": [n] int in 0..24}, row * 5 + column. The observation is row, column, two
    zeros (once the removed resources) and 25 flags of visited cells; home's is set when the walk ends there.
    The outcome of a step [25] is the reward in each cell. There is no randomness.
    """

    name = "resource_gathering"
    observation_space = Box(0, SIZE - 1, (4 + NUM_CELLS,), np.float32)
    action_space = Discrete(len(MOVES))
    outcome_size = NUM_CELLS
    max_episode_len = 40
    max_return = 1 - STEP_COST  # of the agent at home, when the first step bumps the wall

    def sample(self, rng: Draws, n: int) -> Parameters:
        """Agent i lives in cell i modulo 25; `rng` is not used."""
        return {"cell": np.arange(n) % NUM_CELLS}

    def check(self, parameters: Any) -> Parameters:
        """The parameters as arrays of the right types; raises `EnvError` for what cannot be."""
        arrays = check_parameters(self.name, parameters)
        check_shapes(self.name, arrays, {"cell": ()})
        cell = arrays["cell"]
        if cell.dtype.kind not in "iu" or ((cell < 0) | (cell >= NUM_CELLS)).any():
            raise EnvError(
                f"{self.name}: a cell is not a whole number in 0..{NUM_CELLS - 1}; give row * 5 + column"
            )
        return {"cell": cell.astype(np.int64, copy=False)}

    def newcomers(self, rng: Draws, n: int) -> Parameters:
        """n agents, each in a cell of its own draw."""
        return {"cell": (rng.random(n) * NUM_CELLS).astype(np.int64)}

    def return_range(self, parameters: Parameters) -> tuple[np.ndarray, np.ndarray]:
        """0, and the reward of the shortest walk through the agent's cell, each `[n]`."""
        distance = np.abs(np.stack(np.divmod(parameters["cell"], SIZE), axis=1) - HOME).sum(1)
        return np.zeros(len(distance)), 1 - STEP_COST * np.maximum(2 * distance, 1)

    def task_numbers(self, parameters: Parameters) -> np.ndarray:
        """The cells as one-hot vectors `[n, 25]`."""
        return np.eye(NUM_CELLS, dtype=np.float32)[parameters["cell"]]

    def rewards(self, outcome: Any, parameters: Parameters) -> Any:
        """Rewards [..., n] of the agents for outcomes [..., 25], NumPy arrays or torch tensors."""
        return outcome[..., parameters["cell"]]

    def own_rewards(self, outcome: np.ndarray, parameters: Parameters) -> np.ndarray:
        """[n] of outcomes [n, 25], one for each agent."""
        return outcome[np.arange(len(outcome)), parameters["cell"]]

    def make_vec(self, parameters: Any, rng: Draws | None = None) -> OwnRewardVectorEnv:
        """The n tasks side by side."""
        return OwnRewardVectorEnv(self, parameters, rng)

    def order(self, parameters: Parameters) -> np.ndarray:
        """Agents [n] as seen from home, from right to left, then near to far: neighbours can share walks."""
        row, column = np.divmod(parameters["cell"], SIZE)
        up, right = HOME[0] - row, column - HOME[1]
        return np.lexsort((up + abs(right), np.arctan2(up, right)))

    def make_shared(
        self, num_envs: int, *, seed: int, index: Any = None, stagger: bool = False
    ) -> "ResourceGatheringShared":
        """`num_envs` walks, those with the global numbers `index`."""
        """`num_envs` environments whose steps are rewarded for all agents."""
        limit = self.max_episode_len
        return ResourceGatheringShared(
            num_envs, max_episode_len=limit, seed=seed, index=index, stagger=stagger
        )


class ResourceGatheringShared(SharedVectorEnv):
    """N walks stepped at once; see `ResourceGathering`."""

    action_space = ResourceGathering.action_space

    def __init__(self, num_envs: int, **settings: Any):
        super().__init__(num_envs, **settings)
        self.position = np.zeros((self.num_envs, 2), np.int64)  # row, column
        self.visited = np.zeros((self.num_envs, NUM_CELLS), bool)
        # Not `elapsed`, which starts above 0 in a staggered episode: its reward falls with its own steps.
        self.walked = np.zeros(self.num_envs, np.int64)

    def start(self, envs: np.ndarray, generators: list[np.random.Generator]) -> None:
        """Begin an episode at the positions that `envs` lists."""
        self.position[envs], self.visited[envs], self.walked[envs] = HOME, False, 0

    def observe(self) -> np.ndarray:
        """The present observations `[N, D]` float32."""
        observation = np.zeros((self.num_envs, 4 + NUM_CELLS), np.float32)
        observation[:, :2], observation[:, 4:] = self.position, self.visited
        return observation

    def advance(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outcomes and ends of one step."""
        self.position = np.clip(self.position + MOVES[actions], 0, SIZE - 1)
        self.visited[np.arange(self.num_envs), self.position @ (SIZE, 1)] = True
        self.walked += 1
        home = (self.position == HOME).all(axis=1)
        reward = np.where(home, 1 - STEP_COST * self.walked, 0)
        outcome = (self.visited * reward[:, None]).astype(np.float32)
        return outcome, home | (self.walked == self.max_episode_len)

    def dynamics_state(self) -> dict[str, np.ndarray]:
        """What the physics of N environments continue from, {name: `[N, ...]`}."""
        return {"position": self.position, "visited": self.visited, "walked": self.walked}

    def set_dynamics_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `dynamics_state`."""
        self.position, self.visited, self.walked = state["position"], state["visited"], state["walked"]
