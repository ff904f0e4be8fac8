"""Gradients of returns through the simulators: one policy for all agents, where actions are vectors."""

import copy
import math
import time
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from common.device import use_bfloat16
from common.optim import AdamW, load_optimiser_state, make_adamw, optimiser_state
from common.rollout import stretch
from common.runs.seeding import stream
from mpi_utils.comm import Comm
from mpi_utils.sync import FlatGradients, broadcast_parameters
from persim.config import Config
from persim.data.transitions import Transitions
from persim.learned_policy import LearnedPolicy, num_outputs
from persim.limits import stop
from persim.simulator import Simulator

CLONE_ROWS, CLONE_RATE = 1024, 1e-3
OWN_START = 0.4  # of trajectories begin where the log of their agent does, the others at any logged state
LIFE = 240  # steps, after which another trajectory begins
BEYOND = 0.1  # of the span of the log's states: what is farther out ends a trajectory, and earns nothing more
DEVIATION = (0.5, 0.2)  # of actions, at the first and the last iteration
CRITIC_STEPS = 2  # for each gradient of the returns
BLEND = 0.02  # of new weights in the moving means, at each of them
MAX_GRADIENT = 1.0
METRICS = ("return", "reward", "disagreement", "from_clone", "ended")


class GradientLearner:
    """Trains a smooth `LearnedPolicy` by the gradient of what it earns in the simulators of `data`'s agents.

    Simulators are differentiable: the gradient goes back through `rollout_len` predicted steps, behind which
    a critic stands for what follows (SVG, Heess et al. 2015, arXiv 1510.09142; SHAC, Xu et al. 2022, arXiv
    2204.07137). A step is that of a member drawn for it, and costs `pessimism` times the members'
    disagreement (MOPO, Yu et al. 2020, arXiv 2005.13239). What acts in the end are moving means of weights.

    The policy begins as a clone of what was done in the log, and keeps near it: the squared distance of
    their actions costs `clone_weight`, times the share of the log's actions that the clone explains. Where
    those were drawn at random, that is nothing; a behaviour that follows from the state is left only for what
    is clearly better (TD3+BC, Fujimoto & Gu 2021, arXiv 2106.06860).

    Trajectories are shared over ranks; all is drawn for all of them, so that any number of ranks does the
    same, up to how sums round.
    """

    def __init__(
        self, config: Config, comm: Comm, simulator: Simulator, data: Transitions, family: Any
    ) -> None:
        self.config, self.comm, self.simulator, self.data, self.family = config, comm, simulator, data, family
        self.centre, self.half = (torch.from_numpy(part).float() for part in stretch(family.action_space))
        outputs = num_outputs(family.action_space)
        sizes = simulator.state_size, simulator.num_factors, simulator.num_models, outputs, False
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(stream(config.seed, "weights", config.num_models).integers(2**62)))
            self.trained = LearnedPolicy(*sizes, config.policy_features, smooth=True)
        broadcast_parameters(comm, self.trained)
        self.policy = copy.deepcopy(self.trained)  # what acts
        self.clone = copy.deepcopy(self.trained.actor)
        self.explained = 0.0  # share of the log's actions that the clone explains
        parts = [list(network.parameters()) for network in (self.trained.actor, self.trained.critic)]
        self.gradients = [FlatGradients(comm, part) for part in parts]
        self.optimisers = [make_adamw(part, config.policy_learning_rate, eps=1e-8) for part in parts]

        self.autocast = use_bfloat16(config.precision, "cpu")
        log = (torch.from_numpy(part) for part in (data.state, data.action, data.next_state))
        self.state, self.action, reached = log
        self.agent = torch.from_numpy(data.agent) * (not config.pooled)
        reward = torch.as_tensor(family.reward(self.state, self.action, reached)).double()
        self.unit = float(reward.square().mean().sqrt()) or 1.0  # of rewards
        low, high = data.next_state.min(0), data.next_state.max(0)
        margin = BEYOND * (high - low)
        self.low, self.high = torch.from_numpy(low - margin), torch.from_numpy(high + margin)
        self.first = np.searchsorted(data.agent, np.arange(data.num_agents))
        self.world: Simulator | None = None
        self.done = 0  # iterations

    def train_iteration(self, i: int) -> dict[str, float]:
        """The i-th iteration after the simulators' last; returns the metrics of all ranks together."""
        began, config = time.perf_counter(), self.config
        if self.world is None:  # the simulators as they are in the end
            self.world = copy.deepcopy(self.simulator).cpu().requires_grad_(False)
        if i == 0:
            self.imitate()
        self.decay(i)
        self.latents = self.trained.latents(self.world.factors())
        own = self.comm.share(config.policy_rollouts)
        state, agent, age = (part[own] for part in self.starts(i, 0))
        sums = np.zeros(len(METRICS))
        for k in range(config.policy_minibatches):
            state, alive, metrics = self.ascend(state, agent, *self.chances(i, k))
            sums += metrics
            age = age + config.rollout_len
            again = (age >= LIFE) | ~alive
            fresh_state, fresh_agent, _ = (part[own] for part in self.starts(i, k + 1))
            state = torch.where(again[:, None], fresh_state, state)
            agent, age = torch.where(again, fresh_agent, agent), torch.where(again, 0, age)
        self.done = i + 1
        steps = config.policy_minibatches * config.policy_rollouts * config.rollout_len
        means = (sums / config.policy_minibatches).tolist()
        return {
            "policy/explained": self.explained,
            **{f"policy/{name}": mean for name, mean in zip(METRICS, means, strict=True)},
            "time/policy_steps_per_second": steps / (time.perf_counter() - began),
        }

    def imitate(self) -> None:
        """Clone what was done in the log: so the policy begins."""
        assert self.world is not None
        policy, N = self.trained, len(self.state)
        policy.prepare(self.world)
        broadcast_parameters(self.comm, policy)
        latents, wanted = policy.latents(self.world.factors()), (self.action - self.centre) / self.half
        optimiser = make_adamw(policy.actor.parameters(), CLONE_RATE, eps=1e-8)
        for step in range(self.config.clone_steps):
            optimiser.lr = CLONE_RATE / 2 * (1 + math.cos(math.pi * step / self.config.clone_steps))
            drawn = stream(self.config.seed, "minibatches", 0, step).integers(N, size=CLONE_ROWS)
            rows = torch.from_numpy(drawn[self.comm.share(CLONE_ROWS)])
            self.gradients[0].zero()
            if len(rows):
                found = policy.likeliest(self.state[rows], latents[self.agent[rows]])
                (found - wanted[rows]).square().mean().backward()
            self.climb(0, float(len(rows)), optimiser)
        self.clone.load_state_dict(policy.actor.state_dict())
        self.policy.load_state_dict(policy.state_dict())
        rows = torch.linspace(0, N - 1, min(N, 20_000)).long()
        with torch.no_grad():
            found = policy.likeliest(self.state[rows], latents[self.agent[rows]])
        error, spread = (found - wanted[rows]).square().mean(), wanted[rows].var(0).mean().clamp_min(1e-12)
        self.explained = max(0.0, 1 - float(error / spread))

    def decay(self, i: int) -> None:
        """Learning rates fall linearly, and so does the deviation of actions.

        What is known already is left in small steps: the rate is a tenth where the clone explains all.
        """
        past = i / self.config.policy_iters
        rate = self.config.policy_learning_rate * (1 - 0.95 * past)
        self.optimisers[0].lr, self.optimisers[1].lr = rate * (1 - 0.9 * self.explained), rate
        self.deviation = DEVIATION[0] + (DEVIATION[1] - DEVIATION[0]) * past

    def starts(self, i: int, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """States [B, D] of the log where all ranks' trajectories may begin, their agents and ages [B]."""
        rng, num = stream(self.config.seed, "tasks", i, k), self.config.policy_rollouts
        anyone = rng.integers(len(self.data), size=num)
        own = self.first[self.data.agent[anyone]]
        rows = torch.from_numpy(np.where(rng.random(num) < OWN_START, own, anyone))
        return self.state[rows], self.agent[rows], torch.from_numpy(rng.integers(LIFE, size=num))

    def chances(self, i: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Normal noise of actions [T, B, a] and members [T, B] of this rank's trajectories' steps."""
        rng, num = stream(self.config.seed, "acting", i, k), self.config.policy_rollouts
        noise = rng.standard_normal((self.config.rollout_len, num, len(self.half)), np.float32)
        member = rng.integers(int(self.simulator.active_members.sum()), size=noise.shape[:2])
        own = self.comm.share(num)
        return torch.from_numpy(noise[:, own]), torch.from_numpy(member[:, own])

    def ascend(
        self, state: torch.Tensor, agent: torch.Tensor, noise: torch.Tensor, member: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        """A gradient step of the policy, and some of the critic, on T steps of this rank's B trajectories.

        Returns where these are then [B, D], which of them go on [B] bool, and the metrics of all ranks.
        """
        config, policy, latents, (T, B, _) = self.config, self.trained, self.latents[agent], noise.shape
        states, rewards, lives, total, sums = [state], [], [torch.ones(B)], torch.zeros(B), torch.zeros(2)
        for t in range(T):
            mean = policy.likeliest(state, latents)
            action = self.centre + self.half * (mean + self.deviation * noise[t]).clamp(-1, 1)
            following, apart = self.step(state, agent, action, member[t])
            reward = self.family.reward(state, action, following) - config.pessimism * apart
            reward, alive = reward * lives[-1] / self.unit, lives[-1]
            total = total + config.gamma**t * reward
            clone = self.clone(policy.inputs(state, latents)).tanh().detach()
            distance = ((mean - clone).square().mean(-1) * alive).sum()
            sums = sums + torch.stack([(apart.detach() * alive).sum(), distance])
            inside = ((following >= self.low) & (following <= self.high)).all(-1)
            lives.append(alive * inside * ~self.family.terminated(following))
            state = torch.where(lives[-1][:, None] > 0, following, state.detach())
            states.append(state.detach())
            rewards.append(reward.detach())
        behind = self.policy.critic(policy.inputs(state, latents))[:, 0]
        total = total + config.gamma**T * lives[-1] * behind
        size, reward, alive = max(1, T * B), torch.stack(rewards), torch.stack(lives)
        self.gradients[0].zero()
        weight = self.config.clone_weight * self.explained
        ((weight * sums[1] - total.sum()) / size).backward()
        told = [total.sum(), self.unit * reward.sum(), *sums, T * (B - alive[-1].sum())]
        metrics = self.climb(0, float(B), self.optimisers[0], [float(x.detach()) / size for x in told])
        inputs = policy.inputs(torch.stack(states), latents.expand(T + 1, *latents.shape))
        self.fit_critic(inputs, reward, alive)
        with torch.no_grad():
            for mean, new in zip(self.policy.parameters(), policy.parameters(), strict=True):
                mean.lerp_(new, BLEND)
        return states[-1], alive[-1] > 0, metrics

    def step(
        self, state: torch.Tensor, agent: torch.Tensor, action: torch.Tensor, member: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Next states [B, D] by each row's member, and the members' disagreement [B]; differentiable."""
        assert self.world is not None
        world, M = self.world, self.world.num_models
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            change = world(agent.expand(M, -1), state.expand(M, -1, -1), action.expand(M, -1, -1))
        change = change.float()[world.active_members] * world.target_scale
        seen = stop(world.walls, change + (world.history.foreseen(state) if world.history else state))
        apart = (seen / world.state_scale[: world.target_size]).var(0, correction=0).mean(-1)
        reached = seen[member, torch.arange(len(member))]
        reached = world.history.follow(state, reached, action) if world.history else reached
        return reached, (apart + 1e-12).sqrt()  # whose derivative is finite where members are one

    def fit_critic(self, inputs: torch.Tensor, reward: torch.Tensor, alive: torch.Tensor) -> None:
        """Steps of the critic to the lambda-returns of `reward` [T, B]; `inputs`, `alive` [T + 1, B, ...]."""
        config, (T, B) = self.config, reward.shape
        with torch.no_grad():
            value = self.policy.critic(inputs)[..., 0] * alive
            target, following = torch.empty(T, B), value[T]
            for t in reversed(range(T)):
                ahead = config.gae_lambda * following + (1 - config.gae_lambda) * value[t + 1]
                target[t] = reward[t] + config.gamma * ahead
                following = target[t] * alive[t]
        for _ in range(CRITIC_STEPS):
            self.gradients[1].zero()
            if B:
                found = self.trained.critic(inputs[:T])[..., 0]
                error = F.smooth_l1_loss(found, target, reduction="none", beta=5.0)
                (alive[:T] * error).mean().backward()
            self.climb(1, float(B), self.optimisers[1])

    def climb(
        self, which: int, weight: float, optimiser: AdamW, extras: list[float] | None = None
    ) -> np.ndarray:
        """A step by the gradients of all ranks, weighted; returns their mean `extras`."""
        found = self.gradients[which].average(weight, extras or [])
        self.gradients[which].clip(MAX_GRADIENT)
        optimiser.step()
        return found

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next iteration and an actor need; it is `done` once it was trained at all."""
        return {
            "done": self.done,
            "network": dict(self.policy.state_dict()),
            "sizes": self.policy.sizes,
            "trained": dict(self.trained.state_dict()),
            "clone": dict(self.clone.state_dict()),
            "explained": self.explained,
            "optimiser": optimiser_state(self.optimisers[0]),
            "critic_optimiser": optimiser_state(self.optimisers[1]),
            "simulator_iterations": self.config.max_iters,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.done, self.explained = int(state["done"]), float(state["explained"])
        self.policy.load_state_dict(state["network"])
        self.trained.load_state_dict(state["trained"])
        self.clone.load_state_dict(state["clone"])
        load_optimiser_state(self.optimisers[0], state["optimiser"])
        load_optimiser_state(self.optimisers[1], state["critic_optimiser"])

    def tensors_in_sync(self) -> dict[str, torch.Tensor]:
        """What must be the same on all ranks."""
        networks = {"policy": self.policy, "trained": self.trained}
        found = {
            f"{prefix}.{name}": value
            for prefix, network in networks.items()
            for name, value in network.state_dict().items()
        }
        for prefix, optimiser in zip(("actor", "critic"), self.optimisers, strict=True):
            found |= {f"{prefix}.{name}": value for name, value in optimiser_state(optimiser).items()}
        return found
