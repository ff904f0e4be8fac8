"""The classical baselines for Bernoulli bandits, all with the true prior Beta(1, 1) on every arm."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rl2.gittins import gittins_indices, state_number

UCB1_SCALE = 0.1
EPSILON = 0.05
OPTIMISTIC_DRAWS = 20


@dataclass(eq=False)
class BanditBaseline:
    """Acts in N bandits by counts `pulls` and `wins` [N, k]; a subclass scores the arms [N, k].

    The highest score is pulled, ties to the lowest arm. `horizon` is the number of pulls of a meta-episode.
    All draws come from `rng`.
    """

    num_arms: int
    horizon: int
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0), kw_only=True)

    def reset(self, num: int) -> None:
        """Begin with the prior in `num` bandits."""
        self.pulls = np.zeros((num, self.num_arms), np.int32)
        self.wins = np.zeros((num, self.num_arms), np.int32)
        self.step = 0

    def act(self, observation: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
        """Arms [N] to be pulled."""
        return self.score().argmax(axis=1)

    def observe(
        self,
        observation: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        next_observation: np.ndarray,
        done: np.ndarray,
    ) -> None:
        """Learn from one step of each bandit."""
        rows = np.arange(len(action))
        self.pulls[rows, action] += 1
        self.wins[rows, action] += reward > 0.5
        self.step += 1

    def score(self) -> np.ndarray:
        """Scores [N, k]."""
        raise NotImplementedError

    def posterior_mean(self) -> np.ndarray:
        """Means [N, k] of the arms' posteriors."""
        return (self.wins + np.float32(1)) / (self.pulls + np.float32(2))


class Random(BanditBaseline):
    """Pulls arms uniformly."""

    def score(self) -> np.ndarray:
        return self.rng.random(self.pulls.shape, dtype=np.float32)


class Greedy(BanditBaseline):
    """Pulls the arm of the highest posterior mean; ties to the lowest arm reproduce the paper's column."""

    def score(self) -> np.ndarray:
        return self.posterior_mean()


@dataclass(eq=False)
class EpsilonGreedy(BanditBaseline):
    """Pulls a uniform arm with probability epsilon, else the arm of the highest posterior mean.

    Ties go to the lowest arm as in the paper's column; `random_ties` makes a stronger baseline.
    """

    epsilon: float = EPSILON
    random_ties: bool = False

    def score(self) -> np.ndarray:
        noise = self.rng.random(self.pulls.shape, dtype=np.float32)
        explore = self.rng.random((len(noise), 1), dtype=np.float32) < self.epsilon
        mean = self.posterior_mean()
        if self.random_ties:
            mean = np.where(mean == mean.max(axis=1, keepdims=True), 2 + noise, mean)
        return np.where(explore, noise, mean)


@dataclass(eq=False)
class UCB1(BanditBaseline):
    """Pulls the arm of the highest mean + scale sqrt(2 ln(t + 2) / (pulls + 1)) (Auer et al. 2002)."""

    scale: float = UCB1_SCALE

    def score(self) -> np.ndarray:
        width = np.sqrt(2 * np.log(self.step + 2, dtype=np.float32) / (self.pulls + np.float32(1)))
        return self.posterior_mean() + np.float32(self.scale) * width


class Thompson(BanditBaseline):
    """Pulls the best arm of one draw from the posterior (Thompson 1933)."""

    def score(self) -> np.ndarray:
        return self.draw()[0]

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """One draw of all means [N, k] and its log density [N], up to a constant shared by all draws."""
        tiny = np.finfo(np.float32).tiny  # a gamma variable may underflow to 0, and 0 log 0 is not a number
        win = np.maximum(self.rng.standard_gamma(self.wins + np.float32(1), dtype=np.float32), tiny)
        loss = np.maximum(
            self.rng.standard_gamma(self.pulls - self.wins + np.float32(1), dtype=np.float32), tiny
        )
        total = win + loss
        density = self.wins * np.log(win / total) + (self.pulls - self.wins) * np.log(loss / total)
        return win / total, density.sum(axis=1)


@dataclass(eq=False)
class OptimisticThompson(Thompson):
    """Pulls the best arm of that one of `num_draws` joint posterior draws whose density is highest."""

    num_draws: int = OPTIMISTIC_DRAWS

    def score(self) -> np.ndarray:
        best, highest = self.draw()
        for _ in range(self.num_draws - 1):
            means, density = self.draw()
            best[density > highest] = means[density > highest]
            highest = np.maximum(density, highest)
        return best


class Gittins(BanditBaseline):
    """Pulls the arm of the highest finite-horizon Gittins index; beyond the horizon, greedily."""

    def score(self) -> np.ndarray:
        if self.step >= self.horizon:
            return self.posterior_mean()
        return gittins_indices(self.horizon)[self.step][state_number(self.pulls, self.wins)]


class Oracle(BanditBaseline):
    """Knows the means [N, k] and pulls the best arm: an upper bound, no baseline."""

    def __init__(self, means: np.ndarray):
        super().__init__(means.shape[1], horizon=0)
        self.means = means

    def score(self) -> np.ndarray:
        return self.means
