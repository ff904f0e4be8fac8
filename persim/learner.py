"""One iteration of PerSim: gradient steps of all members on minibatches of their own; report."""

import dataclasses
import math
import time
from typing import Any

import numpy as np
import torch

from common.device import check_device, use_bfloat16
from common.errors import UserError
from common.optim import flatten, load_optimiser_state, make_adamw, optimiser_state, share_gradient
from common.rollout import stretch
from common.runs.seeding import stream
from envs.problem import Problem
from mpi_utils.comm import Comm
from mpi_utils.sync import FlatGradients
from persim.batches import Batches, Minibatch
from persim.config import Config
from persim.data.transitions import Transitions
from persim.factor_posterior import Steps, refit
from persim.gradients import WrittenGradient, can_be_written, huber
from persim.history import History, change, of_log, with_history
from persim.learned_reward import with_reward
from persim.limits import Wall, acting_of, as_stored, free, limits_of, walls_of
from persim.log_family import family_of_log
from persim.model_gradient import GradientLearner
from persim.partial import planned
from persim.policy import Actor, make_actor
from persim.policy_learner import PolicyLearner
from persim.simulator import Simulator

LAST_LEARNING_RATE = 1e-3  # of the cosine, as a part of the first
ROWS_FOR_NOISE = 4096
NORMAL = 1.4826  # a normal error's deviation, in units of its median size
# Times the median member's error. On MountainCar a member may end in a local optimum, far above that; the
# errors of CartPole's are alike.
DIVERGED = 3.0


