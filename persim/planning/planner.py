"""Planning by a model: random shooting and the cross-entropy method, for many episodes in one call."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete

from common.errors import UserError
from common.runs.seeding import stream
from persim.planning.candidate_returns import AgentModel, Model, returns_of


@dataclass(frozen=True)
class Settings:
    """How to plan; the defaults and `AUTHORS` are those of the authors' code."""

    horizon: int = 50
    """Steps looked ahead."""
    num_candidates: int = 1000
    """Sequences of actions tried, in each round of the cross-entropy method."""
    mask: bool = False
    """Whether an end that the model predicts is one."""
    most: float = np.inf
    """Shooting: the largest reward of a step; candidates after one that always has it are not tried."""
    shaping: float = 0.0
    """What the largest first coordinate of a predicted trajectory is worth."""
    pessimism: float = 0.0
    """What it costs a plan, in rewards a step, that members are one deviation of the log's states apart; so
    MOPO (Yu et al. 2020, arXiv 2005.13239) learns, here it plans."""
    num_elites: int = 50
    """Cross-entropy method: the best sequences, which the next are drawn around."""
    num_rounds: int = 6
    """Cross-entropy method: draws of candidates."""
    deviation: tuple[float, float] = (0.3, 0.6)
    """Cross-entropy method: of the first round, where -1..1 is all; drawn anew at each step between these."""


AUTHORS = {
    "mountain_car": Settings(shaping=0.5),
    "cart_pole": Settings(mask=True, most=1.0),
    "half_cheetah_body": Settings(horizon=30, num_candidates=200),
}
OURS = dict.fromkeys(
    ("diabetes", "diabetes_relative"),
    Settings(horizon=36, num_candidates=32, num_elites=8, num_rounds=3, deviation=(0.05, 0.15)),
)


