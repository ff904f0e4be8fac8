"""A learner of two parameters for the tests of the loop: quick, random, and sensitive to any lost state."""

import hashlib
import os
import signal

import torch

from common.runs.checkpoint import pack
from common.runs.seeding import stream
from mpi_utils.sync import FlatGradients

NUM_SAMPLES = 5  # an odd number: shares differ in size, and one is empty at more ranks


class Learner:
    """Minimises random quadratics by Adam; `at` maps an iteration to what happens on this rank in it."""

    def __init__(self, comm, seed: int = 0, at: dict | None = None):
        self.comm, self.seed, self.at = comm, seed, at or {}
        initial = stream(seed, "weights").standard_normal(2).astype("float32")
        self.parameter = torch.nn.Parameter(torch.from_numpy(initial))
        self.optimiser = torch.optim.Adam([self.parameter], lr=0.1)
        self.gradients = FlatGradients(comm, [self.parameter])
        self.best = float("inf")

    def train_iteration(self, i: int) -> dict[str, float]:
        self.at.get(i, lambda: None)()
        targets = stream(self.seed, "tasks", i).standard_normal((NUM_SAMPLES, 2), "float32")
        mine = torch.from_numpy(targets[self.comm.share(NUM_SAMPLES)])
        self.gradients.zero()
        loss = torch.zeros(())
        if len(mine):
            loss = ((self.parameter - mine) ** 2).sum(1).mean()
            loss.backward()
        (loss,) = self.gradients.average(len(mine), [loss.item()])
        norm = self.gradients.clip(1.0)
        self.optimiser.step()
        self.best = min(self.best, loss)
        return {"loss": loss, "best": self.best} | ({"norm": norm} if i >= 2 else {})  # a late column

    def state_dict(self) -> dict:
        return {"parameter": self.parameter, "optimiser": self.optimiser.state_dict(), "best": self.best}

    def load_state_dict(self, state: dict) -> None:
        with torch.no_grad():
            self.parameter.copy_(state["parameter"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best = state["best"]

    def tensors_in_sync(self) -> dict:
        moments = self.optimiser.state.get(self.parameter, {})
        return {"parameter": self.parameter} | {f"adam/{name}": value for name, value in moments.items()}


def digest(learner, run_dir) -> str:
    """Return the SHA-256 of all state and of every logged row."""
    everything = pack(0, learner.state_dict())
    rows = (run_dir / "metrics.csv").read_bytes()
    return hashlib.sha256(b"".join(everything.values()) + rows).hexdigest()


def send_myself(number: int) -> None:
    os.kill(os.getpid(), number or signal.SIGKILL)
