"""PPO of one policy for all agents, in short rollouts inside their simulators."""

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Discrete

from common.gae import gae
from common.optim import load_optimiser_state, make_adamw, optimiser_state
from common.ppo import ppo_loss
from common.rollout import to_space
from common.runs.seeding import stream
from mpi_utils.comm import Comm
from mpi_utils.sync import FlatGradients, broadcast_parameters
from persim.config import Config
from persim.data.transitions import Transitions
from persim.learned_policy import LearnedPolicy, num_outputs
from persim.planning.candidate_returns import disagreement
from persim.planning.planner import settings_of
from persim.simulator import Simulator

VALUE_COEF, MAX_GRADIENT = 0.5, 0.5
METRICS = ("loss/policy", "loss/value", "ppo/entropy", "ppo/kl", "ppo/clip_fraction")  # of `ppo_loss`
OWN_STARTS = 0.5  # of rollouts begin at a logged state of the agent itself, the others at anyone's


class Rollouts(NamedTuple):
    """T steps of C rollouts of each of E agents."""

    state: torch.Tensor  # [T, E, C, D]
    action: torch.Tensor  # [T, E, C] int64 or [T, E, C, a], as the policy drew it
    log_prob: torch.Tensor  # [T, E, C]
    reward: torch.Tensor  # [T, E, C], of the log's size 1 / (1 - gamma) at most
    value: torch.Tensor  # [T + 1, E, C]
    ended: torch.Tensor  # [T, E, C], 1 where the step ended an episode
    disagreement: torch.Tensor  # [T, E, C]


