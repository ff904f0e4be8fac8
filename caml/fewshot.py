"""Few-shot adaptation (Zhang 2019, section 4): K episodes to choose a start, then a few updates."""

import dataclasses
from contextlib import closing

import numpy as np
import torch

from caml.adapt import make_optimiser, update
from caml.config import Config
from caml.medoid_selection import best_in_turns, successive_halving
from caml.policy import Actor, Policies
from caml.rollout import Rollouts, Trajectories
from common.evaluation import EVALUATION
from common.optim import SGD, AdamW
from envs.problem import Problem


@dataclasses.dataclass
class Start:
    """`policies` from which agent i takes number `index[i]`, and how it is adapted.

    `index` None: all are tried with the agent first. `rate` 0: by Adam, else by gradient descent.
    """

    policies: Policies
    index: np.ndarray | None = None
    env_steps: int = 0
    rate: float = 0.0


class Adaptation:
    """Adapts to a rank's share `own` of `agents` (numbers, repeats allowed; None: all), all at once.

    `index` is the policy of the start that each agent took, `policies` are those adapted so far. Every start
    meets the same agents, and before update u the same noise.
    """

    def __init__(
        self,
        start: Start,
        problem: Problem,
        config: Config,
        agents: np.ndarray | None = None,
        *,
        iteration: int = EVALUATION,
        own: slice | None = None,
        selection: str = "mean",
    ):
        self.problem, self.config, self.selection = problem, config, selection
        self.agents = np.arange(problem.num_agents) if agents is None else np.asarray(agents)
        self.rollouts = Rollouts(problem, self.agents, config, iteration, own)
        if start.index is None:
            self.index = self.choose(start.policies)
        else:
            self.index = start.index[self.rollouts.own]
        self.policies = start.policies.take(torch.from_numpy(self.index))
        self.optimiser: SGD | AdamW = make_optimiser(self.policies, config.learning_rate)
        if start.rate:
            self.optimiser = SGD(self.policies.parameters(), start.rate)

    def choose(self, medoids: Policies) -> np.ndarray:
        """The medoid `[own]` of each agent by K episodes."""
        num_agents, num_episodes = self.rollouts.num_agents, self.config.num_rollouts
        if self.selection == "mean":
            return best_in_turns(medoids, self.rollouts)
        iteration, own = self.rollouts.iteration + 1, self.rollouts.own
        self.rollouts.plays += 1

        def play(number: int, policies: Policies, episodes: int) -> Trajectories:
            config = dataclasses.replace(self.config, num_rollouts=len(policies) // num_agents * episodes)
            with closing(Rollouts(self.problem, self.agents, config, iteration + number, own)) as rollouts:
                return rollouts.play(policies)

        return successive_halving(medoids, num_agents, num_episodes, play)

    def play(self) -> Trajectories:
        """K episodes with each agent."""
        return self.rollouts.play(self.policies)

    def update(self, played: Trajectories | None = None) -> None:
        """One policy-gradient update, on new episodes if none are given."""
        update(self.policies, self.optimiser, self.play() if played is None else played, self.config)

    @property
    def steps(self) -> float:
        """Environment steps with an agent so far, the mean over agents."""
        return float(self.rollouts.num_steps.mean())

    def actor(self, rng: np.random.Generator | None = None) -> Actor:
        """Acts for the agents with their policies as they are now."""
        family = self.problem.family
        return Actor(self.policies.take(slice(None)), family.observation_space, family.action_space, rng)

    def close(self) -> None:
        """Close the environments."""
        self.rollouts.close()


def adapt(
    start: Start,
    problem: Problem,
    config: Config,
    agents: np.ndarray | None = None,
    updates: int = 1,
    rng: np.random.Generator | None = None,
) -> Actor:
    """Choose a start for each of `agents` of a problem (None: all), update it, and act from then on."""
    with closing(Adaptation(start, problem, config, agents)) as adaptation:
        for _ in range(updates):
            adaptation.update()
    return adaptation.actor(rng)


def adaptation_curve(adaptation: Adaptation, start: Start, num_updates: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean return and last reward `[2, num_updates + 1, own]` after 0, 1, ... updates, and where the first
    episode after the last ended `[own, D]`.

    A start with a choice has spent K episodes on it, any other spends them on one more update before those
    that are counted. So after u updates all have spent K (u + 1) episodes.
    """
    curve = []
    if start.index is not None:
        adaptation.update()
    for u in range(num_updates + 1):
        played = adaptation.play()
        curve.append([played.returns().mean(1), played.last_rewards().mean(1)])
        if u < num_updates:
            adaptation.update(played)
    adaptation.close()
    return np.swapaxes(curve, 0, 1), played.final_observation[:, 0]
