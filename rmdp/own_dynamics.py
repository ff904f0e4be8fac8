"""A population whose agents have dynamics of their own: what a policy is worth to an agent must be tried."""

import dataclasses
import sys
import time
from contextlib import ExitStack, closing
from typing import Any

import numpy as np
import torch

from common.gae import above_alike
from common.progress import at
from common.rollout import final_observations, play, to_space
from common.runs.seeding import Repeated, SharedStream, stream
from envs.problem import Problem
from envs.shared_reward_env import Step
from rmdp.advantages import Batch, StepFeatures, make_batch
from rmdp.agent_shard import AgentShard
from rmdp.assignment import Assignment, by_parameter, even_random
from rmdp.config import Config
from rmdp.policy import Actor, Critic, Normaliser, Policies
from rmdp.rollout import Environments, Steps, by_policy, environment_numbers
from rmdp.start import Start, assignment_from, begin, read_start, split
from rmdp.welfare import make_weights, utilities

SURVEY_INTERVAL = 10  # iterations between two surveys
MOST_ENVS = 32  # of each policy, where their number follows from the length of episodes


class OwnDynamics:
    """Steps, advantages and assignment of agents whose dynamics differ.

    A step has a reward only for the agent in whose environment it is taken. So policy j acts in the
    environments of agents that are assigned to it, `envs_per_policy` of them in an iteration, chosen anew in
    each, and learns from all its steps alike. Nothing of an environment is kept for the next iteration (a
    user's could not be saved), so by default they are so few that each plays whole episodes. With `em`, every
    `SURVEY_INTERVAL` iterations after the warm start and at the end each policy plays one episode with each
    agent, exploration off (a survey), and agents move to the policy with the best running mean return. Other
    algorithms, and one policy for all, need no survey. A rank owns a slice of the agents, which
    it surveys.
    """

    whole_critic, num_values, own_values = True, 1, 1  # a step has one reward, so the critic has one row

    def __init__(self, config: Config, comm: Any, problem: Problem):
        self.config, self.comm, self.problem = config, comm, problem
        self.k, self.n = config.num_policies, config.num_agents
        self.m = config.envs_per_policy or envs_for_whole_episodes(config.steps_per_policy, problem.horizon)
        if config.steps_per_policy // self.m < problem.horizon and comm.is_root:
            print(short_of_episodes(config, self.m, problem.horizon), file=sys.stderr, flush=True)
        agents = problem.rows(slice(None))
        self.shard = AgentShard(comm, self.n, agents)
        if config.algorithm == "given":
            policy_of = by_parameter(agents[config.assign_by])
        else:
            policy_of = even_random(self.n, self.k, stream(config.seed, "assignment"))
        self.assignment = Assignment(comm, self.shard, self.k, policy_of)
        self.weights = make_weights(config.welfare, self.shard)
        self.acting_for = np.zeros((self.m, self.k), np.int64)  # whose environment it is, in this iteration
        self.own_envs = comm.share(self.m)
        self.utility = np.zeros((self.k, self.shard.num))  # running sums of the surveys' returns
        self.weight = 0.0  # and of ones
        self.env_steps = 0  # of training and surveys so far
        self.finished = np.zeros(self.k)  # mean return of each policy's last finished episodes
        self.has_finished = np.zeros(self.k, bool)

    def begin(self, policies: Policies, critic: Critic) -> None:
        """Let networks begin as those of another run, if one is given; a collective."""
        config, comm, start = self.config, self.comm, None
        if not config.start_from:
            return
        with comm.agree():
            start = read_start(config) if comm.is_root else None
        start = comm.bcast_object(start)
        if config.algorithm != "given":
            one_more = self.k == start["num_policies"] + 1
            policy_of = self.divided(start) if one_more else assignment_from(start, self.k)
            self.assignment = Assignment(comm, self.shard, self.k, policy_of)
        begin({"policy": policies, "critic": critic}, start, self.assignment.everyone(), self.k)

    def divided(self, start: Start) -> np.ndarray:
        """The start's assignment `[n]` with the policy split whose agents are worst off; a collective.

        Each agent plays one episode with its policy, which counts as a survey does. They are told apart by
        utilities where the environment states their range, else by returns.
        """
        problem, before, own = self.problem, start["num_policies"], self.shard.slice
        policies = Policies(
            dataclasses.replace(self.config, num_policies=before),
            problem.family.observation_space,
            problem.family.action_space,
        )
        policies.load_state_dict(start["policy"])
        rng = SharedStream(stream(self.config.seed, "environment", 0, 2), self.n, own)
        returns, steps = try_policies(policies, dataclasses.replace(problem, agents=problem.rows(own)), rng)
        self.env_steps += int(self.comm.allreduce_(np.array([steps.sum()], np.int64))[0])
        returns = self.shard.gather(torch.from_numpy(returns), axis=1).numpy()
        returns = returns[start["policy_of"], np.arange(self.n)]
        if hasattr(problem.family, "return_range"):
            returns = utilities(returns, *problem.family.return_range(problem.rows(slice(None))))
        return split(start["policy_of"], returns, before)

    def collect(self, i: int, policies: Policies) -> Steps:
        """Steps of all policies with agents assigned to them, each from a fresh start; a collective."""
        config, family, m = self.config, self.problem.family, self.m
        policy_of, alike = self.assignment.everyone(), config.envs_per_start
        agents = draw(policy_of, self.k, m // alike, stream(config.seed, "tasks", i, 1)).repeat(alike, axis=0)
        self.acting_for = agents
        starts = int(stream(config.seed, "environment", i).integers(2**62))
        numbers, env = environment_numbers(self.k, self.own_envs), None
        acting = SharedStream(stream(config.seed, "acting", i), m, self.own_envs)
        spaces = (family.observation_space, family.action_space)
        self.env_steps += self.k * config.steps_per_policy
        with ExitStack() as stack:
            if numbers.size:
                own = slice(int(numbers[0]), int(numbers[-1]) + 1)
                chances = Repeated(np.random.default_rng(starts), alike, self.k)
                made = family.make_vec(
                    self.problem.rows(agents.ravel()[own]), SharedStream(chances, agents.size, own)
                )
                env = StepEnv(made, config.action_scaling == "box")
                stack.callback(env.close)
            environments = Environments(env, self.k, m, self.own_envs, spaces, outcome_size=1)
            return environments.play(policies, config.steps_per_policy // m, acting, self.comm)

    @torch.no_grad()
    def estimate(self, steps: Steps, normaliser: Normaliser, critic: Critic) -> Batch:
        """Value targets and advantages of each policy for all its steps."""
        reward = steps.outcome.clone()  # [k, T, m, 1]
        done = steps.done.numpy()
        self.finished = mean_returns(reward[..., 0].double().numpy(), done, self.finished)
        self.has_finished |= done.any((1, 2))
        features = StepFeatures(steps, normaliser, critic)
        advantage, target = features.estimate(reward, slice(0, 1), self.config)
        above = above_alike(advantage.numpy().reshape(done.shape), done, self.config.envs_per_start)
        if self.weights:
            above = above * self.weights.everyone()[self.acting_for.T][:, None]
        return make_batch(steps, features.observation, above.reshape(self.k, -1), [target], [])

    def value_chunks(self) -> list[slice]:
        """Which of the critic's rows each of a batch's value targets belongs to."""
        return [slice(None)]

    def reassign(self, i: int, policies: Policies, steps: Steps) -> dict[str, float]:
        """Survey and let agents move, if it is time; how many moved. A collective."""
        config, began, flips, last = self.config, time.perf_counter(), 0, i + 1 == self.config.max_iters
        due, moving = (i + 1) % SURVEY_INTERVAL == 0, config.algorithm == "em" and self.k > 1
        if moving:
            due &= i + 1 >= config.warm_start_iters
        if (moving or self.weights) and (due or last):
            self.survey(i, policies)
            if moving:
                flips = self.assignment.expectation_step(self.utility, may_empty=last)
            if self.weights:
                self.weights.update((self.assignment.weights().numpy() * self.utility).sum(0) / self.weight)
        return {"train/flips": float(flips), "time/survey_s": time.perf_counter() - began}

    def survey(self, i: int, policies: Policies) -> None:
        """Let each policy try each of the own agents once; a collective."""
        own = self.shard.slice
        rng = SharedStream(stream(self.config.seed, "environment", i, 1), self.n, own)
        mine = dataclasses.replace(self.problem, agents=self.problem.rows(own))
        returns, steps = try_policies(policies, mine, rng)
        self.env_steps += int(self.comm.allreduce_(np.array([steps.sum()], np.int64))[0])
        self.utility = self.config.utility_decay * self.utility + returns
        self.weight = self.config.utility_decay * self.weight + 1

    def report(self, i: int) -> dict[str, float]:
        """Mean return, group sizes and steps so far; a collective.

        No return before every policy that has agents has finished an episode.
        """
        sizes = np.bincount(self.assignment.everyone(), minlength=self.k)
        known = self.has_finished[sizes > 0].all()
        return {
            **({"train/return": float(self.finished @ sizes) / self.n} if known else {}),
            **(self.weights.report() if self.weights else {}),
            "train/smallest_group": float(sizes.min()),
            "train/largest_group": float(sizes.max()),
            "train/env_steps": float(self.env_steps),
        }

    def state_dict(self) -> dict:
        """What carries over to the next iteration, of all ranks; a collective."""
        utility = self.shard.gather(torch.from_numpy(self.utility), axis=1)
        return {
            "agents": self.problem.agents,
            "assignment": self.assignment.state_dict(),
            "survey": {"utility": utility, "weight": self.weight, "finished": self.finished},
            "has_finished": self.has_finished.tolist(),
            "env_steps": self.env_steps,
            **({"weights": self.weights.state_dict()} if self.weights else {}),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`, at any number of ranks."""
        self.assignment.load_state_dict(state["assignment"])
        survey = state["survey"]
        self.utility = self.shard.cut(survey["utility"], axis=1).numpy().copy()
        self.weight, self.finished = survey["weight"], np.array(survey["finished"])
        # Earlier saves hold 0 for a policy without a finished episode.
        self.has_finished = np.array(state.get("has_finished", self.finished != 0))
        self.env_steps = state["env_steps"]
        if self.weights:
            self.weights.load_state_dict(state["weights"])


def envs_for_whole_episodes(steps: int, horizon: int) -> int:
    """Environments, at most `MOST_ENVS`, that each play a whole episode when they share `steps`."""
    return max((m for m in range(1, MOST_ENVS + 1) if steps % m == 0 and steps // m >= horizon), default=1)


def short_of_episodes(config: Config, num_envs: int, horizon: int) -> str:
    """What to say where an iteration has fewer steps in an environment than an episode may have."""
    each = f"{config.steps_per_policy // num_envs} steps in each environment and iteration"
    fewer = f"--envs_per_policy {envs_for_whole_episodes(config.steps_per_policy, horizon)}"
    advice = fewer if horizon <= config.steps_per_policy else f"--steps_per_policy of at least {horizon}"
    return (
        f"r-MDP: {each}, while an episode in {config.environment} has up to {horizon}: what comes later is "
        f"never trained on, nor reported; give {advice}"
    )


def draw(policy_of: np.ndarray, num_policies: int, num_envs: int, rng: np.random.Generator) -> np.ndarray:
    """Agents `[num_envs, k]`: for each policy those assigned to it by `policy_of [n]`, shuffled, in turn."""
    shuffled = rng.permutation(len(policy_of))
    order = shuffled[policy_of[shuffled].argsort(kind="stable")]  # policy by policy
    count = np.bincount(policy_of, minlength=num_policies)
    turn = np.arange(num_envs)[:, None] % count.clip(1)
    return order[(count.cumsum() - count + turn) % len(policy_of)]


def mean_returns(reward: np.ndarray, done: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Mean returns `[k]` of the episodes that ended in `[k, T, m]`, of which the first began with it.

    A policy without one keeps the mean of `before [k]`.
    """
    total = reward.cumsum(1)
    j, t, e = done.nonzero()
    order = np.lexsort((t, e, j))
    j, t, e = j[order], t[order], e[order]
    at_end = total[j, t, e]
    first = np.append(True, (np.diff(j) != 0) | (np.diff(e) != 0))[: len(j)]
    returns = at_end - np.where(first, 0.0, np.append(0.0, at_end[:-1])[: len(j)])
    count = np.bincount(j, minlength=len(before))
    return np.where(count, np.bincount(j, returns, len(before)) / count.clip(1), before)


def try_policies(policies: Policies, problem: Problem, rng: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns and steps `[k, n]` of one episode of each of k policies with each agent of `problem`.

    Actions are the most likely ones; an agent's starts, drawn from `rng`, are the same for all policies.
    """
    k, n = policies.num_policies, problem.num_agents
    if not n:
        return np.zeros((k, n)), np.zeros((k, n), np.int64)
    actor = Actor(policies, problem.family.action_space, np.tile(np.arange(k), n))
    with closing(problem.family.make_vec(problem.rows(np.arange(n).repeat(k)), Repeated(rng, k))) as env:
        episodes = play(env, actor, problem.horizon)
    return by_policy(episodes.returns, k), by_policy(episodes.lengths, k)


def try_episodes(
    policies: Policies, problem: Problem, num_episodes: int, seed: int, comm: Any, purpose: int = 0
) -> np.ndarray:
    """Returns `[k, n, E]` of every policy with every agent, from the same starts; a collective.

    Another `purpose` draws other starts.
    """
    n, own = problem.num_agents, comm.share(problem.num_agents)
    returns = np.zeros((policies.num_policies, n, num_episodes))
    mine = dataclasses.replace(problem, agents=problem.rows(own))
    for e in range(num_episodes):
        at(f"episode {e + 1} of {num_episodes} with each agent")
        # Streams of their own: how much one draws depends on the data
        rng = SharedStream(stream(seed, "evaluation", purpose, e), n, own)
        returns[:, own, e], _ = try_policies(policies, mine, rng)
    return comm.allreduce_(returns)


class StepEnv:
    """N environments of Gymnasium's kind, stepped as `rmdp.rollout` does; outcomes `[N, 1]` are rewards."""

    def __init__(self, env: Any, scaled: bool = True):
        self.env, self.scaled = env, scaled

    def reset(self) -> np.ndarray:
        """First observations `[N, D]`."""
        return np.array(self.env.reset()[0], np.float32)

    def step(self, actions: np.ndarray) -> Step:
        """Act in each environment; an episode is never both terminated and truncated."""
        action = to_space(actions, self.env.single_action_space, self.scaled)
        observation, reward, terminated, truncated, infos = self.env.step(action)
        final = final_observations(observation, infos, np.logical_or(terminated, truncated))
        # Copies: environments may reuse their arrays.
        observation, reward, final = (np.array(array, np.float32) for array in (observation, reward, final))
        terminated = np.array(terminated)
        return Step(observation, reward[:, None], terminated, truncated & ~terminated, final)

    def close(self) -> None:
        """Close the environments."""
        self.env.close()