class Learner:
    """Trains M simulators of the problem's agents; any number of ranks gives the same, up to how sums round.

    All ranks hold all transitions, `problem.log`, and all members; of every minibatch a rank takes its part
    of the rows.
    """

    def __init__(self, config: Config, comm: Comm, problem: Problem) -> None:
        self.config, self.comm, self.problem = config, comm, problem
        log = with_reward(problem.log) if config.learn_reward else problem.log
        actions = num_actions(log, problem.family)
        history = of_log(log, config.history, problem.log.state.shape[1], actions)
        self.data = data = with_history(log, history)
        self.digest = data.digest()
        with comm.agree():
            if not len(data):
                raise UserError(f"--history {config.history}: no agent has so many steps in a row; give less")
            check_device(config.device)
            walls = walls_of(log)
            self.limits = limits_of(data, walls) | acting_of(problem)
            if config.walls:  # what a wall stopped says nothing of how far it would have gone
                self.data = data = data.at(free(data, walls))
            self.simulator = make_simulator(
                config, data, problem.family, actions, history, walls if config.walls else []
            )
        self.simulator.to(config.device)
        self.batches = Batches(config, comm, data, self.simulator)

        parameters = list(self.simulator.parameters())
        flat = flatten(parameters)
        comm.bcast_(message := flat.detach().cpu())
        flat.data.copy_(message)
        self.gradients = FlatGradients(comm, [flat])
        share_gradient(flat, parameters)
        self.optimiser = make_adamw([flat], config.learning_rate, eps=1e-8)
        self.family = problem.family
        with comm.agree():
            if self.family is None and (config.learn_reward or config.policy_iters):
                told = {"limits": self.limits, "state_names": data.state_names}
                self.family = family_of_log(config, told, actions)
            if config.policy_iters and config.policy_gradient == "model" and data.discrete:
                raise UserError(f"--policy_gradient model: actions of {config.dataset} are choices; give ppo")
        self.policy: GradientLearner | PolicyLearner | None = None
        if config.policy_iters:
            family = planned(config, self.family, history)
            learner = GradientLearner if config.policy_gradient == "model" else PolicyLearner
            self.policy = learner(config, comm, self.simulator, data, family)
        self.huber_delta = huber_delta(config, self.simulator, data)
        self.autocast = use_bfloat16(config.precision, config.device)
        self.written = None
        if config.gradient == "written" and can_be_written(self.simulator):
            self.written = WrittenGradient(self.simulator, self.huber_delta)

    def train_iteration(self, i: int) -> dict[str, float]:
        """The iteration's gradient steps, of simulators or then of the policy; the metrics of all ranks."""
        if self.policy and i >= self.config.max_iters:
            return self.policy.train_iteration(i - self.config.max_iters)
        began, batches = time.perf_counter(), self.batches
        squares = np.zeros((self.simulator.num_models, self.simulator.target_size))
        for step, rows in enumerate(batches(i)):  # collect: a minibatch of the log for each member
            transitions = batches.take(rows)  # estimate: states and differences in the simulator's units
            squares += self.update(transitions, self.learning_rate(i + step / batches.steps))
        if self.config.refit and i + 1 == self.config.max_iters:
            self.prune()
            self.refit()
        return self.report(i, squares, time.perf_counter() - began)

    def update(self, transitions: Minibatch, learning_rate: float) -> np.ndarray | float:
        """One gradient step of all members; the squared errors [M, d] of this rank's rows, summed."""
        squares: np.ndarray | float = 0.0
        self.optimiser.lr = learning_rate
        self.gradients.zero()
        if transitions[0].shape[1]:
            squares = self.gradient(transitions, 1 / (self.batches.size * self.simulator.target_size))
        self.gradients.sum()
        self.optimiser.step()
        self.decay()
        return squares

    def gradient(self, transitions: Minibatch, scale: float) -> np.ndarray:
        """Write the gradient of the loss on a minibatch; the squared errors [M, d] of its rows, summed."""
        if self.written:
            return self.written(*transitions, scale)
        simulator, (state, target, agent, action) = self.simulator, transitions
        raw = state * simulator.state_scale + simulator.state_mean
        with torch.autocast(state.device.type, torch.bfloat16, enabled=self.autocast):
            change = simulator(agent, raw, action)
        error = change.float() - target
        loss = scale * huber(error, self.huber_delta).sum()
        loss.backward()
        return error.detach().square().sum(1).cpu().numpy()

    def report(self, i: int, squares: np.ndarray, seconds: float) -> dict[str, float]:
        """The metrics of iteration i, whose squared errors on this rank are `squares` [M, d]."""
        batches, simulator = self.batches, self.simulator
        squares = self.comm.allreduce_(squares).mean(0) / (batches.steps * batches.size)
        error = np.sqrt(squares) * simulator.target_scale.cpu().numpy()
        samples = batches.steps * batches.size * simulator.num_models
        return {
            "train/loss": float(squares.mean()),
            **{f"train/rmse_{s}": float(e) for s, e in zip(self.data.state_names, error, strict=False)},
            "train/members": int(simulator.active_members.sum()),
            "train/learning_rate": self.optimiser.lr,
            "train/epochs": (i + 1) * batches.steps * batches.size / len(self.data),
            "time/samples_per_second": samples / seconds,
        }

    def actor(self, agents: Any = None, **options: Any) -> Actor:
        """Acts for the agents with the numbers `agents` [n] (default: all); see `make_actor`.

        By planning, or with `policy="learned"` by the policy that was learnt for all.
        """
        self.measure_noise()
        learned = self.policy.policy if self.policy else None
        return make_actor(self.config, self.family, self.simulator, agents, learned=learned, **options)

    @torch.no_grad()
    def decay(self) -> None:
        """Draw the weights of states, but not the biases, towards zero, decoupled from their gradients."""
        if rate := self.config.input_weight_decay * self.optimiser.lr:
            self.simulator.state_net[0][:, :, :-1] *= 1 - rate

    def learning_rate(self, now: float) -> float:
        """The learning rate after `now` iterations."""
        config, done = self.config, min(1.0, now / self.config.max_iters)
        if config.schedule == "steps":
            return config.learning_rate * 0.5 ** (int(done >= 0.5) + int(done >= 1))
        falling = 0.5 * (1 + math.cos(math.pi * done))
        return config.learning_rate * (LAST_LEARNING_RATE + (1 - LAST_LEARNING_RATE) * falling)

    def prune(self) -> None:
        """Leave diverged members out: predictions are means, which one that is far off would spoil."""
        if self.simulator.num_models > 2:  # of two nobody can tell which is wrong
            error = self.comm.bcast_(self.errors().flatten(1).median(1).values.cpu())
            self.simulator.active_members.copy_(error <= DIVERGED * error.median())

    @torch.no_grad()
    def refit(self) -> None:
        """Fit the factors of all agents anew; rank 0 does it for all."""
        self.measure_noise()
        table = self.simulator.agent
        if self.comm.is_root:
            data, agent = self.data, self.batches.agent
            steps = Steps(agent, table.shape[1], data.state, data.action, data.next_state)
            table.copy_(torch.from_numpy(refit(self.simulator, steps)) - self.simulator.agent_bias.cpu())
        message = self.comm.bcast_(table.detach().cpu().contiguous())
        table.copy_(message)

    def measure_noise(self) -> None:
        """Set the simulator's `noise`: a median, since impacts and ends make a few errors far larger."""
        error = self.errors()[self.simulator.active_members].flatten(0, 1)
        noise = NORMAL * error.median(0).values.clamp_min(1e-7)
        self.simulator.noise.copy_(self.comm.bcast_(noise.cpu()))

    @torch.no_grad()
    def errors(self) -> torch.Tensor:
        """How far each member is off [M, N, d] at N of the transitions, in units of `target_scale`."""
        rows = np.linspace(0, len(self.data) - 1, min(len(self.data), ROWS_FOR_NOISE)).astype(int)
        state, target, agent, action = self.batches.take(np.tile(rows, (self.simulator.num_models, 1)))
        state = state * self.simulator.state_scale + self.simulator.state_mean
        return (self.simulator(agent, state, action) - target).abs()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next iteration and the evaluation need, the same on all ranks."""
        if not self.comm.in_pieces:  # no iteration needs it
            self.measure_noise()
        data = self.data
        return {
            "simulator": dict(self.simulator.state_dict()),
            "sizes": self.simulator.sizes,
            "optimiser": optimiser_state(self.optimiser),
            "data": {
                "digest": self.digest,
                "names": data.names,
                "covariates": data.covariates or {},
                "state_names": data.state_names,
                "action_names": data.action_names,
                "action_labels": data.action_labels,
                "step": list(data.step),
                "limits": self.limits,
            },
            **({"policy": self.policy.state_dict()} if self.policy else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`, at any number of ranks; refuses to go on with other data."""
        if state["data"]["digest"] != self.digest:
            raise UserError(
                f"--dataset {self.config.dataset}: its transitions are not those that the run began with; "
                "give the same data or another --model_name"
            )
        before = state.get("policy", {}).get("simulator_iterations", self.config.max_iters)
        if self.policy and before != self.config.max_iters:
            raise UserError(
                f"--max_iters {self.config.max_iters}: the run's policy was learnt in simulators of {before} "
                "iterations; give these, or another --model_name"
            )
        self.simulator.load_state_dict(state["simulator"])
        load_optimiser_state(self.optimiser, state["optimiser"])
        if self.policy and "policy" in state:
            self.policy.load_state_dict(state["policy"])

    def tensors_in_sync(self) -> dict[str, torch.Tensor]:
        """What must be the same on all ranks, to the last bit."""
        digest = torch.tensor(list(bytes.fromhex(self.digest)))
        simulators = {**self.simulator.state_dict(), **optimiser_state(self.optimiser), "data": digest}
        return simulators | (self.policy.tensors_in_sync() if self.policy else {})


