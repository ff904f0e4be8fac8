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
from common.runs.seeding import SharedStream, stream
from mpi_utils.sync import FlatGradients
from rmdp.agent_shard import OwnAgents
from rmdp.config import shared
from rmdp.gradients import CriticGradient, PolicyGradient
from rmdp.members import Members, summed
from rmdp.policy import Critic, Policies
from rmdp.rollout import Actors, Steps
from rmdp.tasks import SCALE, draw_agents, shared_family
from rmdp.utility import Welfare

METRICS = ("loss/policy", "loss/value", "ppo/entropy", "ppo/kl", "ppo/clip_fraction")

HEAD = ("head.weight", "head.bias")  # the critic's parameters that have a row for each agent
WHOLE_CRITIC = 256  # agents up to which sending their values is cheaper than a trunk on all steps


class Learner:
    """Trains k `Policies` for n agents; the same numbers at any number of ranks up to the order of summing.

    Two things are shared over ranks. Environments: a rank steps its part of them for all k policies, then all
    ranks have all steps. Agents: a rank owns a slice of them, with its part of rewards, utilities, assignment
    and of the critic's last layer, so that memory and work for each agent fall with the number of ranks. Of
    few agents every rank has the whole critic (`whole_critic`), which then learns as the policies do, each
    rank from its part of a minibatch's steps.

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
        self.make_networks(self.n, whole_critic=self.n <= WHOLE_CRITIC)

    def make_networks(self, num_values: int, whole_critic: bool) -> None:
        """Policies, a critic of `num_values` values on all ranks together, gradients and the optimiser."""
        config, comm = self.config, self.comm
        self.num_values, self.whole_critic = num_values, whole_critic
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(stream(config.seed, "weights").integers(2**62)))
            self.policies = Policies(config, self.family.observation_space, self.family.action_space)
            own_values = num_values if whole_critic else self.own.num
            self.critic = Critic(config, self.family.observation_space, own_values)
        head = list(self.critic.head.parameters())
        replicated = [*self.policies.parameters(), *self.critic.trunk()]
        self.flat = flatten(replicated)
        comm.bcast_(self.flat.detach())
        for p in head:
            p.grad = torch.zeros_like(p)
        self.gradients = FlatGradients(comm, [self.flat, *(head if whole_critic else ())])
        share_gradient(self.flat, replicated)
        self.optimiser = make_adamw([self.flat, *head], config.learning_rate, config.adam_eps)
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
            rows = self.head_rows(agents)
            value = critic.values(at_step, rows)
            reward[limit] += self.config.gamma * critic.values(at_limit, rows)
            advantage = gae(
                *(reward.transpose(0, 1), value.transpose(0, 1), self.config.gamma, self.config.gae_lambda),
                next_value=critic.values(at_end, rows),
                cut=done.transpose(0, 1).float()[..., None],
            ).transpose(0, 1)
            targets.append((advantage + value).flatten(1, 2).numpy())
            advantage = advantage.flatten(1, 2)
            if self.members.soft:
                # The choice of a policy is an agent's first action: what it pays over the present mean counts
                # too. The critic knows the policy, so its advantages alone cannot tell policies apart.
                pays = self.welfare.utility_per_step(agents)
                advantage += (pays - (weights[:, agents] * pays).sum(0))[:, None]
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
            "value_target": self.everyone(targets) if self.whole_critic else targets,
            "agent_advantage": advantages,
        }

    def head_rows(self, agents: slice) -> slice:
        """Which rows of the critic's last layer are those of some of the own agents."""
        first = self.own.slice.start if self.whole_critic else 0
        return slice(first + agents.start, first + agents.stop)

    def everyone(self, own: list[np.ndarray]) -> list[np.ndarray]:
        """All agents' `[k, R, n]`, in a list, from chunks `[k, R, chunk]` of the own agents; a collective."""
        whole = np.zeros((self.k, self.config.steps_per_policy, self.n), np.float32)
        for agents, values in zip(self.own.chunks, own, strict=True):
            whole[..., self.head_rows(agents)] = values
        return [self.comm.allreduce_(whole)]

    def anneal(self, i: int) -> None:
        """Learning rates and entropy bonus fall exponentially and stay at their last value (section 3)."""
        config, done = self.config, 1.1 * i / self.config.max_iters
        start, end = config.learning_rate, min(config.learning_rate, config.learning_rate_final)
        self.optimiser.lr = max(end, start * (end / start) ** done)
        start, end = config.entropy_coef, config.entropy_coef_final
        self.entropy_coef = max(end, start * (end / start) ** done) if start > end > 0 else start

    def update(self, i: int, batch: dict) -> dict[str, float]:
        """Epochs over minibatches of all policies' steps; one all-reduce for each gradient step.

        A rank takes its part of a minibatch's steps for the policies, and for the critic where it has the
        whole of it; else its own agents.
        """
        config, totals = self.config, np.zeros(len(METRICS))
        size = config.steps_per_policy // config.num_minibatches
        rows = self.comm.share(size)
        by_rows = {"action", "log_prob"} | ({"observation", "value_target"} if self.whole_critic else set())
        for epoch in range(config.num_epochs):
            order = stream(config.seed, "minibatches", i, epoch).permutation(config.steps_per_policy)
            sums = np.zeros(len(METRICS))
            for columns in order.reshape(-1, size):
                minibatch = {
                    name: of_steps(values, columns[rows] if name in by_rows else columns)
                    for name, values in batch.items()
                }
                self.gradients.zero()
                metrics = self.policy_step(minibatch, rows) | self.value_step(minibatch)
                sums += self.gradients.sum([metrics.get(name, 0.0) for name in METRICS])
                self.clip()
                self.optimiser.step()
            totals += sums / config.num_minibatches
            if sums[METRICS.index("ppo/kl")] / config.num_minibatches > config.target_kl:
                break
        return dict(zip(METRICS, totals / (epoch + 1), strict=True)) | {"ppo/epochs": epoch + 1.0}

    def clip(self) -> None:
        """Scale all gradients if those of policies and the critic's trunk are too long together."""
        norm, longest = float(torch.linalg.vector_norm(self.flat.grad)), self.config.max_grad_norm
        if norm > longest:
            for p in self.optimiser.parameters:
                p.grad *= longest / norm

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
            observation = minibatch["observation"]
            ratio, entropy, slope[:, rows] = self.policy_gradient(
                observation if self.whole_critic else observation[:, rows],
                *(minibatch["action"], minibatch["log_prob"], advantage[:, rows]),
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

    def value_step(self, minibatch: dict) -> dict:
        """Gradients of the critic's loss: for all agents on this rank's steps, or on all for its own."""
        if not minibatch["observation"].size:
            return {}
        scale = 1.0 / (minibatch["advantage"].size * self.num_values)
        agents = [slice(None)] if self.whole_critic else self.own.chunks
        targets = zip(agents, minibatch["value_target"], strict=True)
        return {"loss/value": self.critic_gradient(minibatch["observation"], targets, scale=scale)}

    def state_dict(self) -> dict:
        """Everything that the next iteration needs, of all ranks; a collective."""
        return self.networks(lambda own: own if self.whole_critic else self.own.gather(own)) | {
            "agents": self.agents,
            "assignment": self.members.state_dict(),
            "welfare": self.welfare.state_dict(self.own.gather),
            "environments": self.actors.get_state(self.comm),
        }

    def networks(self, gather) -> dict:
        """Policies, critic and optimiser, of which `gather` makes the head's rows."""
        critic, moments = dict(self.critic.state_dict()), optimiser_state(self.optimiser)
        critic |= {name: gather(critic[name]) for name in HEAD}
        moments |= {name: gather(value) for name, value in moments.items() if of_head(name)}
        return {"policy": dict(self.policies.state_dict()), "critic": critic, "optimiser": moments}

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`, at any number of ranks."""
        self.load_networks(state, torch.as_tensor if self.whole_critic else self.own.cut)
        self.members.load_state_dict(state["assignment"])
        self.welfare.load_state_dict(state["welfare"], self.own.cut)
        self.actors.set_state(state["environments"])

    def load_networks(self, state: dict, cut) -> None:
        """Continue with those of `networks`, of which `cut` makes this rank's rows of the head."""
        self.policies.load_state_dict(state["policy"])
        critic, moments = dict(state["critic"]), dict(state["optimiser"])
        self.critic.load_state_dict(critic | {name: cut(critic[name]) for name in HEAD})
        moments |= {name: cut(value) for name, value in moments.items() if of_head(name)}
        load_optimiser_state(self.optimiser, moments)

    def tensors_in_sync(self) -> dict[str, torch.Tensor]:
        """What must be the same on all ranks, to the last bit; the rows of agents are each rank's own."""
        everywhere = self.networks(lambda own: own)
        return {
            f"{part}.{name}": value
            for part, tensors in everywhere.items()
            for name, value in tensors.items()
            if self.whole_critic
            or not (part == "critic" and name in HEAD or part == "optimiser" and of_head(name))
        }


def of_head(name: str) -> bool:
    """Whether a moment has a row for each agent; the optimiser's first parameter is the replicated one."""
    return not name.startswith("0.")


def of_steps(values, columns):
    """The columns of `[k, R, ...]`, or of each array of a list."""
    if isinstance(values, list):
        return [chunk.take(columns, axis=1) for chunk in values]
    return values.take(columns, axis=1)
