"""A population that shares its dynamics: every step of every policy has a reward for every agent."""

from typing import Any

import numpy as np
import torch

from common.runs.seeding import SharedStream, stream
from envs.problem import Problem
from rmdp.advantages import Batch, StepFeatures, make_batch
from rmdp.agent_shard import CHUNK, AgentShard
from rmdp.assignment import Assignment, by_parameter, contiguous, even_random, weighted_sum
from rmdp.config import Config
from rmdp.policy import Critic, Normaliser, Policies
from rmdp.rollout import Environments, Steps, environment_numbers
from rmdp.utility import Utilities
from rmdp.welfare import make_weights

SCALE = {"resource_gathering": 100.0}  # returns are reported as percent there, as in the paper
FEATURES = 10_000  # steps by which K-means tells agents apart (section 2)
WHOLE_CRITIC = 256  # agents up to which sending their values is cheaper than a trunk on all steps


class SharedDynamics:
    """Steps, advantages and assignment of agents who differ in their rewards only.

    A rank owns a slice of the agents, with its part of rewards, utilities and assignment. The critic has a
    row for each agent. Of many agents a rank has its own agents' rows; of few, every rank has the
    `whole_critic`, which then learns as the policies do, each rank from its part of a minibatch's steps.

    EM's warm start is soft, as end-to-end is throughout. (The paper's code binds agent i to policy i mod k
    for the warm start. But a policy that has had no reason to go where an agent prefers cannot win that agent
    later: what is bound too early stays.) Until half of the training of `cluster` no agent has a policy.
    """

    def __init__(
        self,
        config: Config,
        comm: Any,
        problem: Problem,
        *,
        whole_critic: bool | None = None,
        chunk: int = CHUNK,
    ):
        self.config, self.comm = config, comm
        self.family, self.agents = problem.family, problem.rows(slice(None))
        self.k, self.n, self.m = config.num_policies, config.num_agents, config.envs_per_policy
        self.shard = AgentShard(comm, self.n, self.agents, chunk)
        self.assignment = self.first_assignment()
        self.weights = make_weights(config.welfare, self.shard)
        self.utilities = Utilities(config, comm, self.shard.num, SCALE.get(config.environment, 1.0))
        self.own_envs = comm.share(self.m)
        self.environments = self.make_environments()
        self.whole_critic = self.n <= WHOLE_CRITIC if whole_critic is None else whole_critic
        self.num_values, self.own_values = self.n, self.n if self.whole_critic else self.shard.num

    def first_assignment(self) -> Assignment:
        """The assignment that training starts from, by the algorithm."""
        config, policy_of, logits = self.config, None, None
        rng = stream(config.seed, "assignment")
        if config.algorithm == "oracle":
            policy_of = contiguous(self.family.order(self.agents), self.k)
        elif config.algorithm == "given":
            policy_of = by_parameter(self.agents[config.assign_by])
        elif config.algorithm != "cluster":
            policy_of = even_random(self.n, self.k, rng)
        if config.algorithm == "end_to_end" or (config.algorithm == "em" and config.warm_start_iters):
            logits = rng.standard_normal((self.k, self.n), np.float32)
        return Assignment(self.comm, self.shard, self.k, policy_of, logits, config.assignment_lr)

    def begin(self, policies: Policies, critic: Critic) -> None:
        """Networks begin as they were drawn."""

    def make_environments(self) -> Environments:
        """This rank's environments, whose episodes go on from one iteration to the next."""
        index, family = environment_numbers(self.k, self.own_envs), self.family
        seed = int(stream(self.config.seed, "environment").integers(2**62))
        env = family.make_shared(index.size, seed=seed, index=index, stagger=True) if index.size else None
        spaces = (family.observation_space, family.action_space)
        return Environments(env, self.k, self.m, self.own_envs, spaces, family.outcome_size)

    def collect(self, i: int, policies: Policies) -> Steps:
        """An iteration's steps of all policies; a collective."""
        acting = SharedStream(stream(self.config.seed, "acting", i), self.m, self.own_envs)
        return self.environments.play(policies, self.config.steps_per_policy // self.m, acting, self.comm)

    @torch.no_grad()
    def estimate(self, steps: Steps, normaliser: Normaliser, critic: Critic) -> Batch:
        """Value targets of each own agent and advantages of each policy.

        A policy's advantages are the sum over its agents, divided by n (section 2); by the derivative of the
        welfare, if that is not the mean.
        Agents go through in chunks, so that what is worked on fits into a core's cache at any n.
        """
        done, weights = steps.done, self.assignment.weights().detach()
        features = StepFeatures(steps, normaliser, critic)
        self.utilities.begin(done)
        reward_sum, advantage_sum = torch.zeros(done.shape), torch.zeros(self.k, done[0].numel())
        targets, advantages = [], []
        for agents in self.shard.chunks:
            reward = self.shard.rewards(self.family, steps.outcome, agents)  # [k, T, m, chunk]
            self.utilities.add(agents, reward)
            reward_sum += weighted_sum(reward.flatten(1, 2), weights[:, agents]).view_as(done)
            advantage, target = features.estimate(reward, self.critic_rows(agents), self.config)
            targets.append(target)
            if self.assignment.soft:
                # The choice of a policy is an agent's first action: its return over the present mean counts
                # too. The critic knows the policy, so its advantages alone cannot tell policies apart.
                utility = self.utilities.per_step(agents)
                advantage += (utility - (weights[:, agents] * utility).sum(0))[:, None]
            if self.weights:
                advantage *= self.weights.weight[agents]
            if self.assignment.soft:
                advantages.append(advantage.numpy())
            advantage_sum += weighted_sum(advantage, weights[:, agents])
        self.utilities.finish(reward_sum, done)
        advantage_sum = self.comm.allreduce_(advantage_sum.numpy()) / self.n
        targets = self.everyone(targets) if self.whole_critic else targets
        return make_batch(steps, features.observation, advantage_sum, targets, advantages)

    def critic_rows(self, agents: slice) -> slice:
        """Which rows of the critic's last layer are those of some of the own agents."""
        first = self.shard.slice.start if self.whole_critic else 0
        return slice(first + agents.start, first + agents.stop)

    def everyone(self, own: list[np.ndarray]) -> list[np.ndarray]:
        """All agents' `[k, R, n]`, in a list, from chunks `[k, R, chunk]` of the own agents; a collective."""
        whole = np.zeros((self.k, self.config.steps_per_policy, self.n), np.float32)
        for agents, values in zip(self.shard.chunks, own, strict=True):
            whole[..., self.critic_rows(agents)] = values
        return [self.comm.allreduce_(whole)]

    def value_chunks(self) -> list[slice]:
        """Which of the critic's rows each of a batch's value targets belongs to."""
        return [slice(None)] if self.whole_critic else self.shard.chunks

    def reassign(self, i: int, policies: Policies, steps: Steps) -> dict[str, float]:
        """The E-step of EM, or the clustering halfway; how many agents changed policy. A collective."""
        config, flips = self.config, 0
        if config.algorithm == "em" and i + 1 >= config.warm_start_iters:
            last = i + 1 == config.max_iters  # an empty policy cannot learn, but that is over now
            flips = self.assignment.expectation_step(self.utilities.by_policy(), may_empty=last)
        if config.algorithm == "cluster" and i + 1 == config.max_iters // 2:
            features = self.reward_features(steps.outcome.flatten(0, 2))
            self.assignment.cluster(features, config.seed % 2**32)
        if self.weights and self.utilities.ends.all():
            self.weights.update(
                (self.assignment.weights().detach().numpy() * self.utilities.by_policy()).sum(0)
            )
        return {"train/flips": float(flips)}

    def reward_features(self, outcome: torch.Tensor) -> np.ndarray:
        """All agents' rewards `[n, F]` on the same F of the steps with `outcome [S, O]`; a collective."""
        num_features = min(len(outcome), FEATURES, max(1, 10**9 // self.n))
        features = np.zeros((self.n, num_features), np.float32)
        rows = np.linspace(0, len(outcome) - 1, num_features).astype(np.int64)
        features[self.shard.slice] = self.shard.rewards(self.family, outcome[rows]).numpy().T
        return self.comm.allreduce_(features)

    def report(self, i: int) -> dict[str, float]:
        """Welfare, group sizes and steps after iteration `i`; a collective."""
        return {
            **self.utilities.report(self.assignment.weights()),
            **(self.weights.report() if self.weights else {}),
            "train/env_steps": float((i + 1) * self.k * self.config.steps_per_policy),
        }

    def state_dict(self) -> dict:
        """What carries over to the next iteration, of all ranks; a collective."""
        return {
            "agents": self.agents,
            "assignment": self.assignment.state_dict(),
            "welfare": self.utilities.state_dict(self.shard.gather),
            "environments": self.environments.get_state(self.comm),
            **({"weights": self.weights.state_dict()} if self.weights else {}),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`, at any number of ranks."""
        self.assignment.load_state_dict(state["assignment"])
        self.utilities.load_state_dict(state["welfare"], self.shard.cut)
        self.environments.set_state(state["environments"])
        if self.weights:
            self.weights.load_state_dict(state["weights"])
