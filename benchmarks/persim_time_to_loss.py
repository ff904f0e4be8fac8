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
from mpi_utils.comm import Comm, guard, set_threads
from persim.config import Config, check_config
from persim.data.transitions import Transitions
from persim.learner import Learner
from persim.problem import make_problem
from persim.simulator import Simulator

HELD_OUT = 10  # one transition in so many
EPOCHS = 300  # of the authors' schedule


def main(comm: Comm) -> None:
    """Train by both recipes and print."""
    with comm.agree():
        prog = "python -m benchmarks.persim_time_to_loss"
        config = check_config(parse_flags(Config, sys.argv[1:], prog, show=comm.is_root))
        if config.environment not in ("mountain_car", "cart_pole") or config.recipe != "fast":
            raise UserError("give --environment mountain_car or cart_pole, and no --recipe")
    set_threads(comm)
    keep_freed_memory()
    problem = make_problem(config, comm)
    known, held_out = split(problem.log)
    problem = dataclasses.replace(problem, log=known)

    paper = Config.defaults({"environment": config.environment, "recipe": "paper"})
    same = {name: getattr(config, name) for name in ("dataset", "num_agents", "num_models", "seed")}
    paper = dataclasses.replace(paper, max_iters=EPOCHS, **same)
    reference = Learner(paper, comm, problem)
    for i in range(EPOCHS):
        reference.train_iteration(i)
    wanted = loss(reference.simulator, held_out)
    samples = EPOCHS * len(known) * config.num_models
    speed = train_as_authors(paper, known, reference.simulator, comm)

    curve = []
    iterations = 1
    while iterations <= config.max_iters:
        learner = Learner(dataclasses.replace(config, max_iters=iterations), comm, problem)
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


def split(data: Transitions) -> list[Transitions]:
    """Transitions to learn from, and those that are held out; the latter are drawn over all agents."""
    out = stream(0, "evaluation", 3).random(len(data)) < 1 / HELD_OUT
    names = ("agent", "time", "state", "action", "reward", "next_state")
    return [
        dataclasses.replace(data, **{name: getattr(data, name)[rows] for name in names})
        for rows in (~out, out)
    ]


@torch.no_grad()
def loss(simulator: Simulator, data: Transitions) -> float:
    """Mean squared error of the members' changes, each state in its own deviation."""
    rows = [torch.from_numpy(array)[None] for array in (data.agent, data.state, data.action)]
    agent, state, action = (array.expand(simulator.num_models, *array.shape[1:]) for array in rows)
    change = simulator(agent, state, action) * simulator.target_scale
    true = torch.from_numpy(data.next_state - data.state)
    return float(((change - true) / true.std(0)).square().mean())


if __name__ == "__main__":
    guard(main)
