"""One iteration of r-MDP: collect, estimate for each agent, update all policies, reassign, report."""

import time

import numpy as np
import torch

from common.gae import gae
from common.optim import (
    flatten,
    load_optimiser_state,
    make_adamw,
    optimiser_state,
    share_gradient,
)
from mpi_utils.seeding import SharedStream, stream
from mpi_utils.sync import FlatGradients
from rmdp.config import shared
from rmdp.gradients import CriticGradient, PolicyGradient
from rmdp.members import Members, summed
from rmdp.own_agents import OwnAgents
from rmdp.policy import Critic, Policies
from rmdp.rollout import Actors, Steps
from rmdp.tasks import SCALE, draw_agents, shared_family
from rmdp.welfare import Welfare

METRICS = ("loss/policy", "loss/value", "ppo/entropy", "ppo/kl", "ppo/clip_fraction")

HEAD = ("head.weight", "head.bias")  # the critic's parameters that have a row for each agent


class Learner:
    """Trains k `Policies` for n agents; the same numbers at any number of ranks up to the order of summing.

    Two things are shared over ranks. Environments: a rank steps its part of them for all k policies, then all
    ranks have all steps. Agents: a rank owns a slice of them, with its part of rewards, utilities, assignment
    and of the critic's last layer, so that memory and work for each agent fall with the number of ranks.

    Where agents do not share their dynamics, it makes a `SeparateLearner`.
    """

    def __new__(cls, config, comm):
        if cls is Learner and not shared(config):
            from rmdp.separate import SeparateLearner as cls
        return super().__new__(cls)

    def __init__(self, config, comm):
        self.config, self.comm = config, comm
        self.k, self.n, self.m = config.num_policies, config.num_agents, config.envs_per_policy
        with comm.agree():
            self.family = shared_family(config)
            self.agents = draw_agents(config, self.family)
        self.own = OwnAgents(comm, self.n, self.agents)
        self.members = Members(config, comm, self.own, self.family, self.agents)
        self.welfare = Welfare(config, comm, self.own.num, SCALE.get(config.environment, 1.0))
        self.own_envs = comm.share(self.m)
        env_seed = int(stream(config.seed, "environment").integers(2**62))
        self.actors = Actors(self.family, self.k, self.m, self.own_envs, env_seed)
        self.make_networks(self.own.num)

    def make_networks(self, num_values: int, replicated_head: bool = False) -> None:
        """Policies, a critic of `num_values` values, their gradients and the optimiser."""
        config, comm = self.config, self.comm
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(stream(config.seed, "weights").integers(2**62)))
            self.policies = Policies(config, self.family.observation_space, self.family.action_space)
            self.critic = Critic(config, self.family.observation_space, num_values)
        head = list(self.critic.head.parameters())
        self.own_rows = [] if replicated_head else head  # rows of agents, which are each rank's own
        replicated = [*self.policies.parameters(), *self.critic.trunk(), *(head if replicated_head else ())]
        flat = flatten(replicated)
        comm.bcast_(flat.detach())
        self.gradients = FlatGradients(comm, [flat])
        share_gradient(flat, replicated)
        for p in self.own_rows:
            p.grad = torch.zeros_like(p)
        self.optimiser = make_adamw([flat, *self.own_rows], config.learning_rate, config.adam_eps)
        self.policy_gradient = PolicyGradient(self.policies)
        self.critic_gradient = CriticGradient(self.critic)

    def train_iteration(self, i: int) -> dict[str, float]:
        """Collect, estimate, update, reassign, report; returns the metrics of all ranks together."""
        config, began = self.config, time.perf_counter()
        acting = SharedStream(stream(config.seed, "acting", i), self.m, self.own_envs)
        steps = self.actors.play(self.policies, config.steps_per_policy // self.m, acting, self.comm)
        collected = time.perf_counter()

        batch = self.estimate(steps)

        self.anneal(i)
        metrics = self.update(i, batch)
        self.policies.normaliser.update(steps.observation.flatten(1, 2))
        updated = time.perf_counter()

        flips = self.members.reassign(i, self.welfare.utility(), steps.outcome.flatten(0, 2))

        num_steps = self.k * config.steps_per_policy
        return (
            metrics
            | self.welfare.report(self.members.weights())
            | {
                "train/flips": float(flips),
                "train/learning_rate": self.optimiser.lr,
                "train/env_steps": float((i + 1) * num_steps),
                "time/collect_s": collected - began,
                "time/update_s": updated - collected,
                "time/steps_per_second": num_steps / (updated - began),
            }
        )

    @torch.no_grad()
    def estimate(self, steps: Steps) -> dict:
        """Value targets of each own agent and advantages of each policy, for all R = T * m steps.

        Agents go through in chunks, so that what is worked on fits into a core's cache at any n. Of what has
        a column for each agent, the batch holds one array `[k, R, chunk]` for each chunk.
        """
        normalise, critic = self.policies.normaliser, self.critic
        observation = normalise(steps.observation).flatten(1, 2)
        at_step = critic.features(observation).unflatten(1, steps.truncated.shape[1:])
        at_end = critic.features(normalise(steps.following))
        # A time limit is no end: the value of what would have followed counts.
        limit = steps.truncated.nonzero(as_tuple=True)
        at_limit = critic.features(normalise(steps.final_observation)[limit], limit[0])
        done, weights = steps.terminated | steps.truncated, self.members.weights().detach()
        self.welfare.begin(done)
        paid, served = torch.zeros(done.shape), torch.zeros(observation.shape[:2])
        targets, advantages = [], []
        for agents in self.own.chunks:
            reward = self.own.rewards(self.family, steps.outcome, agents)  # [k, T, m, chunk]
            self.welfare.reward[:, agents] += reward.sum((1, 2))
            paid += summed(reward.flatten(1, 2), weights[:, agents]).view_as(paid)
            value = critic.values(at_step, agents)
            reward[limit] += self.config.gamma * critic.values(at_limit, agents)
            advantage = gae(
                *(reward.transpose(0, 1), value.transpose(0, 1), self.config.gamma, self.config.gae_lambda),
                next_value=critic.values(at_end, agents),
                cut=done.transpose(0, 1).float()[..., None],
            ).transpose(0, 1)
            targets.append((advantage + value).flatten(1, 2).numpy())
            advantage = advantage.flatten(1, 2)
            if self.members.soft:
                # The choice of a policy is an agent's first action: what it pays over the present mean counts
                # too. The critic knows the policy, so its advantages alone cannot tell policies apart.
                rate = self.welfare.reward_rate()[:, agents]
                advantage += (rate - (weights[:, agents] * rate).sum(0))[:, None]
                advantages.append(advantage.numpy())
            served += summed(advantage, weights[:, agents])
        self.welfare.finish(paid, done)
        served = self.comm.allreduce_(served.numpy()) / self.n  # the mean over all agents (section 2)
        self.center, self.spread = served.mean(1, keepdims=True), served.std(1, keepdims=True) + 1e-8
        return {
            "observation": observation.numpy(),
            "action": steps.action.flatten(1, 2).numpy(),
            "log_prob": steps.log_prob.flatten(1, 2).numpy(),
            "advantage": (served - self.center) / self.spread,
            "value_target": targets,
            "agent_advantage": advantages,
        }

    def anneal(self, i: int) -> None:
        """Learning rates and entropy bonus fall exponentially and stay at their last value (section 3)."""
        config, done = self.config, 1.1 * i / self.config.max_iters
        start, end = config.learning_rate, min(config.learning_rate, config.learning_rate_final)
        self.optimiser.lr = max(end, start * (end / start) ** done)
        start, end = config.entropy_coef, config.entropy_coef_final
        self.entropy_coef = max(end, start * (end / start) ** done) if start > end > 0 else start

    def update(self, i: int, batch: dict) -> dict[str, float]:
        """Epochs over minibatches of all policies' steps; one all-reduce for each gradient step.

        A rank takes its part of a minibatch's steps for the policies, and its own agents for the critic.
        """
        config, totals = self.config, np.zeros(len(METRICS))
        size = config.steps_per_policy // config.num_minibatches
        rows = self.comm.share(size)
        for epoch in range(config.num_epochs):
            order = stream(config.seed, "minibatches", i, epoch).permutation(config.steps_per_policy)
            sums = np.zeros(len(METRICS))
            for columns in order.reshape(-1, size):
                minibatch = {name: of_steps(values, columns) for name, values in batch.items()}
                self.gradients.zero()
                metrics = self.policy_step(minibatch, rows) | self.value_step(minibatch, rows)
                sums += self.gradients.sum([metrics.get(name, 0.0) for name in METRICS])
                norm = self.gradients.clip(config.max_grad_norm)
                if norm > config.max_grad_norm:
                    for p in self.own_rows:
                        p.grad *= config.max_grad_norm / norm
                self.optimiser.step()
            totals += sums / config.num_minibatches
            if sums[METRICS.index("ppo/kl")] / config.num_minibatches > config.target_kl:
                break
        return dict(zip(METRICS, totals / (epoch + 1), strict=True)) | {"ppo/epochs": epoch + 1.0}

    def policy_step(self, minibatch: dict, rows: slice) -> dict:
        """Gradients of PPO's loss on this rank's `rows` of a minibatch; this rank's part of the metrics."""
        config, metrics = self.config, {}
        advantage = minibatch["advantage"]
        if self.members.soft:  # weigh agents anew, since the assignment learns at every step
            own_part = self.members.serve(minibatch["agent_advantage"], advantage.shape) / self.n
            whole = self.comm.allreduce_(own_part.detach().numpy().copy())
            advantage = (whole - self.center) / self.spread
        slope = np.zeros_like(advantage)
        if rows.stop > rows.start:
            scale = 1.0 / advantage.size
            own = {name: minibatch[name][:, rows] for name in ("observation", "action", "log_prob")}
            ratio, entropy, slope[:, rows] = self.policy_gradient(
                *(own["observation"], own["action"], own["log_prob"], advantage[:, rows]),
                clip_range=config.clip_range,
                entropy_coef=self.entropy_coef,
                scale=scale,
            )
            metrics = {
                "loss/policy": -scale * float(np.vdot(slope[:, rows], advantage[:, rows])),
                "ppo/entropy": scale * float(entropy.sum()),
                # Non-negative estimator of KL(old || new): mean of r - 1 - log r.
                "ppo/kl": scale * float((ratio - 1 - np.log(ratio)).sum()),
                "ppo/clip_fraction": scale * int((np.abs(ratio - 1) > config.clip_range).sum()),
            }
        if self.members.soft:
            slope = self.comm.allreduce_(slope * (-1.0 / slope.size / self.spread.mean()))
            self.members.step(own_part, slope)
        return metrics

    def value_step(self, minibatch: dict, rows: slice) -> dict:
        """Gradients of the critic's loss for this rank's agents, on all rows of a minibatch."""
        scale = 1.0 / (minibatch["advantage"].size * self.n)
        targets = zip(self.own.chunks, minibatch["value_target"], strict=True)
        return {"loss/value": self.critic_gradient(minibatch["observation"], targets, scale=scale)}

    def state_dict(self) -> dict:
        """Everything that the next iteration needs, of all ranks; a collective."""
        critic, gather = dict(self.critic.state_dict()), self.own.gather
        critic |= {name: gather(critic[name]) for name in HEAD}
        replicated, of_head = self.moments()
        return {
            "policy": dict(self.policies.state_dict()),
            "agents": self.agents,
            "assignment": self.members.state_dict(),
            "critic": critic,
            "optimiser": replicated | {name: gather(value) for name, value in of_head.items()},
            "welfare": self.welfare.state_dict(gather),
            "environments": self.actors.get_state(self.comm),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`, at any number of ranks."""
        self.policies.load_state_dict(state["policy"])
        critic, cut = dict(state["critic"]), self.own.cut
        self.critic.load_state_dict(critic | {name: cut(critic[name]) for name in HEAD})
        moments = {name: cut(value) if of_head(name) else value for name, value in state["optimiser"].items()}
        load_optimiser_state(self.optimiser, moments)
        self.members.load_state_dict(state["assignment"])
        self.welfare.load_state_dict(state["welfare"], cut)
        self.actors.set_state(state["environments"])

    def tensors_in_sync(self) -> dict[str, torch.Tensor]:
        """What must be the same on all ranks, to the last bit; the rows of agents are each rank's own."""
        trunk = {name: value for name, value in self.critic.state_dict().items() if name not in HEAD}
        return dict(self.policies.state_dict()) | trunk | self.moments()[0]

    def moments(self) -> tuple[dict, dict]:
        """The optimiser's state: what all ranks share, and the rows of this rank's agents."""
        state = optimiser_state(self.optimiser)
        own = {name: state.pop(name) for name in list(state) if of_head(name)}
        return state, own


def of_head(name: str) -> bool:
    """Whether a moment has a row for each agent; the optimiser's first parameter is the replicated one."""
    return not name.startswith("0.")


def of_steps(values, columns):
    """The columns of `[k, R, ...]`, or of each array of a list."""
    if isinstance(values, list):
        return [chunk.take(columns, axis=1) for chunk in values]
    return values.take(columns, axis=1)
