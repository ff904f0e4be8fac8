"""One iteration of RL^2: collect meta-episodes, estimate advantages, update by PPO, report."""

import math
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.device import check_device
from common.errors import UserError
from common.gae import above_alike
from common.optim import load_optimiser_state, make_adamw, optimiser_state
from common.ppo import ppo_loss
from common.running_moments import RunningMoments
from common.runs import checkpoint
from common.runs.seeding import Repeated, SharedStream, stream
from envs.problem import Problem
from mpi_utils.comm import Comm
from mpi_utils.sync import FlatGradients, broadcast_parameters
from rl2.belief import BeliefPolicy, make_policy
from rl2.config import Config
from rl2.estimates import meta_gae, so_far
from rl2.greedy import greedy_returns
from rl2.policy import Actor
from rl2.problem import expert_of
from rl2.rollout import MetaEpisodes, mean_returns, play
from rl2.vae_learner import VaeLearner

METRICS = ("loss/policy", "loss/value", "ppo/entropy", "ppo/kl", "ppo/clip_fraction")


def start_from(policy: torch.nn.Module, config: Config) -> None:
    """Give `policy` the weights of another run; `UserError` if its networks are others.

    A run that has a save of its own goes on from that: the other need not be there any more.
    """
    if checkpoint.newest_valid(Path(config.checkpoint_dir) / config.model_name)[0]:
        return
    try:
        policy.load_state_dict(checkpoint.open_run(config.start_from, "rl2")[1]["policy"])
    except RuntimeError as error:
        reason = " ".join(str(error).split("\n")[1:2]).strip()
        raise UserError(
            f"--start_from {config.start_from}: its networks are others ({reason}); give the settings with "
            "which it was trained"
        ) from None