class PolicyLearner:
    """Trains a `LearnedPolicy` in the simulators of the agents of `data`, which stay as they are.

    A rollout lives in one member, drawn for it, from a logged state on; a step costs `pessimism` times the
    disagreement of the members (MOPO, Yu et al. 2020, arXiv 2005.13239). `family` gives rewards, ends and
    the space of actions; its states are the simulator's. Agents are shared over ranks, and so is every
    minibatch.
    """

    def __init__(
        self, config: Config, comm: Comm, simulator: Simulator, data: Transitions, family: Any
    ) -> None:
        self.config, self.comm, self.simulator, self.data, self.family = config, comm, simulator, data, family
        space = family.action_space
        sizes = simulator.state_size, simulator.num_factors, simulator.num_models, num_outputs(space)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(stream(config.seed, "weights", config.num_models).integers(2**62)))
            self.policy = LearnedPolicy(*sizes, isinstance(space, Discrete), config.policy_features)
        broadcast_parameters(comm, self.policy)
        self.gradients = FlatGradients(comm, self.policy.parameters())
        self.optimiser = make_adamw(self.policy.parameters(), config.policy_learning_rate, eps=1e-5)
        given = (torch.from_numpy(part) for part in (data.state, data.action, data.next_state))
        reward = torch.as_tensor(family.reward(*given)).double()
        self.reward_scale = (1 - config.gamma) / (float(reward.square().mean().sqrt()) or 1.0)
        low, high = data.next_state.min(0), data.next_state.max(0)
        self.bounds = torch.from_numpy(low - (high - low)), torch.from_numpy(high + (high - low))
        self.first = np.searchsorted(data.agent, np.arange(data.num_agents + 1))
        self.shaping = settings_of(family).shaping  # as a planner has it
        self.done = 0  # iterations

    def train_iteration(self, i: int) -> dict[str, float]:
        """The i-th iteration after the simulators' last; returns the metrics of all ranks together."""
        began = time.perf_counter()
        if i == 0:
            self.policy.prepare(self.simulator)
            broadcast_parameters(self.comm, self.policy)
        agents, starts, members = self.draw(i)
        latents = self.policy.latents(self.simulator.factors().cpu())[agents]  # [E, k]
        rollouts = self.collect(i, agents, latents, starts, members)
        advantage, target = self.estimate(rollouts)
        metrics = self.update(i, rollouts, latents, advantage, target)
        self.done, steps = i + 1, rollouts.reward.numel()
        return {
            "policy/reward": float(rollouts.reward.mean()) / self.reward_scale,
            "policy/disagreement": float(rollouts.disagreement.mean()),
            "policy/ended": float(rollouts.ended.mean()),
            **metrics,
            "time/policy_steps_per_second": steps / (time.perf_counter() - began),
        }

    def draw(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Agents [E], rows of the log [T + 1, E, C] and members [E, C]; the same on all ranks.

        At these rows rollouts start, or go on after an end.
        """
        config, rng, n = self.config, stream(self.config.seed, "tasks", i), self.data.num_agents
        E = min(n, config.policy_rollouts)
        C = config.policy_rollouts // E
        agents = np.sort(rng.permutation(n)[:E])
        shape = (config.rollout_len + 1, E, C)
        first, count = self.first[agents], np.diff(self.first)[agents]
        own = first[:, None] + (rng.random(shape) * count[:, None]).astype(int)
        anyone = rng.integers(len(self.data), size=shape)
        starts = np.where((rng.random(shape) < OWN_STARTS) & (count > 0)[:, None], own, anyone)
        return agents, starts, rng.integers(int(self.simulator.active_members.sum()), size=shape[1:])

    @torch.no_grad()
    def collect(
        self, i: int, agents: np.ndarray, latents: torch.Tensor, starts: np.ndarray, members: np.ndarray
    ) -> Rollouts:
        """This rank's agents act in their simulators; the rollouts of all ranks."""
        own = self.comm.share(len(agents))
        (T, E, C), space = (self.config.rollout_len, *members.shape), self.family.action_space
        e, logged, rng = len(agents[own]), self.data.state, stream(self.config.seed, "acting", i)
        models = self.simulator.at(agents[own])
        member = torch.from_numpy(members[own])[None, ..., None]
        latents = latents[own].repeat_interleave(C, 0)
        shapes = ((T, E, C, logged.shape[1]), (T, E, C, *space.shape), *[(T, E, C)] * 2, (T + 1, E, C))
        found = Rollouts(*(torch.zeros(shape) for shape in (*shapes, *[(T, E, C)] * 2)))
        state = torch.from_numpy(logged[starts[0, own]])
        highest = state[..., 0]
        for t in range(T + 1):
            distribution, value = self.policy(state.flatten(0, 1), latents)
            found.value[t, own] = value.view(e, C)
            if t == T:
                break
            noise = rng.random((E, C, self.policy.sizes["num_outputs"]), np.float32)[own]
            drawn = distribution.sample(torch.from_numpy(noise).flatten(0, 1))
            action = torch.from_numpy(to_space(drawn.numpy(), space)).view(e, C, *space.shape)
            following = models.step(state[None], action)
            apart = disagreement(models, following)
            reached = following.take_along_dim(member.expand(1, *state.shape), 0)[0]
            reached = reached.nan_to_num().clamp(*self.bounds)  # nobody knows what is as far as that
            reward = self.family.reward(state, action, reached) - self.config.pessimism * apart
            ended, higher = self.ends(reached), torch.maximum(highest, reached[..., 0])
            reward = reward + self.shaping * (higher - highest)
            found.state[t, own], found.action[t, own] = state, drawn.view(e, C, *space.shape).float()
            found.log_prob[t, own] = distribution.log_prob(drawn).view(e, C)
            found.reward[t, own], found.ended[t, own] = reward * self.reward_scale, ended.float()
            found.disagreement[t, own] = apart
            state = torch.where(ended[..., None], torch.from_numpy(logged[starts[t + 1, own]]), reached)
            highest = torch.where(ended, state[..., 0], higher)
        for part in found:
            self.comm.allreduce_(part)
        return found

    def ends(self, state: torch.Tensor) -> torch.Tensor:
        """Which states [E, C, D] end an episode; none where the family does not say."""
        if not hasattr(self.family, "terminated"):
            return torch.zeros(state.shape[:-1], dtype=torch.bool)
        return self.family.terminated(state)

    def estimate(self, rollouts: Rollouts) -> tuple[torch.Tensor, torch.Tensor]:
        """Standardised advantages and value targets [T, E, C]."""
        config, value = self.config, rollouts.value
        T = len(rollouts.reward)
        shape, flat = rollouts.reward.shape, [part.view(len(part), -1) for part in (rollouts.reward, value)]
        cut = rollouts.ended.view(T, -1)
        found = gae(flat[0], flat[1][:-1], config.gamma, config.gae_lambda, flat[1][-1], cut).view(shape)
        return (found - found.mean()) / (found.std() + 1e-8), found + value[:-1]

    def update(
        self, i: int, rollouts: Rollouts, latents: torch.Tensor, advantage: torch.Tensor, target: torch.Tensor
    ) -> dict[str, float]:
        """Epochs of PPO over minibatches of steps; the metrics of the last epoch."""
        config, (T, E, C, D) = self.config, rollouts.state.shape
        state, log_prob = rollouts.state.view(-1, D), rollouts.log_prob.view(-1)
        action = rollouts.action.flatten(0, 2)
        action = action.long() if self.policy.sizes["discrete"] else action
        agent = torch.arange(E).view(1, E, 1).expand(T, E, C).reshape(-1)
        advantage, target = advantage.reshape(-1), target.reshape(-1)
        self.optimiser.lr = config.policy_learning_rate * (1 - i / config.policy_iters)
        for epoch in range(config.num_epochs):
            order = stream(config.seed, "minibatches", i, config.num_models + epoch).permutation(len(state))
            sums = []
            for rows in np.array_split(order, config.policy_minibatches):
                own = torch.from_numpy(rows[self.comm.share(len(rows))])
                self.gradients.zero()
                extras = [0.0] * len(METRICS)
                if len(own):
                    distribution, value = self.policy(state[own], latents[agent[own]])
                    loss, metrics = ppo_loss(
                        distribution.log_prob(action[own]),
                        log_prob[own],
                        advantage[own],
                        value,
                        target[own],
                        distribution.entropy(),
                        clip_range=config.clip_range,
                        entropy_coef=config.entropy_coef,
                        value_coef=VALUE_COEF,
                    )
                    loss.backward()
                    extras = [float(metrics[name]) for name in METRICS]
                sums.append(self.gradients.average(float(len(own)), extras))
                self.gradients.clip(MAX_GRADIENT)
                self.optimiser.step()
        return dict(zip(METRICS, np.mean(sums, axis=0).tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next iteration and an actor need; it is `done` once it was trained at all."""
        return {
            "done": self.done,
            "network": dict(self.policy.state_dict()),
            "sizes": self.policy.sizes,
            "optimiser": optimiser_state(self.optimiser),
            "simulator_iterations": self.config.max_iters,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.done = int(state["done"])
        self.policy.load_state_dict(state["network"])
        load_optimiser_state(self.optimiser, state["optimiser"])

    def tensors_in_sync(self) -> dict[str, torch.Tensor]:
        """What must be the same on all ranks."""
        network = {f"policy.{name}": value for name, value in self.policy.state_dict().items()}
        moments = {f"policy.{name}": value for name, value in optimiser_state(self.optimiser).items()}
        return network | moments
