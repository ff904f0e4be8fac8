"""Speed of PerSim's training and planning; see benchmarks.throughput."""

import dataclasses
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete
from torch import nn
from torch.utils.data import DataLoader

from common.errors import UserError
from envs.protocols import Dynamics
from mpi_utils.comm import Comm
from persim.config import Config
from persim.data.transitions import Transitions
from persim.learner import Learner
from persim.planning.lookup_table import tabulate
from persim.planning.planner import Settings, make_planner
from persim.policy import Actor, play
from persim.problem import family_of, make_problem
from persim.simulator import Simulator, factored

WARM_UP, ITERATIONS = 40, 5  # of training; planning has the simulators that come of it
EPISODES, STEPS = 4, 10  # of each test agent, in which each step is planned
ROWS, BATCHES = 20_000, 40  # of the authors' loader: fewer rows than a run has keep it in memory
PLANS = 3  # by the authors' planner


def measure(config: Config, comm: Comm) -> dict[str, Any]:
    """Member-samples of training and planned actions per second, each beside the authors' manner.

    The authors' is rebuilt plainly here and measured in the same run, on every rank alike: a loader that
    collates single samples with one-hot agents, for one member after another; plans for one episode by one
    member after another, with dense one-hot agents. Seconds are the processor's, of the slowest rank.
    """
    with comm.agree():
        family = family_of(config)
        named = isinstance(family, Dynamics)
        if not named:
            raise UserError("throughput persim needs mountain_car, cart_pole or half_cheetah_body")
    config = dataclasses.replace(config, max_iters=WARM_UP + ITERATIONS)
    learner = Learner(config, comm, make_problem(config, comm))
    simulator = learner.simulator
    train(learner, range(WARM_UP), comm)
    ours, theirs = [], []
    for i in range(ITERATIONS):
        ours.append(train(learner, range(WARM_UP + i, WARM_UP + i + 1), comm))
        theirs.append(train_as_authors(config, learner.data, simulator, comm))
    learner.measure_noise()

    agents = np.arange(len(next(iter(family.test_agents.values()))))
    began = time.process_time()
    tables = tabulate(simulator, family, agents) if simulator.num_actions else simulator
    table_seconds = time.process_time() - began
    planned = {"looked_up": plan(family, tables, comm)} if tables is not simulator else {}
    planned["by_networks"] = plan(family, simulator, comm)
    plan_theirs = plan_as_authors(family, simulator, comm)
    best = max(planned.values())
    names = ("environment", "dataset", "recipe", "num_agents", "num_models", "num_factors", "batch_size")
    return {
        "training_samples_per_s": round(float(np.median(ours))),
        "authors_training_samples_per_s": round(float(np.median(theirs))),
        "training_times_faster": round(float(np.median(ours) / np.median(theirs)), 2),
        "planned_actions_per_s": round(best, 3),
        **{f"planned_{how}_per_s": round(rate, 3) for how, rate in planned.items()},
        "authors_planned_per_s": round(plan_theirs, 3),
        "planning_times_faster": round(best / plan_theirs, 1),
        "tables_s": round(table_seconds, 2),
        "ranks": comm.size,
        "settings": {name: getattr(config, name) for name in names},
    }


def slowest(seconds: float, comm: Comm) -> float:
    """The largest number of seconds of any rank."""
    return float(comm.allreduce_(np.array([seconds]), op="max")[0])


def train(learner: Learner, iterations: Iterable[int], comm: Comm) -> float:
    """Member-samples per second of all ranks together."""
    began = time.process_time()
    iterations = list(iterations)
    for i in iterations:
        learner.train_iteration(i)
    batches = learner.batches
    samples = len(iterations) * batches.steps * batches.size * learner.simulator.num_models
    return samples / slowest(time.process_time() - began, comm)


def plan(family: Any, model: Any, comm: Comm) -> float:
    """Planned actions per second of all ranks together, from starts on."""
    steps, episodes = (STEPS, EPISODES) if isinstance(family.action_space, Discrete) else (1, 1)
    short = type(family)(max_episode_len=steps)
    began = time.process_time()
    actor = Actor(family, model, np.arange(len(next(iter(family.test_agents.values())))), tables=False)
    returns = play(short, family.test_agents, actor, episodes, 0, comm)
    return returns.size * steps / slowest(time.process_time() - began, comm)


