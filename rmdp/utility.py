"""What each agent gets from each policy, and what all agents together get: running figures of training."""

import numpy as np
import torch


class Welfare:
    """Utilities `[k, own]` of this rank's agents, and the paper's welfare of training.

    The utility of a policy for an agent is its expected return in one episode. By the renewal theorem that is
    the reward per step over the ends per step, so every step counts at once and no episode need be finished;
    both rates are running averages.
    """

    def __init__(self, config, comm, num_own: int, scale: float):
        self.comm, self.scale = comm, scale
        self.k, self.n, self.m = config.num_policies, config.num_agents, config.envs_per_policy
        self.keep = config.utility_averaging
        self.reward = torch.zeros(self.k, num_own)  # running sums of an iteration's rewards
        self.ends = np.zeros(self.k)  # running sums of an iteration's episode ends
        self.steps = 0.0  # running sum of an iteration's steps of each policy
        self.running = np.zeros((self.k, self.m))  # what the unfinished episodes paid their agents so far
        self.finished = np.zeros(self.k)  # mean return to its agents of each policy's last finished episodes
        self.average, self.average_weight = 0.0, 0.0

    def begin(self, done) -> None:
        """Let the running sums fade and count the ends of an iteration, `done [k, T, m]`."""
        self.reward *= self.keep
        self.ends = self.keep * self.ends + done.sum((1, 2)).numpy()
        self.steps = self.keep * self.steps + done.shape[1] * done.shape[2]

    def finish(self, paid, done) -> None:
        """Take in what this rank's agents were paid by their policies, `paid [k, T, m]`; a collective."""
        paid = self.comm.allreduce_(paid.double().numpy())
        done = done.numpy()
        total, count = np.zeros(self.k), np.zeros(self.k)
        for t in range(done.shape[1]):
            self.running += paid[:, t]
            total += (self.running * done[:, t]).sum(1)
            count += done[:, t].sum(1)
            self.running[done[:, t]] = 0.0
        self.finished = np.where(count > 0, total / np.maximum(count, 1), self.finished)
        # Section 4.3: exponential average, 0.99; divided by its weight so that it starts unbiased.
        self.average = 0.99 * self.average + 0.01 * self.finished.sum() / self.n
        self.average_weight = 0.99 * self.average_weight + 0.01

    def utility(self) -> np.ndarray:
        """Running estimates `[k, own]` of each own agent's return under each policy."""
        return self.reward.numpy() / np.maximum(self.ends, 1.0)[:, None]

    def utility_per_step(self, agents: slice) -> torch.Tensor:
        """Utilities `[k, chunk]` of some own agents, over as many steps as an episode has with all policies.

        Not what a step of each policy pays: that is most where a robot dashes forward and falls.
        """
        share = self.ends.mean() / self.steps / np.maximum(self.ends, 1.0)
        return self.reward[:, agents] * torch.from_numpy(share).float()[:, None]

    def report(self, weights) -> dict[str, float]:
        """Welfare and group sizes under the assignment `weights [k, own]`, of all ranks; a collective."""
        own = weights.detach().double().numpy()
        sums = self.comm.allreduce_(np.append(own.sum(1), (own * self.utility()).sum()))
        sizes, welfare = sums[:-1], sums[-1] / self.n
        return {
            "train/return": self.scale * welfare,
            "train/social_welfare": self.scale * self.average / self.average_weight,
            "train/episode_welfare": self.scale * self.finished.sum() / self.n,
            "train/smallest_group": sizes.min(),
            "train/largest_group": sizes.max(),
        }

    def state_dict(self, gather) -> dict:
        """Everything carried from one iteration to the next; `gather` joins the ranks' agents."""
        own = {name: getattr(self, name) for name in ("ends", "running", "finished")}
        averages = {name: float(getattr(self, name)) for name in ("steps", "average", "average_weight")}
        return {"reward": gather(self.reward, axis=1)} | own | averages

    def load_state_dict(self, state: dict, cut) -> None:
        """Continue from `state_dict`; `cut` takes this rank's agents."""
        self.reward = cut(state["reward"], axis=1).clone()
        for name in ("ends", "running", "finished"):
            setattr(self, name, np.array(state[name]))
        self.steps, self.average = state["steps"], state["average"]
        self.average_weight = state["average_weight"]
