"""How much sooner PerSim's recipe reaches the loss that the authors' schedule ends with; one JSON line:

    mpirun -np 2 python -m benchmarks.persim_time_to_loss [flags of train persim]

A tenth of the transitions is held out. The authors' schedule (`--recipe paper`) is trained to its end for the
loss that it reaches; its seconds are those of their manner of training (one member after another, single
samples collated, see benchmarks.throughput_persim) for as many samples, at a speed measured in the same run
on one core. Our seconds are of the clock on all ranks, learning rates falling within them, until the held-out
loss is as low: runs of 1, 2, 4, ... iterations are tried, up to `--max_iters`.
"""

import dataclasses
import json
import sys
import time

import torch

from benchmarks.throughput_persim import train_as_authors
from common.allocator import keep_freed_memory
from common.config import parse_flags
from common.errors import UserError
from common.runs.seeding import stream
from mpi_utils.comm import guard, set_threads
from persim.config import RECIPES, Config, check_config
from persim.data.datasets import family_of, load
from persim.learner import Learner

HELD_OUT = 10  # one transition in so many
EPOCHS = 300  # of the authors' schedule


def main(comm) -> None:
    """Train by both recipes and print."""
    with comm.agree():
        given = parse_flags(
            Config, sys.argv[1:], "python -m benchmarks.persim_time_to_loss", show=comm.is_root
        )
        config = check_config(given)
        if config.environment not in ("mountain_car", "cart_pole") or config.recipe != "fast":
            raise UserError("give --environment mountain_car or cart_pole, and no --recipe")
    set_threads(comm)
    keep_freed_memory()
    known, held_out = split(load(config, family_of(config), comm))

    paper = RECIPES["paper"][config.environment]
    paper = check_config(dataclasses.replace(given, **paper | {"max_iters": EPOCHS}))
    reference = Learner(paper, comm, known)
    for i in range(EPOCHS):
        reference.train_iteration(i)
    wanted = loss(reference.simulator, held_out)
    samples = EPOCHS * len(known) * config.num_models
    speed = train_as_authors(paper, known, reference.simulator, comm)

    curve = []
    iterations = 1
    while iterations <= config.max_iters:
        learner = Learner(dataclasses.replace(config, max_iters=iterations), comm, known)
        began = time.perf_counter()
        for i in range(iterations):
            learner.train_iteration(i)
        comm.barrier()
        curve.append([iterations, time.perf_counter() - began, loss(learner.simulator, held_out)])
        if curve[-1][2] <= wanted:
            break
        iterations *= 2
    reached = curve[-1][2] <= wanted
    if comm.is_root:
        seconds = samples / speed
        report = {
            "times_sooner": round(seconds / curve[-1][1], 3) if reached else None,
            "authors_s": round(seconds, 4),
            "ours_s": round(curve[-1][1], 4),
            "authors_loss": wanted,
            "ours_iterations_seconds_loss": [[n, round(s, 4), value] for n, s, value in curve],
            "ranks": comm.size,
            "settings": {name: getattr(config, name) for name in ("environment", "dataset", "num_agents")},
        }
        print(json.dumps(report))


def split(data):
    """Transitions to learn from, and those that are held out; the latter are drawn over all agents."""
    out = stream(0, "evaluation", 3).random(len(data)) < 1 / HELD_OUT
    names = ("agent", "time", "state", "action", "reward", "next_state")
    return [
        dataclasses.replace(data, **{name: getattr(data, name)[rows] for name in names})
        for rows in (~out, out)
    ]


@torch.no_grad()
def loss(simulator, data) -> float:
    """Mean squared error of the members' changes, each state in its own deviation."""
    rows = [torch.from_numpy(array)[None] for array in (data.agent, data.state, data.action)]
    agent, state, action = (array.expand(simulator.num_models, *array.shape[1:]) for array in rows)
    change = simulator(agent, state, action) * simulator.target_scale
    true = torch.from_numpy(data.next_state - data.state)
    return float(((change - true) / true.std(0)).square().mean())


if __name__ == "__main__":
    guard(main)
