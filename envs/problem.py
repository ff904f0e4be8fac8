"""A problem: a family of tasks, and the population of agents in it. Every learner is given one."""

import dataclasses
import functools
import hashlib
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from envs.parameters import EnvError
from envs.protocols import Parameters


@dataclasses.dataclass(frozen=True)
class Problem:
    """n agents of one environment, or a whole family whose tasks are drawn anew each time.

    `log` is what was logged of the agents, for methods that learn from it alone.
    """

    environment: str  # its name, or module:factory of a user's own
    family: Any  # a Family; what of it a method needs, it says itself
    agents: Parameters | None = None  # [n, ...]; None: no population
    horizon: int = 0  # steps of an episode at most; 0: the family's
    support: np.ndarray | None = None  # numbers of the agents to train on; None: a learner's own choice
    log: Any = None

    def __post_init__(self) -> None:
        if not self.horizon:
            object.__setattr__(self, "horizon", self.family.max_episode_len)

    @property
    def num_agents(self) -> int:
        """n; 0 where tasks are drawn anew."""
        return len(next(iter(self.agents.values()))) if self.agents else 0

    def rows(self, index: Any) -> Parameters:
        """Parameters of the agents `index`."""
        if self.agents is None:
            raise ValueError(f"{self.environment} has no population to choose agents from")
        return {name: values[index] for name, values in self.agents.items()}

    def make_vec(self, index: Any, rng: Any = None) -> VectorEnv:
        """Environments of the agents `index`, side by side, drawing from `rng` if it is given."""
        return self.family.make_vec(self.rows(index), rng)

    def sample(self, rng: Any, n: int) -> Parameters:
        """Parameters of n tasks: agents of the population, each as likely, or drawn by the family."""
        if self.agents is None:
            return self.family.sample(rng, n)
        return self.rows((rng.random(n) * self.num_agents).astype(np.int64))

    def require_same(self, digest: str) -> None:
        """Raise `EnvError` if a run's population, of that `digest`, is another."""
        if digest != self.digest:
            raise EnvError(
                "--population: other agents than those of the run; give them or another --model_name"
            )

    @functools.cached_property
    def digest(self) -> str:
        """What the population is, as a few hexadecimal digits."""
        whole = hashlib.sha256(f"{self.environment} {self.horizon}".encode())
        for name, values in (self.agents or {}).items():
            whole.update(f" {name} {values.dtype} {values.shape} ".encode() + values.tobytes())
        return whole.hexdigest()[:16]
