"""Trajectories made inside the agents' simulators, for offline learners (PerSim-BCQ-5 and PerSim-CQL-5)."""

from typing import Any

import numpy as np
import torch

from persim.data.trajectories import log_dynamics
from persim.data.transitions import Transitions
from persim.planning.lookup_table import tabulate
from persim.planning.planner import Settings, make_planner
from persim.simulator import Simulator


class Imagined:
    """The family of agents {"agent": numbers [E]} that live in a simulator, in the mean of its members.

    Starts, rewards, ends and spaces are those of the true `family`.
    """

    def __init__(self, family: Any, model: Simulator) -> None:
        self.family, self.model = family, model
        self.start, self.reward, self.terminated = family.start, family.reward, family.terminated
        self.state_names, self.max_episode_len = family.state_names, family.max_episode_len

    def advance(self, state: np.ndarray, action: np.ndarray, parameters: dict[str, np.ndarray]) -> np.ndarray:
        """Next states [E, d] of `state` [E, d] under `action` [E] or [E, a]."""
        here = torch.from_numpy(state.astype(np.float32))[None, :, None]
        following = self.model.at(parameters["agent"]).step(here, torch.from_numpy(action)[:, None])
        return following.mean(0)[:, 0].double().numpy()


def imagine(
    family: Any,
    simulator: Simulator,
    agents: np.ndarray,
    num_episodes: int,
    settings: Settings,
    rng: np.random.Generator,
    seed: int,
) -> list[Transitions]:
    """`num_episodes` episodes of each of the agents [n] in their own simulators, where a planner acts.

    Section 6 says no more than that they are PerSim's; the planner (`settings`, as in `make_planner`) is what
    PerSim acts by. Returns the transitions of each agent.
    """
    number = np.repeat(agents, num_episodes)
    planner = make_planner(family, len(number), seed, settings)
    model, everyone = tabulate(simulator, family, agents), np.arange(len(number))

    def policy(state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return planner.plan(model, number, state, everyone)

    played = log_dynamics(Imagined(family, simulator), {"agent": number}, policy, rng)
    return [played.of(np.flatnonzero(number == agent)) for agent in agents]
