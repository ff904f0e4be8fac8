"""What each agent gets from each policy, and what all agents together get: running figures of training."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from rmdp.config import Config


class Utilities:
    """Utilities `[k, own]` of this rank's agents, and the paper's social welfare of training.

    The utility of a policy for an agent is its expected return in one episode. By the renewal theorem that is
    the reward per step over the ends per step, so every step counts at once and no episode need be finished;
    both rates are running averages. Returns are reported times `scale`.
    """

    def __init__(self, config: Config, comm: Any, num_own: int, scale: float):
        self.comm, self.scale = comm, scale
        self.k, self.n, self.m = config.num_policies, config.num_agents, config.envs_per_policy
        self.keep = config.utility_decay
        self.reward = torch.zeros(self.k, num_own)  # running sums of an iteration's rewards
        self.ends = np.zeros(self.k)  # running sums of an iteration's episode ends
        self.steps = 0.0  # running sum of an iteration's steps of each policy
        self.running = np.zeros(
            (self.k, self.m)
        )  # rewards of the unfinished episodes so far, over their agents
        self.finished = np.zeros(self.k)  # mean return to its agents of each policy's last finished episodes
        self.average, self.average_weight = 0.0, 0.0

    def begin(self, done: torch.Tensor) -> None:
        """Let the running sums fade and count the ends of an iteration, `done [k, T, m]`."""
        self.reward *= self.keep
        self.ends = self.keep * self.ends + done.sum((1, 2)).numpy()
        self.steps = self.keep * self.steps + done.shape[1] * done.shape[2]

    def add(self, agents: slice, reward: torch.Tensor) -> None:
        """Take in the rewards `[k, T, m, chunk]` of some own agents."""
        self.reward[:, agents] += reward.sum((1, 2))

    def finish(self, reward: torch.Tensor, done: torch.Tensor) -> None:
        """Take in the rewards `[k, T, m]` of this rank's agents, each under its policy; a collective."""
        summed = self.comm.allreduce_(reward.double().numpy())
        over = done.numpy()
        total, count = np.zeros(self.k), np.zeros(self.k)
        for t in range(over.shape[1]):
            self.running += summed[:, t]
            total += (self.running * over[:, t]).sum(1)
            count += over[:, t].sum(1)
            self.running[over[:, t]] = 0.0
        self.finished = np.where(count > 0, total / np.maximum(count, 1), self.finished)
        # Section 4.3: exponential average, 0.99; divided by its weight so that it starts unbiased.
        if self.ends.all():
            self.average = 0.99 * self.average + 0.01 * self.finished.sum() / self.n
            self.average_weight = 0.99 * self.average_weight + 0.01

    def by_policy(self) -> np.ndarray:
        """Running estimates `[k, own]` of each own agent's return under each policy."""
        return self.reward.numpy() / np.maximum(self.ends, 1.0)[:, None]

    def per_step(self, agents: slice) -> torch.Tensor:
        """Utilities `[k, chunk]` of some own agents, over as many steps as an episode has with all policies.

        The reward of a step under each policy would not do: it is highest where a robot dashes forward and
        falls.
        """
        share = self.ends.mean() / self.steps / np.maximum(self.ends, 1.0)
        return self.reward[:, agents] * torch.from_numpy(share).float()[:, None]

    def report(self, weights: torch.Tensor) -> dict[str, float]:
        """Welfare and group sizes under the assignment `weights [k, own]`, of all ranks; a collective.

        No welfare before an episode of every policy has ended.
        """
        own = weights.detach().double().numpy()
        sums = self.comm.allreduce_(np.append(own.sum(1), (own * self.by_policy()).sum()))
        sizes, welfare = sums[:-1], sums[-1] / self.n
        found = {}
        if self.ends.all():
            found = {
                "train/return": self.scale * welfare,
                "train/social_welfare": self.scale * self.average / self.average_weight,
                "train/episode_welfare": self.scale * self.finished.sum() / self.n,
            }
        return {
            **found,
            "train/smallest_group": sizes.min(),
            "train/largest_group": sizes.max(),
        }

    def state_dict(self, gather: Callable) -> dict:
        """Everything carried from one iteration to the next; `gather` joins the ranks' agents."""
        return {
            "reward": gather(self.reward, axis=1),
            "ends": self.ends,
            "running": self.running,
            "finished": self.finished,
            "steps": float(self.steps),
            "average": float(self.average),
            "average_weight": float(self.average_weight),
        }

    def load_state_dict(self, state: dict, cut: Callable) -> None:
        """Continue from `state_dict`; `cut` takes this rank's agents."""
        self.reward = cut(state["reward"], axis=1).clone()
        self.ends, self.running = np.array(state["ends"]), np.array(state["running"])
        self.finished, self.steps = np.array(state["finished"]), state["steps"]
        self.average, self.average_weight = state["average"], state["average_weight"]