class Learner:
    """Trains a policy; the same numbers at any number of ranks, up to the order of summation.

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
                self.policy = make_policy(config, family.observation_space, family.action_space)
                self.vae: VaeLearner | None = None
                if isinstance(self.policy, BeliefPolicy):
                    self.vae = VaeLearner(config, comm, self.policy, self.rows, self.num_minibatches)
                if config.start_from:
                    start_from(self.policy, config)
        self.policy.to(config.device)
        broadcast_parameters(comm, self.policy)
        if self.vae is not None:
            self.vae.to(config.device)
        self.gradients = FlatGradients(comm, self.policy.by_ppo())
        self.entropy_coef = config.entropy_coef
        self.return_moments = RunningMoments(1).to(config.device) if config.normalise_rewards else None
        self.env_steps, self.best_return = 0, -math.inf
        self.optimiser = make_adamw(
            self.policy.by_ppo(), config.learning_rate, config.adam_eps, config.weight_decay
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
        if self.vae is not None:
            metrics |= self.vae.train_iteration(i, batch)
        updated = time.perf_counter()

        if self.policy.normaliser is not None:  # only now: what was collected stays as the policy saw it
            seen = None if batch is None else batch.counted(batch.observation)
            self.policy.normaliser.update(self.comm, seen)
        if isinstance(self.policy, BeliefPolicy):
            self.policy.update_moments(self.comm, None if batch is None else batch.counted(batch.inputs))
        steps = self.count_steps(i, batch)
        return {
            **metrics,
            **self.returns(batch),
            **self.evaluate(i),
            "train/learning_rate": self.optimiser.lr,
            "train/env_steps": float(self.env_steps),
            "time/collect_s": collected - began,
            "time/update_s": updated - collected,
            "time/steps_per_second": steps / (updated - began),
        }

    def collect(self, i: int, expert: Any = None) -> MetaEpisodes | None:
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
            return play(
                self.policy,
                env,
                config.meta_episode_len,
                acting,
                expert,
                config.episodes,
                config.bootstrap,
                keep_reached=self.vae is not None,
            )

    def estimate(self, batch: MetaEpisodes | None) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Advantages and value targets `[T, N]`, None for an empty share.

        Ends of episodes inside a meta-episode do not cut them, except time limits with that flag.
        """
        config, advantage = self.config, None
        moments = np.zeros(3)
        reward = self.scaled_rewards(batch)
        if batch is not None and reward is not None:
            value, next_value = self.values(batch)
            cut = batch.truncated if config.cut_at_time_limits else None
            fallen = batch.done - batch.truncated if config.episodes else None  # a last episode, for good
            ends = {"next_value": next_value, "live": batch.live, "cut": cut, "fallen": fallen}
            advantage = meta_gae(reward, value, config.gamma, config.gae_lambda, **ends)
            value_target = advantage + value
            if (alike := config.meta_episodes_per_start) > 1:
                done = batch.done.numpy(force=True)  # where episodes wait, they all begin together
                done = 0 * done if config.early_ends == "wait" else done
                above = above_alike(advantage.numpy(force=True), done, alike)
                advantage = torch.from_numpy(above).to(config.device)
            wide = batch.counted(advantage).double()
            moments[:] = wide.numel(), wide.sum().item(), wide.square().sum().item()
        count, total, squares = self.comm.allreduce_(moments)
        if advantage is None:
            return None
        if config.normalise_advantages:
            mean = total / count
            deviation = math.sqrt(max(squares / count - mean**2, 0.0))
            advantage = (advantage - mean) / (deviation + 1e-8)
        return advantage, value_target

    def scaled_rewards(self, batch: MetaEpisodes | None) -> torch.Tensor | None:
        """The rewards `[T, N]` that values add up; a collective."""
        if self.return_moments is None:
            return None if batch is None else batch.reward * self.config.reward_scale
        sums = None if batch is None else batch.counted(so_far(batch.reward, self.config.gamma))[:, None]
        self.return_moments.update(self.comm, sums)
        return None if batch is None else self.return_moments.scaled(batch.reward)

    @torch.no_grad()
    def values(self, batch: MetaEpisodes) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Values `[T, N]` of all steps, and `[N]` behind the last one if that counts.

        Those of a value network with a memory of its own are read a few meta-episodes at a time.
        """
        value, behind = batch.value, batch.next_value
        if value is None:
            inputs, observation = batch.inputs, batch.observation
            if batch.next_inputs is not None and batch.next_observation is not None:  # --bootstrap
                inputs = torch.cat([inputs, batch.next_inputs])
                observation = torch.cat([observation, batch.next_observation])
            pieces = torch.arange(self.num_local, device=inputs.device).split(64)
            whole = torch.cat([self.policy.value(inputs[:, p], observation[:, p]) for p in pieces], dim=1)
            value = whole[: len(batch.reward)]
            behind = whole[len(batch.reward) :] if self.config.bootstrap else None
        return value, None if behind is None else behind[0]

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
                metrics, weight = dict.fromkeys(METRICS, 0.0), float(len(columns))
                if batch is not None and estimates is not None:
                    chosen = batch.columns(columns)
                    weight = float(chosen["live"].sum()) if "live" in chosen else weight
                    loss, metrics = self.loss(chosen, *(x[:, columns] for x in estimates))
                    loss.backward()
                totals += self.gradients.average(weight, [float(metrics[name]) for name in METRICS])
                self.gradients.clip(config.max_grad_norm)
                self.optimiser.step()
        return dict(zip(METRICS, totals / (config.num_epochs * self.num_minibatches), strict=True))

    def loss(
        self, meta_episodes: dict[str, torch.Tensor], advantage: torch.Tensor, value_target: torch.Tensor
    ) -> tuple[torch.Tensor, dict]:
        """PPO's loss, or behavioural cloning's where an expert told its actions; and metrics."""
        config = self.config
        distribution, value = self.policy.unroll(meta_episodes["inputs"], meta_episodes["observation"])
        live = meta_episodes.get("live", ...)  # [T, N]; what comes behind the last episode is left out
        value, value_target = value[live], value_target[live]
        if "expert_action" in meta_episodes:
            policy_loss = -distribution.log_prob(meta_episodes["expert_action"])[live].mean()
            value_loss = 0.5 * (value - value_target).square().mean()
            metrics = dict.fromkeys(METRICS, 0.0) | {
                "loss/policy": policy_loss.detach(),
                "loss/value": value_loss.detach(),
                "ppo/entropy": distribution.entropy()[live].mean().detach(),
            }
            return policy_loss + config.value_coef * value_loss, metrics
        return ppo_loss(
            distribution.log_prob(meta_episodes["action"])[live],
            meta_episodes["log_prob"][live],
            advantage[live],
            value,
            value_target,
            distribution.entropy()[live],
            clip_range=config.clip_range,
            entropy_coef=self.entropy_coef,
            value_coef=config.value_coef,
        )

    def returns(self, batch: MetaEpisodes | None) -> dict[str, float]:
        """Mean return of the meta-episode and of each of its first episodes, over all ranks."""
        played = None
        if batch is not None:
            live = 1 if batch.live is None else batch.live
            played = (batch.reward * live).cpu().numpy(), (batch.done * live).cpu().numpy()
        return mean_returns("train", played, self.comm, self.config.episodes)

    def count_steps(self, i: int, batch: MetaEpisodes | None) -> int:
        """Steps of this iteration that count, of all ranks, which are added up."""
        if not self.config.episodes:
            steps = self.num_total * self.config.meta_episode_len
            self.env_steps = (i + 1) * steps
            return steps
        live = 0 if batch is None or batch.live is None else int(batch.live.sum())
        steps = int(self.comm.allreduce_(np.array([live]))[0])
        self.env_steps += steps
        return steps

    def evaluate(self, i: int) -> dict[str, float]:
        """Greedy returns after every `eval_interval`th iteration, and the highest so far."""
        if not self.config.eval_interval or (i + 1) % self.config.eval_interval:
            return {}
        metrics = greedy_returns(self.policy, self.problem, self.config, self.comm)
        self.best_return = max(self.best_return, metrics["eval/return"])
        return metrics | {"eval/best_return": self.best_return}

    def actor(self, agents: Any = None) -> Actor:
        """Acts for any agents, with an empty memory at each `reset`."""
        return Actor(self.policy, self.problem.family.action_space)

    def state_dict(self) -> dict:
        """The policy, the optimiser and what else is carried over; and the population, if there is one."""
        config = self.config
        more: dict[str, Any] = {}
        if config.population:
            more |= {"population": self.problem.digest, "agents": self.problem.agents}
        if self.return_moments is not None:
            more["return_moments"] = dict(self.return_moments.state_dict())
        if config.episodes:
            more["env_steps"] = self.env_steps
        if self.best_return > -math.inf:
            more["best_return"] = self.best_return
        if self.vae is not None:
            more["vae"] = self.vae.state_dict()
        return {
            "policy": dict(self.policy.state_dict()),
            "optimiser": optimiser_state(self.optimiser),
            **more,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`, at any number of ranks."""
        if self.config.population:
            self.problem.require_same(state["population"])
        self.policy.load_state_dict(state["policy"])
        load_optimiser_state(self.optimiser, state["optimiser"])
        if self.return_moments is not None:
            self.return_moments.load_state_dict(state["return_moments"])
        if self.vae is not None:
            self.vae.load_state_dict(state["vae"])
        self.env_steps = state.get("env_steps", 0)
        self.best_return = state.get("best_return", -math.inf)

    def tensors_in_sync(self) -> dict[str, torch.Tensor]:
        """What must be the same on all ranks, to the last bit."""
        moments = {} if self.return_moments is None else self.return_moments.state_dict(prefix="returns.")
        vae = {} if self.vae is None else self.vae.tensors_in_sync()
        return dict(self.policy.state_dict()) | optimiser_state(self.optimiser) | dict(moments) | vae
