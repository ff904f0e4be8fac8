"""The classical baselines for tabular MDPs: reward means N(1, 1) under unit noise, transitions Dirichlet(1).

The paper says that its baselines had the true prior. But its columns are reproduced by a reward prior of mean
0, and those of greedy and epsilon-greedy nearly so by a prior of hardly any weight: the defaults of TabulaRL
(github.com/iosband/TabulaRL), on which its baselines are built. They are the defaults here too;
`prior_mean=1, prior_weight=1` is the true prior and makes stronger baselines.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rl2.planning import expectation, optimistic_expectation, value_iteration

EPSILON = 0.1
OPSRL_DRAWS = 10
UCRL2_SCALE = 0.3
UCRL2_DELTA = 0.05
REPLANNED_BEB_SCALE = 1.0
BEB_SCALE = 1.25  # nearest to the paper's column; 2 is stronger from 25 episodes on
VANISHING = 1e-4


@dataclass(eq=False)
class MdpBaseline:
    """Acts in N MDPs at once and learns them; a subclass plans a policy [episode_length, S, N] at the start
    of every episode.

    The prior is N(prior_mean, 1 / prior_weight) for a mean reward, Dirichlet(prior_weight) for a transition.
    State, instances last: `counts` [S, A, S', N], the Dirichlet parameters, and `transition` [S, A, S', N],
    their mean; `visits` [S, A, N]; `reward` [S, A, N], the posterior mean; `step` of the `episode`. All draws
    come from `rng`.
    """

    num_states: int
    num_actions: int
    episode_length: int
    prior_mean: float = 0.0
    prior_weight: float = 1.0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0), kw_only=True)

    def reset(self, num: int) -> None:
        """Begin with the prior in `num` MDPs."""
        shape = (self.num_states, self.num_actions, num)
        dynamics = (self.num_states, self.num_actions, self.num_states, num)
        self.counts = np.full(dynamics, self.prior_weight, np.float32)
        self.transition = np.full(dynamics, 1 / self.num_states, np.float32)
        self.visits = np.zeros(shape, np.float32)
        self.reward = np.full(shape, self.prior_mean, np.float32)
        self.rows = np.arange(num)
        self.step = self.episode = 0

    def act(self, observation: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
        """Actions [N] in the states [N]."""
        if self.step == 0:
            self.policy = self.plan()
        return self.policy[self.step, observation, self.rows]

    def observe(
        self,
        observation: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        next_observation: np.ndarray,
        done: np.ndarray,
    ) -> None:
        """Learn from one step of each MDP; ValueError unless episodes end together."""
        if done.any() != done.all():
            raise ValueError(f"step {self.step}: only some episodes ended; give tasks of one episode length")
        here = observation, action, self.rows
        self.visits[here] += 1
        weight = self.visits[here] + np.float32(self.prior_weight)
        self.reward[here] += (reward - self.reward[here]) / weight
        self.counts[observation, action, next_observation, self.rows] += 1
        counts = self.counts[observation, action, :, self.rows]  # [N, S']: NumPy puts the indexed axis first
        self.transition[observation, action, :, self.rows] = counts / counts.sum(axis=1, keepdims=True)
        self.step = 0 if done.all() else self.step + 1
        self.episode += int(done.all())

    def plan(self) -> np.ndarray:
        """The policy of an episode [episode_length, S, N]."""
        return self.q_values().argmax(axis=2)

    def q_values(self) -> np.ndarray:
        """Q-values [episode_length, S, A, N] to be greedy by."""
        return value_iteration(self.reward, expectation(self.transition), self.episode_length)


class Random(MdpBaseline):
    """Acts uniformly."""

    def act(self, observation: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
        return self.rng.integers(self.num_actions, size=len(observation))


@dataclass(eq=False)
class Greedy(MdpBaseline):
    """Follows, for an episode, the optimal policy of the posterior-mean MDP."""

    prior_weight: float = VANISHING


@dataclass(eq=False)
class GreedyReplanned(MdpBaseline):
    """Greedy under the true prior, planned anew at every step for the rest of the episode."""

    prior_mean: float = 1.0

    def act(self, observation: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
        steps_left = self.episode_length - self.step
        q_values = value_iteration(self.planned_reward(), expectation(self.transition), steps_left)[0]
        return q_values[observation, :, self.rows].argmax(axis=1)

    def planned_reward(self) -> np.ndarray:
        """Rewards [S, A, N] to plan by."""
        return self.reward


@dataclass(eq=False)
class BEBReplanned(GreedyReplanned):
    """The same with the reward bonus of BEB, scale / (1 + visits); with a scale of 0, the same."""

    scale: float = REPLANNED_BEB_SCALE

    def planned_reward(self) -> np.ndarray:
        return self.reward + np.float32(self.scale) / (1 + self.visits) if self.scale else self.reward


@dataclass(eq=False)
class EpsilonGreedy(Greedy):
    """Greedy, but acts uniformly with probability epsilon at every step."""

    epsilon: float = EPSILON

    def act(self, observation: np.ndarray, *_: Any, **__: Any) -> np.ndarray:
        explore = self.rng.random(len(observation)) < self.epsilon
        uniform = self.rng.integers(self.num_actions, size=len(observation))
        return np.where(explore, uniform, super().act(observation))


class PSRL(MdpBaseline):
    """Follows, for an episode, the optimal policy of an MDP drawn from the posterior (Osband et al. 2013)."""

    def q_values(self) -> np.ndarray:
        transition = self.rng.standard_gamma(self.counts, dtype=np.float32)
        transition /= transition.sum(axis=2, keepdims=True)
        noise = self.rng.standard_normal(self.reward.shape, dtype=np.float32)
        reward = self.reward + noise / np.sqrt(self.visits + np.float32(self.prior_weight))
        return value_iteration(reward, expectation(transition), self.episode_length)


@dataclass(eq=False)
class OPSRL(PSRL):
    """PSRL on the largest optimal Q-value of each (step, state, action) over several posterior draws."""

    num_draws: int = OPSRL_DRAWS

    def q_values(self) -> np.ndarray:
        best = super().q_values()
        for _ in range(self.num_draws - 1):
            np.maximum(best, super().q_values(), out=best)
        return best


@dataclass(eq=False)
class UCRL2(MdpBaseline):
    """Plans for the most favourable MDP in confidence sets around the posterior mean (Jaksch et al. 2010).

    With L = ln(2 S A (episode + 1) / delta), episodes counted from 1, the sets reach scale sqrt(4 L / visits)
    for a mean reward and scale sqrt(4 S L / visits) in L1 norm for a transition.
    """

    scale: float = UCRL2_SCALE

    def q_values(self) -> np.ndarray:
        log = np.log(2 * self.num_states * self.num_actions * (self.episode + 2) / UCRL2_DELTA)
        width = np.float32(2 * self.scale * np.sqrt(log)) / np.sqrt(np.maximum(self.visits, 1))
        radius = width * np.float32(np.sqrt(self.num_states))
        expect = optimistic_expectation(self.transition, radius)
        return value_iteration(self.reward + width, expect, self.episode_length)


@dataclass(eq=False)
class BEB(MdpBaseline):
    """Greedy with the reward bonus scale / (1 + visits) of Bayesian exploration (Kolter and Ng 2009)."""

    scale: float = BEB_SCALE

    def q_values(self) -> np.ndarray:
        reward = self.reward + np.float32(self.scale) / (1 + self.visits)
        return value_iteration(reward, expectation(self.transition), self.episode_length)


class Oracle(MdpBaseline):
    """Knows transition [N, S, A, S'] and reward_mean [N, S, A]: an upper bound, no baseline."""

    def __init__(self, transition: np.ndarray, reward_mean: np.ndarray, episode_length: int):
        num_states, num_actions = reward_mean.shape[1:]
        super().__init__(num_states, num_actions, episode_length)
        last = (np.ascontiguousarray(np.moveaxis(array, 0, -1)) for array in (reward_mean, transition))
        self.true_reward, self.true_transition = last

    def q_values(self) -> np.ndarray:
        return value_iteration(self.true_reward, expectation(self.true_transition), self.episode_length)
