"""r-MDP for agents with dynamics of their own: what a policy is worth to an agent must be tried."""

import time

import numpy as np
import torch

from common.gae import gae
from common.runs.seeding import SharedStream, stream
from rmdp.agent_shard import OwnAgents
from rmdp.assignment import even_random, expectation_step
from rmdp.learner import Learner
from rmdp.rollout import Actors, Steps
from rmdp.tasks import draw_agents, separate_family
from rmdp.worlds import Worlds, try_all

SURVEY_INTERVAL = 10  # iterations between two surveys


class SeparateLearner(Learner):
    """Trains k `Policies` for n agents whose dynamics differ; the same at any number of ranks, as `Learner`.

    A step pays only the agent in whose world it is taken. So policy j acts in the worlds of the agents that
    it serves, `envs_per_policy` of them in an iteration, chosen anew in each, and learns from all its steps
    alike. With `em`, every `SURVEY_INTERVAL` iterations after the warm start and at the end each policy plays
    one episode with each agent, exploration off (a survey), and agents move to the policy with the best
    running mean return. A policy for all (k = 1) and one for each (k = n) need no survey.
    """

    def __init__(self, config, comm):
        self.config, self.comm = config, comm
        self.k, self.n, self.m = config.num_policies, config.num_agents, config.envs_per_policy
        self.family = separate_family(config, comm)
        with comm.agree():
            self.agents = draw_agents(config, self.family)
        self.own = OwnAgents(comm, self.n, self.agents)
        self.members = Partition(config, comm, self.own)
        self.own_envs = comm.share(self.m)
        self.make_networks(1, whole_critic=True)
        self.utility = np.zeros((self.k, self.own.num))  # running sums of the surveys' returns
        self.weight, self.env_steps, self.finished = 0.0, 0, np.zeros(self.k)

    def train_iteration(self, i: int) -> dict[str, float]:
        """Collect, estimate, update, survey and reassign, report; the metrics of all ranks together."""
        config, began = self.config, time.perf_counter()
        steps = self.collect(i)
        collected = time.perf_counter()

        batch = self.estimate(steps)

        self.anneal(i)
        metrics = self.update(i, batch)
        self.policies.normaliser.update(steps.observation.flatten(1, 2))
        updated = time.perf_counter()

        flips = self.reassign(i)

        num_steps = self.k * config.steps_per_policy
        self.env_steps += num_steps
        sizes = np.bincount(self.members.everyone(), minlength=self.k)
        return metrics | {
            "train/return": float(self.finished @ sizes) / self.n,
            "train/smallest_group": float(sizes.min()),
            "train/largest_group": float(sizes.max()),
            "train/flips": float(flips),
            "train/learning_rate": self.optimiser.lr,
            "train/env_steps": float(self.env_steps),
            "time/collect_s": collected - began,
            "time/update_s": updated - collected,
            "time/survey_s": time.perf_counter() - updated,
            "time/steps_per_second": num_steps / (updated - began),
        }

    def collect(self, i: int) -> Steps:
        """Steps of all policies in the worlds of agents they serve, each world from a fresh start."""
        rng = stream(self.config.seed, "tasks", i, 1)
        who = self.members.draw(self.m, rng).ravel()
        worlds = Worlds(self.family, self.agents, who)
        env_seed = int(stream(self.config.seed, "environment", i).integers(2**62))
        actors = Actors(worlds, self.k, self.m, self.own_envs, env_seed)
        acting = self.shared_stream("acting", i)
        return actors.play(self.policies, self.config.steps_per_policy // self.m, acting, self.comm)

    @torch.no_grad()
    def estimate(self, steps: Steps) -> dict:
        """Value targets and advantages of each policy for all R = T * m steps."""
        config, normalise, critic = self.config, self.policies.normaliser, self.critic
        done, reward = steps.terminated | steps.truncated, steps.outcome[..., 0]
        self.finished = mean_returns(reward.double().numpy(), done.numpy(), self.finished)
        observation = normalise(steps.observation).flatten(1, 2)
        value = critic(observation)[..., 0].unflatten(1, steps.truncated.shape[1:])
        # A time limit is no end: the value of what would have followed counts.
        limit = steps.truncated.nonzero(as_tuple=True)
        reward = reward.clone()
        reward[limit] += config.gamma * critic(normalise(steps.final_observation)[limit], limit[0])[..., 0]
        advantage = gae(
            *(reward.transpose(0, 1), value.transpose(0, 1), config.gamma, config.gae_lambda),
            next_value=critic(normalise(steps.following))[..., 0],
            cut=done.transpose(0, 1).float(),
        ).transpose(0, 1)
        target = (advantage + value).flatten(1, 2).numpy()
        advantage = advantage.flatten(1, 2).numpy()
        spread = advantage.std(1, keepdims=True) + 1e-8
        return {
            "observation": observation.numpy(),
            "action": steps.action.flatten(1, 2).numpy(),
            "log_prob": steps.log_prob.flatten(1, 2).numpy(),
            "advantage": (advantage - advantage.mean(1, keepdims=True)) / spread,
            "value_target": [target[..., None]],
        }

    def reassign(self, i: int) -> int:
        """Survey and let agents move, if it is time; how many moved. A collective."""
        config, last = self.config, i + 1 == self.config.max_iters
        due = i + 1 >= config.warm_start_iters and (i + 1) % SURVEY_INTERVAL == 0
        if config.algorithm != "em" or self.k == 1 or not (due or last):
            return 0
        parameters = {name: values[self.own.slice] for name, values in self.agents.items()}
        rng = self.shared_stream("environment", i, 1, self.own.total, self.own.slice)
        returns, steps = try_all(self.policies, self.family, parameters, rng)
        self.env_steps += int(self.comm.allreduce_(np.array([steps.sum()], np.int64))[0])
        self.utility = config.utility_averaging * self.utility + returns
        self.weight = config.utility_averaging * self.weight + 1
        return self.members.move(self.utility, last)

    def shared_stream(self, purpose: str, i: int, index: int = 0, total: int = 0, own: slice | None = None):
        """A stream of which this rank holds its environments' part, or the part `own` of `total`."""
        generator = stream(self.config.seed, purpose, i, index)
        return SharedStream(generator, total or self.m, own or self.own_envs)

    def state_dict(self) -> dict:
        """Everything that the next iteration needs, of all ranks; a collective."""
        utility = self.own.gather(torch.from_numpy(self.utility), axis=1)
        return self.networks(torch.as_tensor) | {
            "agents": self.agents,
            "assignment": self.members.state_dict(),
            "survey": {"utility": utility, "weight": self.weight, "finished": self.finished},
            "env_steps": self.env_steps,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`, at any number of ranks."""
        self.load_networks(state, torch.as_tensor)
        self.members.load_state_dict(state["assignment"])
        survey = state["survey"]
        self.utility = self.own.cut(survey["utility"], axis=1).numpy().copy()
        self.weight, self.finished = survey["weight"], np.array(survey["finished"])
        self.env_steps = state["env_steps"]


class Partition:
    """Who is served by which policy: `policy_of [own]` of this rank's agents, first at random and evenly."""

    soft = False

    def __init__(self, config, comm, own):
        self.comm, self.own, self.k = comm, own, config.num_policies
        self.policy_of = even_random(own.total, self.k, stream(config.seed, "assignment"))[own.slice]

    def everyone(self) -> np.ndarray:
        """The policies `[n]` of all ranks' agents; a collective."""
        return self.own.gather(torch.from_numpy(self.policy_of)).numpy()

    def draw(self, num_worlds: int, rng) -> np.ndarray:
        """Agents `[num_worlds, k]`: for each policy those it serves, in random order and in turn."""
        policy_of, shuffled = self.everyone(), rng.permutation(self.own.total)
        order = shuffled[policy_of[shuffled].argsort(kind="stable")]  # policy by policy
        count = np.bincount(policy_of, minlength=self.k)
        turn = np.arange(num_worlds)[:, None] % count.clip(1)
        return order[(count.cumsum() - count + turn) % self.own.total]

    def move(self, utility: np.ndarray, may_empty: bool) -> int:
        """Agents go to the policies best for them, by `utility [k, own]`; how many do. A collective."""
        before = self.policy_of
        self.policy_of = expectation_step(utility, before, self.comm, self.own.slice.start, may_empty)
        return int(self.comm.allreduce_(np.array([(before != self.policy_of).sum()]))[0])

    def state_dict(self) -> dict:
        return {"policy_of": self.own.gather(torch.from_numpy(self.policy_of))}

    def load_state_dict(self, state: dict) -> None:
        self.policy_of = self.own.cut(state["policy_of"]).numpy().copy()


def mean_returns(reward: np.ndarray, done: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Mean returns `[k]` of the episodes that ended in `[k, T, m]`, of which the first began with it."""
    total = reward.cumsum(1)
    j, t, e = done.nonzero()
    order = np.lexsort((t, e, j))
    j, t, e = j[order], t[order], e[order]
    at_end = total[j, t, e]
    first = np.append(True, (np.diff(j) != 0) | (np.diff(e) != 0))[: len(j)]
    returns = at_end - np.where(first, 0.0, np.append(0.0, at_end[:-1])[: len(j)])
    count = np.bincount(j, minlength=len(before))
    return np.where(count, np.bincount(j, returns, len(before)) / count.clip(1), before)