class Dense(nn.Module):
    """One member as the authors write it: encoders of one-hot agents, of actions (one-hot, too, if they are
    discrete), and of states.
    """

    def __init__(self, simulator: Simulator, member: int) -> None:
        super().__init__()
        sizes = simulator.sizes
        self.num_agents, self.num_actions = sizes["num_agents"], sizes["num_actions"]
        self.factors = sizes["state_size"], sizes["num_factors"]
        self.scale = simulator.target_scale
        tables = [(simulator.agent, simulator.agent_bias)]
        tables += [(simulator.action, simulator.action_bias)] if self.num_actions else []
        encoders = [encoder([(table[member].T, bias[member, 0])]) for table, bias in tables]
        nets = [simulator.state_net] if self.num_actions else [simulator.action_net, simulator.state_net]
        for net in nets:
            encoders.append(encoder([(layer[member, :, :-1], layer[member, :, -1]) for layer in net]))
        self.agent, self.action, self.state = encoders

    def forward(self, agent: torch.Tensor, action: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """Changes [B, d] of states [B, d] by one-hot agents [B, n] and actions [B, a]."""
        v = self.state(state).view(len(state), *self.factors)
        return factored(self.agent(agent), v, self.action(action))

    def step(self, agent: int, state: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """Next states [C, d] of one agent in states [C, d] under actions [C] or [C, a]."""
        agents = torch.zeros(len(state), self.num_agents)
        agents[:, agent] = 1
        return state + self(agents, as_inputs(action, self.num_actions), state) * self.scale


def encoder(layers: list[tuple[torch.Tensor, torch.Tensor]]) -> nn.Sequential:
    """Linear layers of weights [out, in] and biases [out] with ReLU between them."""
    found: list[nn.Module] = []
    for weight, bias in layers:
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
        found += [nn.ReLU(), linear] if found else [linear]
    return nn.Sequential(*found)


def as_inputs(action: torch.Tensor, num_actions: int) -> torch.Tensor:
    """Actions [B] one-hot [B, A], or as they are."""
    return nn.functional.one_hot(action, num_actions).float() if num_actions else action


def train_as_authors(config: Config, data: Transitions, simulator: Simulator, comm: Comm) -> float:
    """Member-samples per second of a rank that trains alone, once its loader's first batch is there."""
    network, rows = Dense(simulator, 0), slice(0, ROWS)
    agents = torch.eye(simulator.sizes["num_agents"])[data.agent[rows]]
    actions = as_inputs(torch.from_numpy(data.action[rows]), simulator.num_actions)
    state, target = torch.from_numpy(data.state[rows]), torch.from_numpy((data.next_state - data.state)[rows])
    samples: Any = list(zip(agents, actions, state, target, strict=True))
    shuffling = torch.Generator().manual_seed(0)
    loader: DataLoader = DataLoader(samples, config.batch_size, shuffle=True, generator=shuffling)
    optimiser, loss_of = torch.optim.Adam(network.parameters(), lr=1e-3), nn.MSELoss()
    seen, batches = 0, iter(loader)
    next(batches)
    began = time.process_time()
    for _, (agent, action, state, target) in zip(range(BATCHES), batches, strict=False):
        optimiser.zero_grad()
        loss_of(network(agent, action, state), target).backward()
        optimiser.step()
        seen += len(agent)
    return seen / slowest(time.process_time() - began, comm)


@torch.no_grad()
def plan_as_authors(family: Any, simulator: Simulator, comm: Comm) -> float:
    """Planned actions per second of a rank that plans alone."""
    members = [Dense(simulator, m) for m in range(simulator.num_models)]
    settings = make_planner(family, 1, 0).settings
    rng, seconds = np.random.default_rng(0), []
    search = shoot if simulator.num_actions else cross_entropy
    for agent in range(PLANS):
        state = torch.from_numpy(family.start(rng, 1)[0].astype(np.float32))
        began = time.process_time()
        search(family, members, agent, state, settings, rng)
        seconds.append(slowest(time.process_time() - began, comm))
    return 1 / float(np.median(seconds))


def shoot(
    family: Any, members: list[Dense], agent: int, state: torch.Tensor, settings: Settings, rng: Any
) -> torch.Tensor:
    """The number of the best of random sequences; one member after another goes on from its own states."""
    shape = (settings.horizon, settings.num_candidates)
    actions = torch.from_numpy(rng.integers(0, family.action_space.n, shape))
    total = torch.zeros(shape[1])
    for network in members:
        now, alive, highest = state.expand(shape[1], -1), True, state[0]
        for action in actions:
            before, now = now, network.step(agent, now, action)
            alive = alive & ~family.terminated(now) if settings.mask else alive
            total = total + family.reward(before, action, now) * alive
            highest = torch.maximum(highest, now[:, 0])
        total = total + settings.shaping * highest
    return (total / len(members)).argmax()


def cross_entropy(
    family: Any, members: list[Dense], agent: int, state: torch.Tensor, settings: Settings, rng: Any
) -> torch.Tensor:
    """The first action [a] of the last elites; members start every step from their mean state."""
    T, C, a = settings.horizon, settings.num_candidates, family.action_space.shape[0]
    mean, deviation = torch.zeros(T, 1, a), torch.full((T, 1, a), float(rng.uniform(*settings.deviation)))
    elites = torch.zeros(T, 1, a)
    for _ in range(settings.num_rounds):
        actions = mean + deviation * torch.randn(T, C, a)
        while (outside := actions.abs() > 1).any():
            actions = torch.where(outside, mean + deviation * torch.randn(T, C, a), actions)
        total, now = torch.zeros(C), state.expand(C, -1)
        for action in actions:
            following = torch.stack([network.step(agent, now, action) for network in members])
            total += family.reward(now, action, following).mean(0)
            now = following.mean(0)
        elites = actions[:, total.topk(settings.num_elites).indices]
        mean = 0.1 * mean + 0.9 * elites.mean(1, keepdim=True)
        deviation = 0.1 * deviation + 0.9 * elites.std(1, keepdim=True)
    return elites[0].mean(0)
