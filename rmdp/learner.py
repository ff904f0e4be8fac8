"""One iteration of r-MDP: collect, estimate for each agent, update all policies, reassign, report."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from common.optim import flatten, load_optimiser_state, make_adamw, optimiser_state, share_gradient
from common.runs.seeding import stream
from envs.problem import Problem
from mpi_utils.sync import FlatGradients
from rmdp.advantages import Batch
from rmdp.config import Config
from rmdp.gradients import CriticGradient, PolicyGradient
from rmdp.losses import PolicyLoss, ValueLoss
from rmdp.own_dynamics import OwnDynamics
from rmdp.policy import Actor, Critic, Policies
from rmdp.problem import shares_dynamics
from rmdp.reference import return_range
from rmdp.shared_dynamics import SharedDynamics

METRICS = ("loss/policy", "loss/value", "ppo/entropy", "ppo/kl", "ppo/clip_fraction")
GRADIENTS: dict[str, tuple[Any, Any]] = {
    "written": (PolicyGradient, CriticGradient),
    "autograd": (PolicyLoss, ValueLoss),
}


class Learner:
    """Trains k `Policies` for n agents; the same numbers at any number of ranks, up to the order of summing.

    Two things are shared over ranks. Environments: a rank steps its part of them for all k policies, then all
    ranks have all steps. Agents: a rank owns a slice of them, so that memory and work for each agent fall
    with the number of ranks. The `population` gives steps, advantages and assignments: by default
    `SharedDynamics` where every step of the problem has a reward for all agents, else `OwnDynamics`.
    """

    def __init__(self, config: Config, comm: Any, problem: Problem, population: Any = None):
        make = SharedDynamics if shares_dynamics(problem) else OwnDynamics
        self.config, self.comm, self.problem = config, comm, problem
        self.population = population or make(config, comm, problem)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(stream(config.seed, "weights").integers(2**62)))
            spaces = (problem.family.observation_space, problem.family.action_space)
            self.policies = Policies(config, *spaces)
            self.critic = Critic(config, spaces[0], self.population.own_values)
        head = list(self.critic.head.parameters())
        replicated = [*self.policies.parameters(), *self.critic.trunk()]
        self.flat = flatten(replicated)
        comm.bcast_(self.flat.detach())
        for p in head:
            p.grad = torch.zeros_like(p)
        self.gradients = FlatGradients(comm, [self.flat, *(head if self.population.whole_critic else ())])
        share_gradient(self.flat, replicated)
        self.optimiser = make_adamw([self.flat, *head], config.learning_rate, config.adam_eps)
        of_policies, of_critic = GRADIENTS[config.gradient]
        self.policy_gradient, self.critic_gradient = of_policies(self.policies), of_critic(self.critic)

    def train_iteration(self, i: int) -> dict[str, float]:
        """Collect, estimate, update, reassign, report; returns the metrics of all ranks together."""
        population, began = self.population, time.perf_counter()
        if i == 0:
            population.begin(self.policies, self.critic)
            if population.weights:
                config = self.config
                population.weights.begin(
                    *return_range(self.problem, config.reference, config.seed, self.comm)
                )
        if (log_std := self.log_std(i)) is not None:
            nn.init.constant_(self.policies.log_std, log_std)
        steps = population.collect(i, self.policies)
        collected = time.perf_counter()

        batch = population.estimate(steps, self.policies.normaliser, self.critic)

        self.optimiser.lr, entropy_coef = self.annealed(i)
        metrics = self.update(i, batch, entropy_coef)
        self.policies.normaliser.update(steps.observation.flatten(1, 2))
        updated = time.perf_counter()

        moved = population.reassign(i, self.policies, steps)

        return {
            **metrics,
            **population.report(i),
            **moved,
            "train/learning_rate": self.optimiser.lr,
            "time/collect_s": collected - began,
            "time/update_s": updated - collected,
            "time/steps_per_second": steps.log_prob.numel() / (updated - began),
        }

    def log_std(self, i: int) -> float | None:
        """The logarithm of the deviation of actions, falling linearly; None where it is trained."""
        start, end = self.config.initial_log_std, self.config.final_log_std
        if end is None or self.policies.discrete:
            return None
        return start + min(1.0, 1.1 * i / self.config.max_iters) * (end - start)

    def annealed(self, i: int) -> tuple[float, float]:
        """Learning rate and weight of entropy fall exponentially and stay at their last value (section 3)."""
        config, done = self.config, 1.1 * i / self.config.max_iters
        start, end = config.learning_rate, min(config.learning_rate, config.learning_rate_final)
        learning_rate = max(end, start * (end / start) ** done)
        start, end = config.entropy_coef, config.entropy_coef_final
        return learning_rate, max(end, start * (end / start) ** done) if start > end > 0 else start

    def update(self, i: int, batch: Batch, entropy_coef: float) -> dict[str, float]:
        """Epochs over minibatches of all policies' steps; one all-reduce for each gradient step."""
        config, totals = self.config, np.zeros(len(METRICS))
        size = config.steps_per_policy // config.num_minibatches
        for epoch in range(config.num_epochs):
            order = stream(config.seed, "minibatches", i, epoch).permutation(config.steps_per_policy)
            sums = np.zeros(len(METRICS))
            for columns in order.reshape(-1, size):
                self.gradients.zero()
                metrics = self.policy_step(batch, columns, entropy_coef) | self.value_step(batch, columns)
                sums += self.gradients.sum([metrics.get(name, 0.0) for name in METRICS])
                if self.log_std(i) is not None:
                    self.policies.log_std.grad.zero_()  # type: ignore[union-attr]
                self.clip()
                self.optimiser.step()
            totals += sums / config.num_minibatches
            if sums[METRICS.index("ppo/kl")] / config.num_minibatches > config.target_kl:
                break
        return {**dict(zip(METRICS, totals / (epoch + 1), strict=True)), "ppo/epochs": epoch + 1.0}

    def policy_step(self, batch: Batch, columns: np.ndarray, entropy_coef: float) -> dict[str, float]:
        """Gradients of PPO's loss on this rank's rows of the minibatch `columns`; its part of the metrics."""
        config, metrics, assignment = self.config, {}, self.population.assignment
        rows, advantage = self.comm.share(len(columns)), take(batch.advantage, columns)
        if assignment.soft:  # weigh agents anew, since the assignment learns at every step
            by_agent = [take(values, columns) for values in batch.agent_advantage]
            weighed = assignment.weigh(by_agent, advantage.shape) / config.num_agents
            whole = self.comm.allreduce_(weighed.detach().numpy().copy())
            advantage = (whole - batch.centre) / batch.spread
        slope = np.zeros_like(advantage)
        if rows.stop > rows.start:
            scale = 1.0 / advantage.size
            ratio, entropy, slope[:, rows] = self.policy_gradient(
                take(batch.observation, columns[rows]),
                take(batch.action, columns[rows]),
                take(batch.log_prob, columns[rows]),
                advantage[:, rows],
                clip_range=config.clip_range,
                entropy_coef=entropy_coef,
                scale=scale,
            )
            metrics = {
                "loss/policy": -scale * float(np.vdot(slope[:, rows], advantage[:, rows])),
                "ppo/entropy": scale * float(entropy.sum()),
                # Non-negative estimator of KL(old || new): mean of r - 1 - log r.
                "ppo/kl": scale * float((ratio - 1 - np.log(ratio)).sum()),
                "ppo/clip_fraction": scale * int((np.abs(ratio - 1) > config.clip_range).sum()),
            }
        if assignment.soft:
            slope = self.comm.allreduce_(slope * (-1.0 / slope.size / batch.spread.mean()))
            assignment.learn(weighed, slope)
        return metrics

    def value_step(self, batch: Batch, columns: np.ndarray) -> dict[str, float]:
        """Gradients of the critic's loss: for all agents on this rank's rows, or on all rows for its own."""
        population = self.population
        scale = 1.0 / (self.config.num_policies * len(columns) * population.num_values)
        if population.whole_critic:
            columns = columns[self.comm.share(len(columns))]
        if not columns.size:
            return {}
        targets = [take(values, columns) for values in batch.value_target]
        pairs = zip(population.value_chunks(), targets, strict=True)
        return {"loss/value": self.critic_gradient(take(batch.observation, columns), pairs, scale=scale)}

    def clip(self) -> None:
        """Scale all gradients if those of policies and the critic's trunk are too long together."""
        norm, longest = float(torch.linalg.vector_norm(self.flat.grad)), self.config.max_grad_norm
        if norm > longest:
            for p in self.optimiser.parameters:
                if p.grad is not None:
                    p.grad *= longest / norm

    def actor(self, agents: np.ndarray | None = None, policy_of: np.ndarray | None = None) -> Actor:
        """What acts for `agents` (numbers, default: all in order), each by its policy; a collective.

        `policy_of` [agents] gives them other policies than those that they are assigned to. Raises ValueError
        as long as no agent is assigned.
        """
        if policy_of is None:
            policy_of = self.population.assignment.everyone()
            policy_of = policy_of if agents is None else policy_of[agents]
        return Actor(self.policies, self.problem.family.action_space, policy_of)

    def state_dict(self) -> dict:
        """Everything that the next iteration needs, of all ranks; a collective."""
        return {
            **self.each_row(self.networks(), self.population.shard.gather),
            **self.population.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`, at any number of ranks."""
        if self.config.population:
            agents = {name: np.asarray(state["agents"].get(name, [])) for name in self.problem.rows(slice(0))}
            self.problem.require_same(dataclasses.replace(self.problem, agents=agents).digest)
        networks = self.each_row({part: state[part] for part in self.networks()}, self.population.shard.cut)
        self.policies.load_state_dict(networks["policy"])
        self.critic.load_state_dict(networks["critic"])
        load_optimiser_state(self.optimiser, networks["optimiser"])
        self.population.load_state_dict(state)

    def tensors_in_sync(self) -> dict[str, torch.Tensor]:
        """What must be the same on all ranks, to the last bit; rows that a rank has alone are left out."""
        return {
            f"{part}.{name}": value
            for part, tensors in self.networks().items()
            for name, value in tensors.items()
            if self.population.whole_critic or not has_rows(part, name)
        }

    def networks(self) -> dict[str, dict[str, torch.Tensor]]:
        """Policies, critic and optimiser of this rank."""
        return {
            "policy": self.policies.state_dict(),
            "critic": self.critic.state_dict(),
            "optimiser": optimiser_state(self.optimiser),
        }

    def each_row(self, networks: dict, change: Callable) -> dict[str, dict[str, torch.Tensor]]:
        """What `networks` holds, that with a row for each of a rank's own agents changed by `change`."""
        whole = self.population.whole_critic
        return {
            part: {
                name: torch.as_tensor(value) if whole or not has_rows(part, name) else change(value)
                for name, value in tensors.items()
            }
            for part, tensors in networks.items()
        }


def has_rows(part: str, name: str) -> bool:
    """Whether a tensor of `Learner.networks` has a row for each agent.

    The critic's last layer has, and its moments. The optimiser's first parameter is the flat one of all else.
    """
    return name.startswith("head.") if part == "critic" else part == "optimiser" and not name.startswith("0.")


def take(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """The columns of `[k, R, ...]`."""
    return values.take(columns, axis=1)