def num_actions(data: Transitions, family: Any) -> int:
    """How many discrete actions there are; 0 where they are vectors."""
    taken = len(data.action_labels) if data.action_labels else data.action.max() + 1
    return 0 if not data.discrete else int(family.action_space.n if family else taken)


def make_simulator(
    config: Config,
    data: Transitions,
    family: Any,
    num_actions: int,
    history: History | None,
    walls: list[Wall],
) -> Simulator:
    """The simulator that suits the data, with drawn weights; `family` may be None, where it is not known."""
    num_agents = 1 if config.pooled else data.num_agents
    if config.num_factors > num_agents and not config.pooled:
        raise UserError(
            f"--num_factors {config.num_factors}: more factors than the {num_agents} agents of "
            f"{config.dataset}; choose fewer"
        )
    simulator = Simulator(
        config.num_models,
        num_agents,
        config.num_factors,
        data.state.shape[1],
        num_actions,
        0 if data.discrete else data.action.shape[1],
        (config.state_features,) * config.state_layers,
        () if data.discrete else (config.action_features,) * config.action_layers,
        dataclasses.asdict(history) if history else None,
        as_stored(walls),
    )
    simulator.draw([stream(config.seed, "weights", member) for member in range(config.num_models)])
    if not data.discrete and family is not None:  # the units in which actions are told make no difference
        centre, half = stretch(family.action_space)
        simulator.action_mean.copy_(torch.from_numpy(centre))
        simulator.action_scale.copy_(torch.from_numpy(half))
    if config.learn_reward:  # the last number that is seen is the reward, which acts on nothing
        simulator.state_net[0].data[:, :, simulator.target_size - 1] = 0
    if config.normalise:
        spread = change(history, data.state, data.next_state.astype(np.float64)).std(0)
        simulator.state_mean.copy_(torch.from_numpy(data.state.mean(0, np.float64)))
        simulator.state_scale.copy_(torch.from_numpy(positive(data.state.std(0, np.float64))))
        simulator.target_scale.copy_(torch.from_numpy(positive(spread)))
    return simulator


def huber_delta(config: Config, simulator: Simulator, data: Transitions) -> torch.Tensor | None:
    """From where on errors [d] count linearly, in the simulator's units; None for never."""
    if not config.huber_delta:
        return None
    spread = positive(change(simulator.history, data.state, data.next_state.astype(np.float64)).std(0))
    return torch.from_numpy(config.huber_delta * spread).float().to(config.device) / simulator.target_scale


def positive(spread: np.ndarray) -> np.ndarray:
    """Deviations, with 1 for what never changes."""
    return np.where(spread > 0, spread, 1.0)
