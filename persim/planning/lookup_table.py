"""Simulators of agents with two state coordinates as tables: a step is a look-up instead of a network."""

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete

from persim.limits import stop
from persim.planning.candidate_returns import AgentModel, Model
from persim.simulator import Simulator

SHAPES = (256, 128), (512, 256)  # points along each coordinate; the finer where the coarser do not do
MAX_NUMBERS = 2**27  # of all tables: 512 MiB
MARGIN = 0.05  # of the observation space's width, on each side: predictions may leave it a little
CHECKS = 1000  # random states at which each table is held against its network
TOLERANCE = 0.5  # of the simulator's own typical error


def tabulate(model: Model, family: Any, agents: np.ndarray) -> Model:
    """A `Lookup` of the agents [n] of a simulator, where that is possible and sound, else `model` itself.

    Possible are two bounded coordinates and discrete actions; sound is a root mean squared difference of at
    most half of `model.noise` [2], the model's own typical error.
    """
    if not isinstance(model, Simulator) or not isinstance(family.action_space, Discrete):
        return model
    space, actions = family.observation_space, family.action_space
    if space.shape != (2,) or model.state_size != 2 or not space.is_bounded():
        return model
    agents, num_actions, margin = np.unique(agents), int(actions.n), MARGIN * (space.high - space.low)
    for shape in SHAPES:
        if 2 * model.num_models * len(agents) * num_actions * shape[0] * shape[1] <= MAX_NUMBERS:
            lookup = Lookup(model, agents, space.low - margin, space.high + margin, num_actions, shape)
            if (lookup.error(model) <= TOLERANCE * model.noise).all():
                return lookup
    return model


class Lookup:
    """Tables of the changes [2] that a model's M members predict for n agents under A actions.

    They are bilinear between points from `low` [2] to `high` [2]; a state beyond changes as the nearest one
    within. `tables` [M, 2, n * A * K, L] has L first coordinates in a row, and K second ones for each agent
    and action.
    """

    def __init__(
        self,
        model: Simulator,
        agents: np.ndarray,
        low: np.ndarray,
        high: np.ndarray,
        num_actions: int,
        shape: tuple[int, int],
    ) -> None:
        self.agents, self.num_actions, self.shape = agents, num_actions, shape
        self.low, self.high = torch.from_numpy(np.array([low, high], np.float32))
        axes = [np.linspace(*ends, dtype=np.float32) for ends in zip(low, high, shape, strict=True)]
        points = torch.from_numpy(np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2))
        self.walls, self.unit = model.walls, model.state_scale.cpu()
        changes = self.changes(unwalled(model.at(agents)), points.expand(len(agents), -1, -1))
        self.tables = changes.permute(1, 4, 2, 0, 3).reshape(len(changes[0]), 2, -1, shape[0]).contiguous()

    def changes(self, models: AgentModel, state: torch.Tensor) -> torch.Tensor:
        """Predicted changes [A, M, n, P, 2] of states [n, P, 2] under each action."""
        actions = torch.arange(self.num_actions)[:, None, None].expand(-1, *state.shape[:2])
        return torch.stack([models.step(state[None], action) - state for action in actions])

    def error(self, model: Simulator) -> torch.Tensor:
        """Root mean squared differences [2] to `model` at random states between `low` and `high`.

        Walls, which both share, do not count.
        """
        draws = np.random.default_rng(0).random((len(self.agents), CHECKS, 2), np.float32)
        state = self.low + (self.high - self.low) * torch.from_numpy(draws)
        own, others = (unwalled(m.at(self.agents)) for m in (self, model))
        difference = self.changes(own, state) - self.changes(others, state)
        return difference.square().mean((0, 1, 2, 3)).sqrt()

    def at(self, agents: Any) -> "AgentTables":
        """The tables of the agents [E], to be stepped; they must be among `self.agents`."""
        return AgentTables(self, np.searchsorted(self.agents, agents))


def unwalled(models: Any) -> Any:
    """Models of agents as they would be without walls."""
    models.walls = []
    return models


class AgentTables:
    """A `Lookup` for E agents that are its `rows` [E]."""

    def __init__(self, lookup: Lookup, rows: np.ndarray) -> None:
        self.tables, self.walls, self.unit = lookup.tables, lookup.walls, lookup.unit
        L, K = lookup.shape
        # grid_sample wants -1..1 from the first to the last point of the whole table, along each coordinate.
        self.point = 2 / torch.tensor([L - 1.0, self.tables.shape[2] - 1.0])
        self.scale = torch.tensor([L - 1.0, K - 1.0]) / (lookup.high - lookup.low) * self.point
        self.shift = -lookup.low * self.scale - 1
        self.last = float((K - 1) * self.point[1] - 1)
        self.first_row, self.num_rows = torch.as_tensor(rows * lookup.num_actions * K)[:, None], K

    @torch.no_grad()
    def step(self, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Next states [M, E, C, 2] of `state` [M, E, C, 2] or [1, E, C, 2] under `action` [E, C]."""
        M, E, C = len(self.tables), *action.shape
        place = torch.addcmul(self.shift, state, self.scale)
        table = (self.first_row + self.num_rows * action) * self.point[1]
        place[..., 1].clamp_(-1, self.last).add_(table)
        grid = place.expand(M, E, C, 2).reshape(M, E * C, 1, 2)
        change = torch.nn.functional.grid_sample(
            self.tables, grid, mode="bilinear", padding_mode="border", align_corners=True
        )
        return stop(self.walls, state + change.view(M, 2, E, C).permute(0, 2, 3, 1))
