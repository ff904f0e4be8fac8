"""Speed of an iteration of RL^2; see benchmarks.throughput."""

import time

import numpy as np
import torch

from rl2.learner import Learner
from rl2.problem import make_problem

PRESET = (
    "--transition_encoder plain --readout linear --shared_network False --precision float32 "
    "--meta_episodes_per_policy_update 2400 --meta_episodes_per_learner_batch 120 --num_epochs 8"
).split()
RATES_OF_REFERENCE = {"rollout_steps_per_s": 4200, "update_samples_per_s": 24000, "iteration_s": 136}


def measure(config, comm) -> dict:
    """One iteration to warm up, three measured; the median counts."""
    learner = Learner(config, comm, make_problem(config, comm))
    reduce_seconds = time_spent_in(learner.gradients, "average")
    env_seconds = time_of_steps(learner.problem.family)
    learner.train_iteration(0)
    measured = []
    for i in range(1, 4):
        reduce_seconds.clear()
        env_seconds.clear()
        processor, before = time.process_time(), learner.env_steps
        metrics = learner.train_iteration(i)
        processor = comm.allreduce_(np.array([time.process_time() - processor]))[0]
        spent = [metrics["time/collect_s"], metrics["time/update_s"], sum(reduce_seconds), sum(env_seconds)]
        slowest = comm.allreduce_(np.array(spent), op="max")
        measured.append([*slowest, processor, learner.env_steps - before])
    collect, update, reduce, physics, processor, steps = np.median(measured, axis=0)
    samples = steps * config.num_epochs
    flops = 6 * sum(p.numel() for p in learner.policy.parameters() if p.ndim == 2)  # forward and backward
    peak = multiply_peak(torch.bfloat16 if learner.policy.actor.autocast else torch.float32)
    peak = float(comm.allreduce_(np.array([peak]))[0])
    return {
        "steps_per_s": round(steps / (collect + update)),
        "steps_per_processor_s": round(steps / processor),
        "microseconds_a_step": {
            "environment": round(1e6 * physics / steps, 2),
            "policy": round(1e6 * (collect - physics) / steps, 2),
            "update": round(1e6 * update / steps, 2),
        },
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
            + ("meta_episodes_per_learner_batch", "num_epochs")
        },
    }


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


def time_of_steps(family) -> list[float]:
    """Seconds of each later step of the environments that a family makes."""
    make_vec, seconds = family.make_vec, []

    def timed(*arguments, **named):
        env = make_vec(*arguments, **named)
        step = env.step

        def timed_step(actions):
            began = time.perf_counter()
            outcome = step(actions)
            seconds.append(time.perf_counter() - began)
            return outcome

        env.step = timed_step
        return env

    family.make_vec = timed
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
