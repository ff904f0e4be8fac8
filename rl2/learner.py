"""One iteration of RL^2: collect meta-episodes, estimate advantages, update by PPO, report."""

import math
import time

import numpy as np
import torch

from common.device import check_device
from common.gae import gae
from common.optim import load_optimiser_state, make_adamw, optimiser_state
from common.ppo import ppo_loss
from common.runs.seeding import SharedStream, stream
from mpi_utils.sync import FlatGradients, broadcast_parameters
from rl2.policy import RecurrentPolicy
from rl2.rollout import MetaEpisodes, episode_returns, play
from rl2.tasks import task_family, teacher_of

METRICS = ("loss/policy", "loss/value", "ppo/entropy", "ppo/kl", "ppo/clip_fraction")
REPORTED_EPISODES = 10


class Learner:
    """Trains a `RecurrentPolicy`; the same numbers at any number of ranks, up to the order of summation.

    The meta-episodes of an iteration form a matrix of `meta_episodes_per_learner_batch` rows. A minibatch
    takes one meta-episode from each row, and a rank owns whole rows: so every rank has its share of every
    minibatch, and what a minibatch holds does not depend on how many ranks there are.
    """

    def __init__(self, config, comm):
        self.config, self.comm = config, comm
        self.family = task_family(config, comm)
        self.teacher = teacher_of(config)
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
                self.policy = RecurrentPolicy(config, self.family.observation_space, self.family.action_space)
        self.policy.to(config.device)
        broadcast_parameters(comm, self.policy)
        self.gradients = FlatGradients(comm, list(self.policy.parameters()))
        self.entropy_coef = config.ppo_ent_coef
        self.optimiser = make_adamw(self.policy.parameters(), config.adam_lr, config.adam_eps, config.adam_wd)

    def train_iteration(self, i: int) -> dict[str, float]:
        """Collect, estimate, update, report; returns the metrics of all ranks together."""
        config = self.config
        began = time.perf_counter()
        imitate = self.teacher is not None and i < config.warm_start_iters
        batch = self.collect(i, self.teacher if imitate else None)
        collected = time.perf_counter()

        advantage, value_target = self.estimate(batch)

        self.anneal(i)
        metrics = self.update(i, batch, advantage, value_target)
        updated = time.perf_counter()

        steps = self.num_total * config.meta_episode_len
        metrics |= self.returns(batch)
        metrics |= {
            "train/learning_rate": self.optimiser.lr,
            "train/env_steps": float((i + 1) * steps),
            "time/collect_s": collected - began,
            "time/update_s": updated - collected,
            "time/steps_per_second": steps / (updated - began),
        }
        return metrics

    def collect(self, i: int, teacher=None) -> MetaEpisodes | None:
        """One meta-episode in each of this rank's share of fresh tasks; None if the share is empty."""
        config = self.config
        tasks = self.family.sample(stream(config.seed, "tasks", i), self.num_total)
        if self.num_local == 0:
            return None
        mine = {name: value[self.share] for name, value in tasks.items()}
        env = self.family.make_vec(mine, rng=self.shared_stream("environment", i))
        return play(
            self.policy, env, config.meta_episode_len, self.shared_stream("acting", i), teacher=teacher
        )

    def shared_stream(self, purpose: str, i: int) -> SharedStream:
        return SharedStream(stream(self.config.seed, purpose, i), self.num_total, self.share)

    def estimate(self, batch: MetaEpisodes | None):
        """Advantages and value targets `[T, N]`; ends of episodes inside a meta-episode do not cut them."""
        config, advantage, value_target = self.config, None, None
        moments = np.zeros(3)
        if batch is not None:
            value = self.values(batch) if batch.value is None else batch.value
            advantage = gae(
                batch.reward * config.reward_scale, value, config.discount_gamma, config.gae_lambda
            )
            value_target = advantage + value
            wide = advantage.double()
            moments[:] = advantage.numel(), wide.sum().item(), wide.square().sum().item()
        count, total, squares = self.comm.allreduce_(moments)
        if batch is not None and config.standardize_advs:
            mean = total / count
            deviation = math.sqrt(max(squares / count - mean**2, 0.0))
            advantage = (advantage - mean) / (deviation + 1e-8)
        return advantage, value_target

    @torch.no_grad()
    def values(self, batch: MetaEpisodes):
        """Values `[T, N]` under a value network with a memory of its own, a few meta-episodes at a time."""
        pieces = torch.arange(self.num_local, device=batch.reward.device).split(64)
        return torch.cat(
            [self.policy.value(batch.inputs[:, p], batch.observation[:, p]) for p in pieces], dim=1
        )

    def anneal(self, i: int) -> None:
        """Learning rate and entropy bonus fall linearly; while imitating, the rate falls to PPO's first."""
        config = self.config
        warm = config.warm_start_iters if self.teacher is not None else 0
        if i < warm:
            rate = config.warm_start_lr + i / warm * (config.adam_lr - config.warm_start_lr)
        else:
            done = min(1.0, (i - warm) / max(1, config.max_pol_iters - warm - 1))
            rate = config.adam_lr + done * (config.adam_lr_final - config.adam_lr)
            self.entropy_coef = config.ppo_ent_coef + done * (config.ppo_ent_coef_final - config.ppo_ent_coef)
        self.optimiser.lr = rate

    def update(self, i: int, batch, advantage, value_target) -> dict[str, float]:
        """Epochs over minibatches of whole meta-episodes; one all-reduce for each gradient step."""
        config = self.config
        totals = np.zeros(len(METRICS))
        row_start = np.arange(0, self.num_local, self.num_minibatches)[:, None]
        for epoch in range(config.ppo_opt_epochs):
            keys = stream(config.seed, "minibatches", i, epoch).random((self.num_rows, self.num_minibatches))
            order = row_start + keys[self.rows].argsort(axis=1)  # [own rows, minibatches]
            for columns in torch.from_numpy(np.ascontiguousarray(order.T)).to(config.device):
                self.gradients.zero()
                metrics = dict.fromkeys(METRICS, 0.0)
                if len(columns):
                    loss, metrics = self.loss(
                        batch.columns(columns), advantage[:, columns], value_target[:, columns]
                    )
                    loss.backward()
                totals += self.gradients.average(len(columns), [float(metrics[name]) for name in METRICS])
                self.gradients.clip(config.max_grad_norm)
                self.optimiser.step()
        return dict(zip(METRICS, totals / (config.ppo_opt_epochs * self.num_minibatches), strict=True))

    def loss(self, meta_episodes: dict, advantage, value_target):
        """PPO's loss, or where the teacher left labels, the cross-entropy of imitating it."""
        config = self.config
        distribution, value = self.policy.unroll(meta_episodes["inputs"], meta_episodes["observation"])
        if "label" in meta_episodes:
            policy_loss = -distribution.log_prob(meta_episodes["label"]).mean()
            value_loss = 0.5 * (value - value_target).square().mean()
            metrics = dict.fromkeys(METRICS, 0.0) | {"loss/policy": policy_loss, "loss/value": value_loss}
            metrics["ppo/entropy"] = distribution.entropy().mean()
            return policy_loss + config.ppo_value_coef * value_loss, metrics
        return ppo_loss(
            distribution.log_prob(meta_episodes["action"]),
            meta_episodes["log_prob"],
            advantage,
            value,
            value_target,
            distribution.entropy(),
            clip_range=config.ppo_clip_param,
            entropy_coef=self.entropy_coef,
            value_coef=config.ppo_value_coef,
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

    def state_dict(self) -> dict:
        return {"policy": dict(self.policy.state_dict()), "optimiser": optimiser_state(self.optimiser)}

    def load_state_dict(self, state: dict) -> None:
        self.policy.load_state_dict(state["policy"])
        load_optimiser_state(self.optimiser, state["optimiser"])

    def tensors_in_sync(self) -> dict[str, torch.Tensor]:
        """What must be the same on all ranks, to the last bit."""
        return dict(self.policy.state_dict()) | optimiser_state(self.optimiser)
