"""Which of many tasks fails where they are stepped together: found by doing the same with fewer of them."""

import contextlib
import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from envs.protocols import Draws, Parameters

LARGEST = 2**27  # bytes of actions that are kept; after more, the task is not looked for


class Recording:
    """What was done with `make(parameters, rng)` of n tasks so far, to be done again with some of them.

    The stream `rng` is copied as it is now, so a user's environment that follows from it alone fails again.
    """

    def __init__(self, make: Callable[..., VectorEnv], parameters: Parameters, rng: Draws | None):
        self.make, self.parameters, self.draws = make, parameters, copy.deepcopy(rng)
        self.num_tasks = len(next(iter(parameters.values())))
        self.calls: list[tuple[str, Any]] = []  # resets with their arguments, steps with actions [n, ...]
        self.bytes = 0

    def reset(self, seed: Any, options: Any) -> None:
        """A reset comes."""
        self.calls.append(("reset", (seed, options)))

    def step(self, actions: np.ndarray) -> None:
        """A step comes."""
        self.bytes += actions.nbytes
        if self.bytes <= LARGEST:
            self.calls.append(("step", actions))
        else:
            self.calls.clear()

    def failing(self, error: Exception) -> slice:
        """The least rows, halved again and again, in which the same kind of `error` comes again."""
        rows = slice(0, self.num_tasks)
        while self.bytes <= LARGEST and rows.stop - rows.start > 1:
            middle = (rows.start + rows.stop) // 2
            halves = slice(rows.start, middle), slice(middle, rows.stop)
            failed = [half for half in halves if isinstance(self.again(half), type(error))]
            if not failed:
                break
            rows = failed[0]
        return rows

    def again(self, rows: slice) -> Exception | None:
        """Do everything again with the tasks `rows`; how that fails."""
        env, draws = None, copy.deepcopy(self.draws)
        try:
            own = {name: values[rows] for name, values in self.parameters.items()}
            env = self.make(own, None if draws is None else OfRows(draws, self.num_tasks, rows))
            for name, given in self.calls:
                if name == "step":
                    env.step(given[rows])
                else:
                    env.reset(seed=seed_of(given[0], rows), options=given[1])
        except Exception as error:
            return error
        finally:
            if env is not None:
                with contextlib.suppress(Exception):  # what is looked for has failed before
                    env.close()
        return None


def seed_of(seed: Any, rows: slice) -> Any:
    """What seeds the tasks `rows` as `seed` did all of them."""
    if seed is None:
        return None
    return int(seed) + rows.start if isinstance(seed, int | np.integer) else list(seed)[rows]


class OfRows:
    """A stream that draws for all n rows and gives those of some."""

    def __init__(self, draws: Any, num_rows: int, rows: slice):
        self.draws, self.num_rows, self.rows = draws, num_rows, rows

    def __getattr__(self, name: str) -> Callable[..., np.ndarray]:
        def drawn(size: Any, *args: Any, **kwargs: Any) -> np.ndarray:
            _, *rest = np.atleast_1d(size).tolist()
            return getattr(self.draws, name)((self.num_rows, *rest), *args, **kwargs)[self.rows]

        return drawn
