"""One iteration of PerSim: gradient steps of all members on minibatches of their own; report."""

import math
import time

import numpy as np
import torch

from common.device import check_device
from common.errors import UserError
from common.optim import (
    flatten,
    load_optimiser_state,
    make_adamw,
    optimiser_state,
    share_gradient,
)
from common.runs.seeding import stream
from mpi_utils.sync import FlatGradients
from persim.batches import Batches
from persim.data.datasets import family_of, load
from persim.factor_posterior import Steps, settle
from persim.gradients import make_gradient
from persim.simulator import Simulator

LAST_LEARNING_RATE = 1e-3  # of the cosine, as a part of the first
ROWS_FOR_NOISE = 4096
# Times the median member's error. On MountainCar a member may end in a local optimum, far above that; the
# errors of CartPole's are alike.
STUCK = 3.0


class Learner:
    """Trains M simulators; the same numbers at any number of ranks up to the order of summing.

    All ranks hold all transitions and all members; of every minibatch a rank takes its part of the rows.
    The transitions are `data`, the same on all ranks, or else those of the configured dataset.
    """

    def __init__(self, config, comm, data=None):
        self.config, self.comm = config, comm
        with comm.agree():
            check_device(config.device)
            family = family_of(config)
        self.data = data = load(config, family, comm) if data is None else data
        self.digest = data.digest()
        with comm.agree():
            self.simulator = make_simulator(config, data, family)
        self.simulator.to(config.device)
        self.batches = Batches(config, comm, data, self.simulator)

        parameters = list(self.simulator.parameters())
        flat = flatten(parameters)
        comm.bcast_(message := flat.detach().cpu())
        flat.data.copy_(message)
        self.gradients = FlatGradients(comm, [flat])
        share_gradient(flat, parameters)
        self.optimiser = make_adamw([flat], config.learning_rate, eps=1e-8)
        self.gradient = make_gradient(self.simulator, error_limit(config, self.simulator, data))

    def train_iteration(self, i: int) -> dict[str, float]:
        """The iteration's gradient steps; returns the metrics of all ranks together."""
        began, batches, simulator = time.perf_counter(), self.batches, self.simulator
        squares = np.zeros((simulator.num_models, simulator.state_size))
        for step, batch in enumerate(batches(i)):
            self.optimiser.lr = self.learning_rate(i + step / batches.steps)
            self.gradients.zero()
            if batch[0].shape[1]:
                squares += self.gradient(*batch, 1 / (batches.size * simulator.state_size))
            self.gradients.sum()
            self.optimiser.step()
            self.decay()
        if self.config.settle and i + 1 == self.config.max_iters:
            self.listen()
            self.settle()
        squares = self.comm.allreduce_(squares).mean(0) / (batches.steps * batches.size)

        error = np.sqrt(squares) * simulator.target_scale.cpu().numpy()
        samples = batches.steps * batches.size * simulator.num_models
        return (
            {"train/loss": float(squares.mean())}
            | {f"train/rmse_{s}": float(e) for s, e in zip(self.data.state_names, error, strict=True)}
            | {
                "train/members": int(simulator.heard.sum()),
                "train/learning_rate": self.optimiser.lr,
                "train/epochs": (i + 1) * batches.steps * batches.size / len(self.data),
                "time/samples_per_second": samples / (time.perf_counter() - began),
            }
        )

    @torch.no_grad()
    def decay(self) -> None:
        """Draw the weights of states, but not the biases, towards zero, decoupled from their gradients."""
        if rate := self.config.input_decay * self.optimiser.lr:
            self.simulator.state_net[0][:, :, :-1] *= 1 - rate

    def learning_rate(self, now: float) -> float:
        """The learning rate after `now` iterations."""
        config, done = self.config, min(1.0, now / self.config.max_iters)
        if config.schedule == "steps":
            return config.learning_rate * 0.5 ** (int(done >= 0.5) + int(done >= 1))
        falling = 0.5 * (1 + math.cos(math.pi * done))
        return config.learning_rate * (LAST_LEARNING_RATE + (1 - LAST_LEARNING_RATE) * falling)

    def listen(self) -> None:
        """Leave out members that are stuck: predictions are means, which one that is far off would spoil."""
        if self.simulator.num_models > 2:  # of two nobody can tell which is wrong
            error = self.comm.bcast_(self.errors().flatten(1).median(1).values.cpu())
            self.simulator.heard.copy_(error <= STUCK * error.median())

    @torch.no_grad()
    def settle(self) -> None:
        """Fit the factors of all agents anew; rank 0 does it for all."""
        self.measure_noise()
        table = self.simulator.agent
        if self.comm.is_root:
            data, agent = self.data, self.batches.agent
            steps = Steps(agent, table.shape[1], data.state, data.action, data.next_state)
            table.copy_(torch.from_numpy(settle(self.simulator, steps)) - self.simulator.agent_bias.cpu())
        message = self.comm.bcast_(table.detach().cpu().contiguous())
        table.copy_(message)

    def measure_noise(self) -> None:
        """Set the simulator's `noise`: a median, since walls and ends make a few errors far larger."""
        error = self.errors()[self.simulator.heard].flatten(0, 1)
        noise = 1.4826 * error.median(0).values.clamp_min(1e-7)  # of normal errors, their deviation
        self.simulator.noise.copy_(self.comm.bcast_(noise.cpu()))

    @torch.no_grad()
    def errors(self) -> torch.Tensor:
        """How far each member is off [M, N, d] at N of the transitions, in units of `target_scale`."""
        rows = np.linspace(0, len(self.data) - 1, min(len(self.data), ROWS_FOR_NOISE)).astype(int)
        state, target, agent, action = self.batches.take(np.tile(rows, (self.simulator.num_models, 1)))
        state = state * self.simulator.state_scale + self.simulator.state_mean
        return (self.simulator(agent, state, action) - target).abs()

    def state_dict(self) -> dict:
        """Everything that the next iteration and the evaluation need, the same on all ranks."""
        self.measure_noise()
        data = self.data
        return {
            "simulator": dict(self.simulator.state_dict()),
            "sizes": self.simulator.sizes,
            "optimiser": optimiser_state(self.optimiser),
            "data": {"digest": self.digest, "names": data.names, "covariates": data.covariates or {}}
            | {"state_names": data.state_names, "action_names": data.action_names},
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`, at any number of ranks; refuses to go on with other data."""
        if state["data"]["digest"] != self.digest:
            raise UserError(
                f"--dataset {self.config.dataset}: its transitions are not those that the run began with; "
                "give the same data or another --model_name"
            )
        self.simulator.load_state_dict(state["simulator"])
        load_optimiser_state(self.optimiser, state["optimiser"])

    def tensors_in_sync(self) -> dict[str, torch.Tensor]:
        """What must be the same on all ranks, to the last bit."""
        digest = torch.tensor(list(bytes.fromhex(self.digest)))
        return dict(self.simulator.state_dict()) | optimiser_state(self.optimiser) | {"data": digest}


def make_simulator(config, data, family) -> Simulator:
    """The simulator that suits the data, with drawn weights."""
    num_agents = 1 if config.pooled else data.num_agents
    if config.num_factors > num_agents and not config.pooled:
        raise UserError(
            f"--num_factors {config.num_factors}: more factors than the {num_agents} agents of "
            f"{config.dataset}; choose fewer"
        )
    num_actions = 0 if not data.discrete else int(family.action_space.n if family else data.action.max() + 1)
    simulator = Simulator(
        config.num_models,
        num_agents,
        config.num_factors,
        data.state.shape[1],
        num_actions,
        0 if data.discrete else data.action.shape[1],
        (config.state_features,) * config.state_layers,
        () if data.discrete else (config.action_features,) * config.action_layers,
    )
    simulator.draw([stream(config.seed, "weights", member) for member in range(config.num_models)])
    if config.learn_reward:  # the last state is what was earned, which acts on nothing
        simulator.state_net[0].data[:, :, data.state.shape[1] - 1] = 0
    if config.normalise:
        spread = (data.next_state.astype(np.float64) - data.state).std(0)
        simulator.state_mean.copy_(torch.from_numpy(data.state.mean(0, np.float64)))
        simulator.state_scale.copy_(torch.from_numpy(positive(data.state.std(0, np.float64))))
        simulator.target_scale.copy_(torch.from_numpy(positive(spread)))
    return simulator


def error_limit(config, simulator, data) -> torch.Tensor | None:
    """From where on errors [d] count linearly, in the simulator's units; None for never."""
    if not config.error_clip:
        return None
    spread = positive((data.next_state.astype(np.float64) - data.state).std(0))
    return torch.from_numpy(config.error_clip * spread).float().to(config.device) / simulator.target_scale


def positive(spread: np.ndarray) -> np.ndarray:
    """Deviations, with 1 for what never changes."""
    return np.where(spread > 0, spread, 1.0)