def settings_of(
    family: Any, horizon: int | None = None, num_candidates: int | None = None, pessimism: float = 0.0
) -> Settings:
    """The authors' settings for a family (else the usual ones), but for what is given and not 0."""
    settings = (AUTHORS | OURS).get(family.name, Settings(mask=True))
    settings = dataclasses.replace(settings, pessimism=pessimism)
    if num_candidates:
        elites = max(1, num_candidates // 4)
        settings = dataclasses.replace(settings, num_candidates=num_candidates, num_elites=elites)
    return dataclasses.replace(settings, horizon=horizon) if horizon else settings


def make_planner(
    family: Any, num_episodes: int, seed: int, settings: Settings | None = None
) -> "Shooting | CrossEntropy":
    """The planner for a family's actions: shooting where they are discrete, else the cross-entropy method.

    `settings` are by default those of the authors for `family`. Raises `UserError` for settings that cannot
    work.
    """
    settings = settings or settings_of(family)
    for name in ("horizon", "num_candidates", "num_elites", "num_rounds"):
        if getattr(settings, name) < 1:
            raise UserError(f"{name} {getattr(settings, name)}: the planner needs at least 1")
    if isinstance(family.action_space, Discrete):
        return Shooting(family, num_episodes, seed, settings)
    if settings.num_elites > settings.num_candidates:
        raise UserError(f"num_elites {settings.num_elites}: only {settings.num_candidates} candidates")
    return CrossEntropy(family, num_episodes, seed, settings)


class Planner:
    """Base of both: N episodes that all take their first, second, ... step together; some may have ended.

    What is drawn for an episode depends on the seed, on its number among the N and on the step alone: not on
    which others are planned with it, nor on how many there are.
    """

    def __init__(self, family: Any, num_episodes: int, seed: int, settings: Settings) -> None:
        self.family, self.num_episodes, self.seed, self.settings = family, num_episodes, seed, settings
        self.time = 0

    def returns(
        self, model: AgentModel, state: np.ndarray, actions: np.ndarray, mean_state: bool = False
    ) -> torch.Tensor:
        """The mean returns [E, C] of `actions`; see `returns_of`."""
        settings = self.settings
        return returns_of(
            self.family,
            model,
            state,
            actions,
            mask=settings.mask,
            shaping=settings.shaping,
            mean_state=mean_state,
            pessimism=settings.pessimism,
        )


class Shooting(Planner):
    """Takes the first action of the best of random sequences; each member rolls on from its own states.

    The last candidate is the best of the step before, moved on by one, with a new last action. Of equally
    good ones the first is taken, so that plans that are no better than others do not go on for ever.
    """

    BLOCKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)  # where candidates are split, so that the later need not be tried

    def __init__(self, family: Any, num_episodes: int, seed: int, settings: Settings) -> None:
        super().__init__(family, num_episodes, seed, settings)
        self.kind = np.uint8 if self.family.action_space.n <= 256 else np.uint16
        self.best = np.zeros((self.num_episodes, self.settings.horizon), self.kind)

    def plan(self, model: Model, agents: np.ndarray, state: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """The actions [E] int64 of `agents` [E] in `state` [E, d], E >= 1, in the episodes `episodes` [E]."""
        rng = stream(self.seed, "planning", self.time)
        shape = (episodes.max() + 1, self.settings.horizon, self.settings.num_candidates)
        actions = rng.integers(0, self.family.action_space.n, shape, self.kind)[episodes]
        if self.time:
            actions[:, :-1, -1] = self.best[episodes, 1:]
        chosen = self.search(model, agents, state, actions)
        self.best[episodes] = actions[np.arange(len(episodes)), :, chosen]
        self.time += 1
        return self.best[episodes, 0].astype(np.int64)

    def search(self, model: Model, agents: np.ndarray, state: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The first of the best of the candidates `actions` [E, T, C], for each episode: [E]."""
        E, T, C = actions.shape
        best, chosen, searching = np.full(E, -np.inf), np.zeros(E, int), np.arange(E)
        enough = T * self.settings.most
        cuts = [int(C * part) for part in self.BLOCKS] if enough < np.inf else []
        for block in np.split(np.arange(C), cuts):
            if not len(block) or not len(searching):
                continue
            tried = actions[searching, :, block[0] : block[-1] + 1]
            returns = self.returns(model.at(agents[searching]), state[searching], tried).numpy()
            better = returns.max(1) > best[searching]
            best[searching[better]] = returns.max(1)[better]
            chosen[searching[better]] = block[returns.argmax(1)[better]]
            searching = searching[best[searching] < enough]
        return chosen


class CrossEntropy(Planner):
    """Draws around the best sequences so far; members start every predicted step from their mean state.

    Actions are drawn in -1..1, normal but for what falls outside, and spread over the action space. The mean
    starts at that of the step before, moved on by one, with a last action of 0, or what a family's
    `resting_actions(state)` were at first: there an action of 0 is no small one.
    """

    KEEP = 0.1  # of the old mean and deviation

    def __init__(self, family: Any, num_episodes: int, seed: int, settings: Settings) -> None:
        super().__init__(family, num_episodes, seed, settings)
        space = self.family.action_space
        if not space.is_bounded():
            raise UserError(f"{self.family.name}: planning needs bounded actions")
        self.centre, self.reach = (space.high + space.low) / 2, (space.high - space.low) / 2
        self.mean = np.zeros((self.num_episodes, self.settings.horizon, *space.shape))
        self.rest = np.zeros((self.num_episodes, *space.shape))

    def plan(self, model: Model, agents: np.ndarray, state: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """The actions [E, a] float32 of `agents` [E] in `state` [E, d], in the episodes `episodes` [E]."""
        models = model.at(agents)
        if self.time == 0 and hasattr(self.family, "resting_actions"):
            self.rest[episodes] = self.family.resting_actions(state)
            self.mean[episodes] = self.rest[episodes][:, None]
        mean = self.mean[episodes]
        low, high = self.settings.deviation
        deviation = np.broadcast_to(low + (high - low) * self.uniform(0, episodes, (1, 1)), mean.shape)
        shape = (self.settings.horizon, self.settings.num_candidates, mean.shape[-1])
        for i in range(1, self.settings.num_rounds + 1):
            draws = self.uniform(i, episodes, shape)
            actions = bounded_normal(mean[:, :, None], deviation[:, :, None], draws)
            spread = (self.centre + self.reach * actions).astype(np.float32)
            returns = self.returns(models, state, spread, mean_state=True)
            elites = returns.topk(self.settings.num_elites, dim=1).indices.numpy()
            elites = np.take_along_axis(actions, elites[:, None, :, None], axis=2)
            first = elites[:, 0].mean(1)
            mean = self.KEEP * mean + (1 - self.KEEP) * elites.mean(2)
            deviation = self.KEEP * deviation + (1 - self.KEEP) * elites.std(2)
        self.mean[episodes, :-1], self.mean[episodes, -1] = mean[:, 1:], self.rest[episodes]
        self.time += 1
        return (self.centre + self.reach * first).astype(np.float32)

    def uniform(self, index: int, episodes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Draws [E, *shape] of this step; each `index` has a stream, as lengths differ with the episodes."""
        rng = stream(self.seed, "planning", self.time, index)
        return rng.random((episodes.max() + 1, *shape))[episodes]


def bounded_normal(mean: np.ndarray, deviation: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """Normal draws that lie in -1..1 (as if drawn again until they do), from `uniform` draws in 0..1."""
    below, above = (torch.special.ndtr(torch.from_numpy((end - mean) / deviation)) for end in (-1, 1))
    draws = torch.special.ndtri(below + (above - below) * torch.from_numpy(uniform)).numpy()
    return np.clip(mean + deviation * draws, -1, 1)
