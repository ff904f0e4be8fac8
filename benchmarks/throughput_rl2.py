"""Speed of a training iteration, as one JSON line:  mpirun -np 2 python -m benchmarks.throughput rl2 [flags]

All flags of `python -m train rl2` are accepted. `--preset reference` first takes the sizes and architecture
of the reference re-implementation (lucaslingle/pytorch_rl2) in float32; flags given beside it still win.
"""

import dataclasses
import json
import sys
import time

import numpy as np
import torch

from common.allocator import keep_freed_memory
from common.config import UsageError, parse
from mpi_utils.comm import guard, set_threads
from rl2.config import Config, check_config
from rl2.learner import Learner

REFERENCE = (
    "--transition_encoder plain --readout linear --shared_network False --precision float32 "
    "--meta_episodes_per_policy_update 2400 --meta_episodes_per_learner_batch 120 --ppo_opt_epochs 8"
).split()
RATES_OF_REFERENCE = {"rollout_steps_per_s": 4200, "update_samples_per_s": 24000, "iteration_s": 136}


def main(comm) -> None:
    """One iteration to warm up, three measured; the median counts."""
    with comm.agree():
        config = config_from(sys.argv[1:], comm)
    set_threads(comm)
    keep_freed_memory()
    learner = Learner(config, comm)
    reduce_seconds = time_spent_in(learner.gradients, "average")
    learner.train_iteration(0)
    measured = []
    for i in range(1, 4):
        reduce_seconds.clear()
        metrics = learner.train_iteration(i)
        spent = np.array([metrics["time/collect_s"], metrics["time/update_s"], sum(reduce_seconds)])
        measured.append(comm.allreduce_(spent, op="max"))
    collect, update, reduce = np.median(measured, axis=0)
    steps = config.meta_episodes_per_policy_update * config.meta_episode_len
    samples = steps * config.ppo_opt_epochs
    flops = 6 * sum(p.numel() for p in learner.policy.parameters() if p.ndim == 2)  # forward and backward
    peak = multiply_peak(torch.bfloat16 if learner.policy.actor.autocast else torch.float32)
    peak = float(comm.allreduce_(np.array([peak]))[0])
    result = {
        "rollout_steps_per_s": round(steps / collect),
        "update_samples_per_s": round(samples / update),
        "iteration_s": round(collect + update, 2),
        "allreduce_fraction": round(reduce / (collect + update), 4),
        "ranks": comm.size,
        "multiply_peak_gflops": round(peak / 1e9),
        "update_fraction_of_peak": round(flops * samples / update / peak, 3),
        "published_reference": RATES_OF_REFERENCE,
        "settings": {
            name: getattr(config, name)
            for name in ("architecture", "num_features", "precision", "transition_encoder", "readout")
            + ("shared_network", "meta_episode_len", "meta_episodes_per_policy_update")
            + ("meta_episodes_per_learner_batch", "ppo_opt_epochs")
        },
    }
    if comm.is_root:
        print(json.dumps(result))


def config_from(arguments: list[str], comm) -> Config:
    """The configuration to measure."""
    if "--preset" in arguments:
        at = arguments.index("--preset")
        if arguments[at + 1 : at + 2] != ["reference"]:
            raise UsageError("--preset: only `reference` exists")
        arguments = [*arguments[:at], *REFERENCE, *arguments[at + 2 :]]
        if arguments[:1] != ["rl2"]:
            raise UsageError("give the system first: python -m benchmarks.throughput rl2 [flags]")
    _, config = parse(
        {"rl2": Config}, "rl2", arguments, "python -m benchmarks.throughput", __doc__, show=comm.is_root
    )
    check_config(config)
    return dataclasses.replace(config, max_pol_iters=max(4, config.max_pol_iters))


def time_spent_in(owner, name: str) -> list[float]:
    """Seconds of each later call of a method, the wait for slower ranks included."""
    inner, seconds = getattr(owner, name), []

    def timed(*arguments):
        began = time.perf_counter()
        result = inner(*arguments)
        seconds.append(time.perf_counter() - began)
        return result

    setattr(owner, name, timed)
    return seconds


def multiply_peak(dtype) -> float:
    """Flop/s of a large matrix product on this rank's threads, the best of the libraries torch carries."""
    size, best = 1024, 0.0
    a = torch.randn(size, size).to(dtype)
    products = [lambda: a @ a]
    if torch.backends.mkldnn.is_available():
        products.append(lambda: torch.ops.mkldnn._linear_pointwise(a, a, None, "none", [], ""))
    with torch.no_grad():
        for product in products:
            product()
            for _ in range(5):
                began = time.perf_counter()
                for _ in range(5):
                    product()
                best = max(best, 5 * 2 * size**3 / (time.perf_counter() - began))
    return best


if __name__ == "__main__":
    guard(main)
