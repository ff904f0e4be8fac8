"""The classical opponents for Bernoulli bandits, all with the true prior Beta(1, 1) on every arm."""

from dataclasses import dataclass

import numpy as np

from rl2.gittins import gittins_indices, state_number

UCB1_SCALE = 0.1
EPSILON = 0.05
OPTIMISTIC_DRAWS = 20


@dataclass(eq=False)
class BanditOpponent:
    """Counts `pulls` and `wins` [N, k] of N bandits; a subclass scores the arms [N, k].

    The highest score is pulled, ties to the lowest arm. `horizon` is the number of pulls of a meta-episode.
    """

    num_arms: int
    horizon: int

    def reset(self, num_instances):
        self.pulls = np.zeros((num_instances, self.num_arms), np.int32)
        self.wins = np.zeros((num_instances, self.num_arms), np.int32)
        self.step = 0

    def act(self, observation, rng):
        return self.score(rng).argmax(axis=1)

    def observe(self, observation, action, reward, next_observation, episode_end):
        rows = np.arange(len(action))
        self.pulls[rows, action] += 1
        self.wins[rows, action] += reward > 0.5
        self.step += 1

    def posterior_mean(self):
        return (self.wins + np.float32(1)) / (self.pulls + np.float32(2))


class Random(BanditOpponent):
    """Pulls arms uniformly."""

    def score(self, rng):
        return rng.random(self.pulls.shape, dtype=np.float32)


class Greedy(BanditOpponent):
    """Pulls the arm of the highest posterior mean; ties to the lowest arm reproduce the paper's column."""

    def score(self, rng):
        return self.posterior_mean()


@dataclass(eq=False)
class EpsilonGreedy(BanditOpponent):
    """Pulls a uniform arm with probability epsilon, else the arm of the highest posterior mean.

    Ties go to the lowest arm as in the paper's column; `random_ties` makes a stronger opponent.
    """

    epsilon: float = EPSILON
    random_ties: bool = False

    def score(self, rng):
        noise = rng.random(self.pulls.shape, dtype=np.float32)
        explore = rng.random((len(noise), 1), dtype=np.float32) < self.epsilon
        mean = self.posterior_mean()
        if self.random_ties:
            mean = np.where(mean == mean.max(axis=1, keepdims=True), 2 + noise, mean)
        return np.where(explore, noise, mean)


@dataclass(eq=False)
class UCB1(BanditOpponent):
    """Pulls the arm of the highest mean + scale sqrt(2 ln(t + 2) / (pulls + 1)) (Auer et al. 2002)."""

    scale: float = UCB1_SCALE

    def score(self, rng):
        width = np.sqrt(2 * np.log(self.step + 2, dtype=np.float32) / (self.pulls + np.float32(1)))
        return self.posterior_mean() + np.float32(self.scale) * width


class Thompson(BanditOpponent):
    """Pulls the best arm of one draw from the posterior (Thompson 1933)."""

    def score(self, rng):
        return self.draw(rng)[0]

    def draw(self, rng):
        """One draw of all means [N, k] and its log density [N], up to a constant shared by all draws."""
        tiny = np.finfo(np.float32).tiny  # a gamma variable may underflow to 0, and 0 log 0 is not a number
        win = np.maximum(rng.standard_gamma(self.wins + np.float32(1), dtype=np.float32), tiny)
        loss = np.maximum(rng.standard_gamma(self.pulls - self.wins + np.float32(1), dtype=np.float32), tiny)
        total = win + loss
        density = self.wins * np.log(win / total) + (self.pulls - self.wins) * np.log(loss / total)
        return win / total, density.sum(axis=1)


@dataclass(eq=False)
class OptimisticThompson(Thompson):
    """Pulls the best arm of that one of `num_draws` joint posterior draws whose density is highest."""

    num_draws: int = OPTIMISTIC_DRAWS

    def score(self, rng):
        best, highest = self.draw(rng)
        for _ in range(self.num_draws - 1):
            means, density = self.draw(rng)
            best[density > highest] = means[density > highest]
            highest = np.maximum(density, highest)
        return best


class Gittins(BanditOpponent):
    """Pulls the arm of the highest finite-horizon Gittins index; beyond the horizon, greedily."""

    def score(self, rng):
        if self.step >= self.horizon:
            return self.posterior_mean()
        return gittins_indices(self.horizon)[self.step][state_number(self.pulls, self.wins)]


class Oracle(BanditOpponent):
    """Knows the means [N, k] and pulls the best arm: an upper bound, no contestant."""

    def __init__(self, means):
        super().__init__(means.shape[1], horizon=0)
        self.means = means

    def score(self, rng):
        return self.means
