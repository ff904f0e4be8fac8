"""How much a planner is to shun what the ensemble does not agree on, found without a true return."""

import copy
from typing import Any

import numpy as np
import torch

from mpi_utils.comm import Comm
from persim.partial import planned
from persim.planning.planner import settings_of
from persim.policy import Actor, play
from persim.simulator import Simulator

TRIED = (0.0, 0.1, 1.0, 10.0)  # rewards a step for members that are one deviation apart


class MemberDynamics:
    """A `planned` family whose true dynamics are those that one simulator foresees.

    Its states are the simulator's; parameters are {"agent": [E]}.
    """

    def __init__(self, family: Any, simulator: Simulator) -> None:
        self.family, self.simulator = family, simulator

    def __getattr__(self, name: str) -> Any:
        if name == "as_state":  # what is seen is a state already
            raise AttributeError(name)
        return getattr(self.family, name)

    def start(self, rng: np.random.Generator, num_episodes: int) -> np.ndarray:
        """First states [num_episodes, D]."""
        start = self.family.start(rng, num_episodes)
        if hasattr(self.family, "as_state"):
            start = self.family.as_state(start)
        return self.family.history.first(start) if self.simulator.history else start

    def advance(self, state: np.ndarray, action: np.ndarray, parameters: dict[str, np.ndarray]) -> np.ndarray:
        """The next states [E, D] of `state` [E, D] under `action` [E] or [E, a]."""
        given = torch.from_numpy(state.astype(np.float32))[None, :, None]
        after = self.simulator.at(parameters["agent"]).step(given, torch.from_numpy(action)[:, None])
        return after.mean(0)[:, 0].double().numpy()


def choose(
    config: Any, family: Any, simulator: Simulator, agents: np.ndarray, seed: int, comm: Comm, **planning: Any
) -> tuple[float, np.ndarray]:
    """The pessimism to plan with, and the returns [len(TRIED), M, n] that tell it; a collective.

    Each member in turn is left out: one episode of each of the agents [n] is planned on the others and played
    in the one that is left out, which is wrong in ways of its own. Chosen is the least of `TRIED` whose mean
    return is at most a standard error, of what it differs in from the best, below the best. With fewer than
    three members nothing can be told, and it is 0.
    """
    active = simulator.active_members.nonzero()[:, 0].tolist()
    if len(active) < 3:
        return 0.0, np.zeros((len(TRIED), 0, len(agents)))
    returns = np.zeros((len(TRIED), len(active), len(agents)))
    family, numbers = planned(config, family, simulator.history), agents * (not config.pooled)
    for m, member in enumerate(active):
        alone, others = copy.deepcopy(simulator), copy.deepcopy(simulator)
        alone.active_members[:] = False
        alone.active_members[member], others.active_members[member] = True, False
        for i, pessimism in enumerate(TRIED):
            world, settings = (
                MemberDynamics(family, alone),
                settings_of(family, pessimism=pessimism, **planning),
            )
            actor = Actor(world, others, numbers, seed=seed, settings=settings)
            returns[i, m] = play(world, {"agent": numbers}, actor, 1, seed, comm)[:, 0]
    return least(returns.reshape(len(TRIED), -1)), returns


def least(returns: np.ndarray) -> float:
    """The least of `TRIED` whose returns [len(TRIED), K] are not clearly below the best ones."""
    best = returns[returns.mean(1).argmax()]
    behind = best - returns
    errors = behind.std(1, ddof=1) / np.sqrt(returns.shape[1])
    return TRIED[int(np.flatnonzero(behind.mean(1) <= errors)[0])]
