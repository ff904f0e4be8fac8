"""A grid in which an unknown cell is to be found and remembered (Zintgraf et al. 2020)."""

from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from envs.parameters import EnvError, check_parameters, check_shapes, check_sizes
from envs.protocols import Draws, Parameters
from envs.task_env import SingleTaskEnv, TaskVectorEnv

SIZE = 5
NUM_CELLS = SIZE * SIZE
GOALS = np.array([cell for cell in range(NUM_CELLS) if cell not in (0, 1, SIZE, SIZE + 1)])
MOVES = np.array([(0, 0), (0, 1), (1, 0), (0, -1), (-1, 0)])  # x, y: stay, up, right, down, left
PLACES = np.stack(np.divmod(np.arange(NUM_CELLS), SIZE), axis=1)  # x, y of each cell
NEXT = (PLACES[:, None] + MOVES).clip(0, SIZE - 1) @ np.array([SIZE, 1])  # [cell, action]


class GridNavi:
    """GridNavi of VariBAD (Zintgraf et al. 2020, arXiv 1910.08348): find the goal, then go straight to it.

    A task is {"goal": [n]}: the cell 5 x + y of a 5 x 5 grid, each as likely of the 21 that are not (0, 0),
    (0, 1), (1, 0) and (1, 1). Each episode of 15 steps begins in cell 0. Actions 0 to 4 stay, and go up (y +
    1), right (x + 1), down and left; walls stop. The reward is 1 where a step leads to the goal or stays on
    it, else -0.1. The observation is the cell, in Discrete(25), in place of the published pair (x, y).

    No policy returns more on average than 4, 11.0714 (232.5 / 21), 11.0714 and 11.0714 in the first four
    episodes of a task, and one returns exactly that: `SEARCH` of tests/envs/test_suite_grid_navi.py.
    """

    name = "grid_navi"

    def __init__(self, max_episode_len: int = 15):
        check_sizes(self.name, max_episode_len=max_episode_len)
        self.max_episode_len = int(max_episode_len)
        self.observation_space, self.action_space = Discrete(NUM_CELLS), Discrete(len(MOVES))

    def sample(self, rng: Draws, n: int) -> Parameters:
        """Parameters `[n]` of n tasks."""
        return {"goal": GOALS[(len(GOALS) * rng.random(n, dtype=np.float64)).astype(np.int64)]}

    def check(self, parameters: Any) -> Parameters:
        """The parameters as arrays of the right types; raises `EnvError` for what cannot be."""
        arrays = check_parameters(self.name, parameters)
        check_shapes(self.name, arrays, {"goal": ()})
        wrong = ~np.isin(arrays["goal"], GOALS)
        if wrong.any():
            task = wrong.argmax()
            text = f"goal of task {task} is {arrays['goal'][task]}; give a cell in 2..24 but 5 and 6"
            raise EnvError(f"{self.name}: {text}")
        return {"goal": arrays["goal"].astype(np.int64)}

    def task_numbers(self, parameters: Parameters) -> np.ndarray:
        """The goals as one-hot vectors `[n, 25]`."""
        return np.eye(NUM_CELLS, dtype=np.float32)[parameters["goal"]]

    def make_vec(self, parameters: Any, rng: Draws | None = None) -> "GridNaviVectorEnv":
        """The n tasks side by side."""
        return GridNaviVectorEnv(parameters=parameters, rng=rng, max_episode_len=self.max_episode_len)


class GridNaviVectorEnv(TaskVectorEnv):
    """N grids stepped at once; see `GridNavi`."""

    def __init__(
        self, num_envs: int | None = None, *, parameters: Any = None, rng: Draws | None = None, **sizes: Any
    ):
        family = GridNavi(**sizes)
        super().__init__(family, num_envs, family.max_episode_len, parameters, rng)

    def load(self, parameters: Parameters) -> None:
        """Keep the tasks' arrays."""
        self.goal = parameters["goal"]

    def start(self) -> np.ndarray:
        """Begin an episode in every task; the first observations `[N]`."""
        self.cell = np.zeros(self.num_envs, np.int64)
        return self.cell

    def advance(self, actions: np.ndarray, rng: Draws) -> tuple[np.ndarray, ...]:
        """What one step leads to."""
        self.cell = NEXT[self.cell, actions]
        return self.cell, np.where(self.cell == self.goal, 1.0, -0.1).astype(np.float32)


class GridNaviEnv(SingleTaskEnv):
    """One grid; see `GridNavi`. `parameters {"goal": [1]}` fixes the task."""

    def __init__(self, *, parameters: Any = None, **sizes: Any):
        super().__init__(GridNaviVectorEnv(parameters=parameters, **sizes))
