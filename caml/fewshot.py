"""Few-shot adaptation to tasks (Zhang 2019, section 4): K episodes to choose a start, then a few updates."""

import dataclasses

import numpy as np
import torch

from caml.adapt import make_optimiser, update
from caml.baselines import Start
from caml.medoid_selection import mean_returns, successive_halving, take_turns
from caml.rollout import Actors
from common.optim import SGD


class FewShot:
    """Adapts a rank's share `own` of the tasks, all at once; `parameters` are those of all.

    Every method sees the same tasks, and before update u the same noise.
    """

    def __init__(self, config, family, parameters, own: slice, arm_selection: str, num_updates: int):
        self.config, self.family, self.parameters, self.own = config, family, parameters, own
        self.total = len(next(iter(parameters.values())))
        self.arm_selection, self.num_updates = arm_selection, num_updates

    def actors(self, iteration: int = 0, num_rollouts: int | None = None) -> Actors:
        """New environments of this rank's tasks."""
        config = dataclasses.replace(self.config, num_rollouts=num_rollouts or self.config.num_rollouts)
        mine = {name: values[self.own] for name, values in self.parameters.items()}
        return Actors(self.family, mine, config, iteration, self.total, self.own)

    def run(self, start: Start):
        """Mean return and last reward `[2, num_updates + 1, own]` after 0, 1, ... updates, and where the
        first episode after the last ended `[own, D]`.

        A start with arms spends K episodes on their choice, any other on one more update before those that
        are counted. So after u updates all have spent K (u + 1) episodes.
        """
        actors, curve = self.actors(), []
        if start.index is None:
            index = self.choose(start.policies, actors)
        else:
            index = start.index[self.own]
        policies = start.policies.take(torch.from_numpy(index))
        if start.rate:
            optimiser = SGD(policies.parameters(), start.rate)
        else:
            optimiser = make_optimiser(policies, self.config.learning_rate)
        if start.index is not None:
            update(policies, optimiser, actors.play(policies), self.config)
        for u in range(self.num_updates + 1):
            episodes = actors.play(policies)
            curve.append([episodes.returns().mean(1), episodes.last_rewards().mean(1)])
            if u < self.num_updates:
                update(policies, optimiser, episodes, self.config)
        actors.close()
        return np.swapaxes(curve, 0, 1), episodes.final_observation[:, 0]

    def choose(self, medoids, actors: Actors):
        """The medoid `[own]` of each task by K episodes."""
        num_tasks, num_pulls = actors.num_tasks, self.config.num_rollouts
        if self.arm_selection == "mean":
            pulls = actors.play(take_turns(medoids, num_tasks, num_pulls))
            return mean_returns(pulls, num_tasks, len(medoids)).argmax(1)
        actors.plays += 1

        def play(number, policies, pulls):
            arms = len(policies) // num_tasks
            playing = self.actors(1 + number, arms * pulls)
            episodes = playing.play(policies)
            playing.close()
            return episodes

        return successive_halving(medoids, num_tasks, num_pulls, play)
