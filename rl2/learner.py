"""One iteration of RL^2: collect meta-episodes, estimate advantages, update by PPO, report."""

import math
import time
from contextlib import closing
from typing import Any

import numpy as np
import torch

from common.device import check_device
from common.gae import above_alike, gae
from common.optim import load_optimiser_state, make_adamw, optimiser_state
from common.ppo import ppo_loss
from common.runs.seeding import Repeated, SharedStream, stream
from envs.problem import Problem
from mpi_utils.comm import Comm
from mpi_utils.sync import FlatGradients, broadcast_parameters
from rl2.config import Config
from rl2.mdp_baselines import GreedyReplanned
from rl2.policy import Actor, RecurrentPolicy
from rl2.problem import expert_of
from rl2.rollout import MetaEpisodes, episode_returns, play

METRICS = ("loss/policy", "loss/value", "ppo/entropy", "ppo/kl", "ppo/clip_fraction")
REPORTED_EPISODES = 10


class Learner:
    """Trains a `RecurrentPolicy`; the same numbers at any number of ranks, up to the order of summation.

    The meta-episodes of an iteration form a matrix of `meta_episodes_per_learner_batch` rows. A minibatch
    takes one meta-episode from each row, and a rank owns whole rows: so every rank has its share of every
    minibatch, and what a minibatch holds does not depend on how many ranks there are.
    """

    def __init__(self, config: Config, comm: Comm, problem: Problem):
        self.config, self.comm, self.problem = config, comm, problem
        self.expert = expert_of(config)
        self.num_total = config.meta_episodes_per_policy_update
        self.num_rows = config.meta_episodes_per_learner_batch
        self.num_minibatches = self.num_total // self.num_rows
        self.rows = comm.share(self.num_rows)
        self.share = slice(self.rows.start * self.num_minibatches, self.rows.stop * self.num_minibatches)
        self.num_local = self.share.stop - self.share.start

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(stream(config.seed, "weights").integers(2**62)))
            with comm.agree():
                check_device(config.device)
                family = problem.family
                self.policy = RecurrentPolicy(config, family.observation_space, family.action_space)
        self.policy.to(config.device)
        broadcast_parameters(comm, self.policy)
        self.gradients = FlatGradients(comm, list(self.policy.parameters()))
        self.entropy_coef = config.entropy_coef
        self.optimiser = make_adamw(
            self.policy.parameters(), config.learning_rate, config.adam_eps, config.weight_decay
        )

    def train_iteration(self, i: int) -> dict[str, float]:
        """Collect, estimate, update, report; returns the metrics of all ranks together."""
        config = self.config
        began = time.perf_counter()
        self.set_log_std(i)
        batch = self.collect(i, self.expert if i < config.warm_start_iters else None)
        collected = time.perf_counter()

        estimates = self.estimate(batch)

        self.anneal(i)
        metrics = self.update(i, batch, estimates)
        updated = time.perf_counter()

        steps = self.num_total * config.meta_episode_len
        return {
            **metrics,
            **self.returns(batch),
            "train/learning_rate": self.optimiser.lr,
            "train/env_steps": float((i + 1) * steps),
            "time/collect_s": collected - began,
            "time/update_s": updated - collected,
            "time/steps_per_second": steps / (updated - began),
        }

    def collect(self, i: int, expert: GreedyReplanned | None = None) -> MetaEpisodes | None:
        """One meta-episode in each of this rank's share of fresh tasks; None if the share is empty."""
        config = self.config
        alike = config.meta_episodes_per_start
        tasks = self.problem.sample(stream(config.seed, "tasks", i), self.num_total // alike)
        if self.num_local == 0:
            return None
        mine = {name: value.repeat(alike, axis=0)[self.share] for name, value in tasks.items()}
        chances = Repeated(stream(config.seed, "environment", i), alike)
        shared = SharedStream(chances, self.num_total, self.share)
        with closing(self.problem.family.make_vec(mine, rng=shared)) as env:
            acting = SharedStream(stream(config.seed, "acting", i), self.num_total, self.share)
            return play(self.policy, env, config.meta_episode_len, acting, expert)

    def estimate(self, batch: MetaEpisodes | None) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Advantages and value targets `[T, N]`, None for an empty share.

        Ends of episodes inside a meta-episode do not cut them.
        """
        config, advantage = self.config, None
        moments = np.zeros(3)
        if batch is not None:
            value = self.values(batch) if batch.value is None else batch.value
            advantage = gae(batch.reward * config.reward_scale, value, config.gamma, config.gae_lambda)
            value_target = advantage + value
            if (alike := config.meta_episodes_per_start) > 1:
                done = batch.done.numpy(force=True)  # where episodes wait, they all begin together
                done = 0 * done if config.early_ends == "wait" else done
                above = above_alike(advantage.numpy(force=True), done, alike)
                advantage = torch.from_numpy(above).to(config.device)
            wide = advantage.double()
            moments[:] = advantage.numel(), wide.sum().item(), wide.square().sum().item()
        count, total, squares = self.comm.allreduce_(moments)
        if advantage is None:
            return None
        if config.normalise_advantages:
            mean = total / count
            deviation = math.sqrt(max(squares / count - mean**2, 0.0))
            advantage = (advantage - mean) / (deviation + 1e-8)
        return advantage, value_target

    @torch.no_grad()
    def values(self, batch: MetaEpisodes) -> torch.Tensor:
        """Values `[T, N]` under a value network with a memory of its own, a few meta-episodes at a time."""
        pieces = torch.arange(self.num_local, device=batch.reward.device).split(64)
        return torch.cat(
            [self.policy.value(batch.inputs[:, p], batch.observation[:, p]) for p in pieces], dim=1
        )

    @torch.no_grad()
    def set_log_std(self, i: int) -> None:
        """Where the deviation of actions is not trained, it falls linearly."""
        config, log_std = self.config, self.policy.head.log_std
        if config.final_log_std is not None and log_std is not None:
            done = min(1.0, i / max(1, config.max_iters - 1))
            log_std.fill_(config.initial_log_std + done * (config.final_log_std - config.initial_log_std))

    def anneal(self, i: int) -> None:
        """Learning rate and entropy bonus fall linearly; while cloning, the rate falls to PPO's first."""
        config = self.config
        warm = config.warm_start_iters if self.expert is not None else 0
        if i < warm:
            rate = config.warm_start_lr + i / warm * (config.learning_rate - config.warm_start_lr)
        else:
            done = min(1.0, (i - warm) / max(1, config.max_iters - warm - 1))
            rate = config.learning_rate + done * (config.learning_rate_final - config.learning_rate)
            self.entropy_coef = config.entropy_coef + done * (config.entropy_coef_final - config.entropy_coef)
        self.optimiser.lr = rate

    def update(
        self, i: int, batch: MetaEpisodes | None, estimates: tuple[torch.Tensor, torch.Tensor] | None
    ) -> dict[str, float]:
        """Epochs over minibatches of whole meta-episodes; one all-reduce for each gradient step."""
        config = self.config
        totals = np.zeros(len(METRICS))
        row_start = np.arange(0, self.num_local, self.num_minibatches)[:, None]
        for epoch in range(config.num_epochs):
            keys = stream(config.seed, "minibatches", i, epoch).random((self.num_rows, self.num_minibatches))
            order = row_start + keys[self.rows].argsort(axis=1)  # [own rows, minibatches]
            for columns in torch.from_numpy(np.ascontiguousarray(order.T)).to(config.device):
                self.gradients.zero()
                metrics = dict.fromkeys(METRICS, 0.0)
                if batch is not None and estimates is not None:
                    loss, metrics = self.loss(batch.columns(columns), *(x[:, columns] for x in estimates))
                    loss.backward()
                totals += self.gradients.average(len(columns), [float(metrics[name]) for name in METRICS])
                self.gradients.clip(config.max_grad_norm)
                self.optimiser.step()
        return dict(zip(METRICS, totals / (config.num_epochs * self.num_minibatches), strict=True))

    def loss(
        self, meta_episodes: dict[str, torch.Tensor], advantage: torch.Tensor, value_target: torch.Tensor
    ) -> tuple[torch.Tensor, dict]:
        """PPO's loss, or behavioural cloning's where an expert told its actions; and metrics."""
        config = self.config
        distribution, value = self.policy.unroll(meta_episodes["inputs"], meta_episodes["observation"])
        if "expert_action" in meta_episodes:
            policy_loss = -distribution.log_prob(meta_episodes["expert_action"]).mean()
            value_loss = 0.5 * (value - value_target).square().mean()
            metrics = dict.fromkeys(METRICS, 0.0) | {"loss/policy": policy_loss, "loss/value": value_loss}
            metrics["ppo/entropy"] = distribution.entropy().mean()
            return policy_loss + config.value_coef * value_loss, metrics
        return ppo_loss(
            distribution.log_prob(meta_episodes["action"]),
            meta_episodes["log_prob"],
            advantage,
            value,
            value_target,
            distribution.entropy(),
            clip_range=config.clip_range,
            entropy_coef=self.entropy_coef,
            value_coef=config.value_coef,
        )

    def returns(self, batch: MetaEpisodes | None) -> dict[str, float]:
        """Mean return of the meta-episode and of each of its first episodes, over all ranks."""
        sums = np.zeros((2, 1 + REPORTED_EPISODES))
        if batch is not None:
            reward, done = batch.reward.cpu().numpy(), batch.done.cpu().numpy()
            returns = np.vstack(
                [reward.sum(0, dtype=np.float64), episode_returns(reward, done, REPORTED_EPISODES)]
            )
            sums[:] = np.nansum(returns, axis=1), np.isfinite(returns).sum(axis=1)
        totals, counts = self.comm.allreduce_(sums)
        names = ["train/return"] + [f"train/return_episode_{e + 1:02d}" for e in range(REPORTED_EPISODES)]
        return {name: t / n for name, t, n in zip(names, totals, counts, strict=True) if n}

    def actor(self, agents: Any = None) -> Actor:
        """Acts for any agents, with an empty memory at each `reset`."""
        return Actor(self.policy, self.problem.family.action_space)

    def state_dict(self) -> dict:
        """The policy and the optimiser, and the population, if there is one."""
        problem = self.problem
        given = {"population": problem.digest, "agents": problem.agents} if self.config.population else {}
        return {
            "policy": dict(self.policy.state_dict()),
            "optimiser": optimiser_state(self.optimiser),
            **given,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`, at any number of ranks."""
        if self.config.population:
            self.problem.require_same(state["population"])
        self.policy.load_state_dict(state["policy"])
        load_optimiser_state(self.optimiser, state["optimiser"])

    def tensors_in_sync(self) -> dict[str, torch.Tensor]:
        """What must be the same on all ranks, to the last bit."""
        return dict(self.policy.state_dict()) | optimiser_state(self.optimiser)
