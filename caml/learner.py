"""One iteration of CAML (Zhang 2019, Algorithm 2): adapt, save, and cluster when the pool is full."""

import dataclasses
import math
import time
from contextlib import closing

import numpy as np
import torch

from caml.adapt import make_optimiser, update
from caml.clustering import choose_k, k_medoids, scores, silhouette
from caml.config import Config
from caml.divergence import policy_divergences
from caml.fewshot import Start, adapt
from caml.medoid_selection import best_in_turns
from caml.policy import Actor, Policies, num_weights, sizes_of, weight_shapes
from caml.problem import groups_of, population, query_of, support_of, with_support
from caml.rollout import Rollouts
from common.runs.seeding import SharedStream, stream
from envs.problem import Problem
from mpi_utils.comm import Comm

RETURNS = ("return", "return_before", "last_reward", "last_reward_before")


class Learner:
    """Trains k medoid policies; the same numbers at any number of ranks, up to the order of summation.

    Every rank adapts to its share of an iteration's agents; then all ranks have all of what was saved,
    compute their rows of the divergences, and cluster. Until n policies are saved, fresh ones are adapted.
    Saved of a policy are its parameters, the `states [T, D]` of one episode after its updates, of which the
    first `length` count, and the `agent` it was adapted to. Medoids are copies: no adaptation changes them.
    """

    def __init__(self, config: Config, comm: Comm, problem: Problem):
        self.config, self.comm = config, comm
        with comm.agree():
            self.problem = with_support(config, problem)
        self.own = comm.share(config.tasks_per_iteration)
        self.sizes = sizes_of(problem.family, config.num_features)
        # `length` and `agent` travel and are stored as float32, which is exact for whole numbers below 2^24.
        self.shapes: dict[str, tuple[int, ...]] = {
            **weight_shapes(*self.sizes),
            "states": (problem.horizon, self.sizes[0]),
            "length": (),
            "agent": (),
        }
        self.pool = {name: torch.zeros(config.pool_size, *shape) for name, shape in self.shapes.items()}
        self.medoids = {name: value[:0] for name, value in self.pool.items()}
        self.env_steps = 0

    def train_iteration(self, i: int) -> dict[str, float]:
        """Adapt to the iteration's agents, save, cluster if the pool is full, report."""
        config, began = self.config, time.perf_counter()
        m, num_medoids = config.tasks_per_iteration, len(self.medoids["agent"])
        rng = stream(config.seed, "tasks", i, 1)
        agents = rng.choice(support_of(self.problem), m)
        starts = rng.integers(num_medoids, size=m) if num_medoids else None

        adapted = self.gather(i, agents, self.adapt(i, agents, starts))
        first = i * m % config.pool_size
        for name, saved in self.pool.items():
            saved[first : first + m] = adapted[name]
        steps = int(adapted["env_steps"].long().sum())
        self.env_steps += steps
        adapting = time.perf_counter() - began

        clusters = self.cluster(i) if first + m == config.pool_size else {}

        return {
            **{f"train/{name}": adapted[name].mean().item() for name in RETURNS},
            **clusters,
            "train/env_steps": float(self.env_steps),
            "time/adapt_s": adapting,
            "time/cluster_s": time.perf_counter() - began - adapting,
            "time/steps_per_second": steps / adapting,
        }

    def adapt(self, i: int, agents: np.ndarray, starts: np.ndarray | None) -> dict | None:
        """Adapt to this rank's share of the agents, from medoids `starts [m]`, or fresh policies if None.

        Returns what is saved of each and its returns, `[own, ...]`; None if the share is empty.
        """
        config, own = self.config, self.own
        if own.stop == own.start:
            return None
        with closing(Rollouts(self.problem, agents, config, i, own)) as rollouts:
            if starts is None:
                policies = self.fresh(i, own)
            else:
                medoids = self.policies(self.medoids)
                best = config.medoid_choice == "best"
                chosen = best_in_turns(medoids, rollouts) if best else starts[own]
                policies = medoids.take(torch.from_numpy(chosen))

            optimiser = make_optimiser(policies, config.learning_rate)
            before = played = rollouts.play(policies)
            for _ in range(config.updates_per_task):
                update(policies, optimiser, played, config)
                played = rollouts.play(policies)

        states, length = played.first_states(self.problem.horizon)
        return {
            **policies.tensors,
            "states": states,
            "length": length,
            "agent": agents[own],
            "env_steps": rollouts.num_steps,
            "return": played.returns().mean(1),
            "return_before": before.returns().mean(1),
            "last_reward": played.last_rewards().mean(1),
            "last_reward_before": before.last_rewards().mean(1),
        }

    def fresh(self, i: int, own: slice) -> Policies:
        """New policies for the share `own` of an iteration's agents."""
        total, num_own = self.config.tasks_per_iteration, own.stop - own.start
        shared = SharedStream(stream(self.config.seed, "weights", i), total, own)
        uniform = shared.random((num_own, num_weights(*self.sizes)), np.float32)
        config = self.config
        return Policies.fresh(
            uniform, *self.sizes, activation=config.activation, log_std=config.initial_log_std
        )

    def gather(self, i: int, agents: np.ndarray, rows: dict | None) -> dict[str, torch.Tensor]:
        """The rows of all agents `[m, ...]`, by one reduction; all ranks raise alike if one is not finite."""
        shapes = {**self.shapes, **dict.fromkeys((*RETURNS, "env_steps"), ())}
        widths = [math.prod(shape) for shape in shapes.values()]
        table = torch.zeros(len(agents), sum(widths))
        if rows is not None:
            own = [torch.as_tensor(rows[name]).detach() for name in shapes]
            table[self.own] = torch.cat([value.reshape(len(value), -1).float() for value in own], dim=1)
        self.comm.allreduce_(table)
        bad = (~table.isfinite().all(1)).nonzero()
        if len(bad):
            raise FloatingPointError(
                f"iteration {i}: a reward, observation or weight is not finite with agent {agents[bad[0, 0]]}"
            )
        pieces = table.split(widths, dim=1)
        columns = zip(shapes.items(), pieces, strict=True)
        return {name: piece.reshape(-1, *shape) for (name, shape), piece in columns}

    def policies(self, saved: dict[str, torch.Tensor]) -> Policies:
        """The policies of what was saved."""
        tensors = {name: saved[name] for name in weight_shapes(*self.sizes)}
        return Policies(tensors, self.config.activation)

    def cluster(self, i: int) -> dict[str, float]:
        """Make medoids of the pool and the medoids before; returns how good the clusters are."""
        config, comm = self.config, self.comm
        saved = {name: torch.cat([self.medoids[name], value]) for name, value in self.pool.items()}
        rows = comm.share(len(saved["agent"]))
        divergences = np.zeros((len(saved["agent"]), len(saved["agent"])))
        divergences[rows] = self.divergences(saved, stream(config.seed, "assignment", i), rows)
        comm.allreduce_(divergences)

        k = config.num_medoids or choose_k(divergences, range(2, config.most_medoids + 1))
        clusters = k_medoids(divergences, k)
        self.medoids = {name: value[torch.from_numpy(clusters.medoids)] for name, value in saved.items()}

        sizes = np.bincount(clusters.labels)
        report = {
            "cluster/num_medoids": float(k),
            "cluster/largest": float(sizes.max()),
            "cluster/smallest": float(sizes.min()),
            "cluster/mean_divergence": float(divergences.mean()),
            "cluster/silhouette": silhouette(divergences, clusters.labels),
        }
        groups = groups_of(self.problem)
        if groups is not None:  # the group of the agent that a policy was adapted to last
            group = groups[saved["agent"].long().numpy()]
            report |= {f"cluster/{name}": value for name, value in scores(clusters.labels, group).items()}
        return report

    def divergences(
        self, saved: dict[str, torch.Tensor], rng: np.random.Generator, rows: slice = slice(None)
    ) -> np.ndarray:
        """Divergences `[P, P]` of all that was saved, or `rows` of them."""
        trajectories = [states[: int(n)] for states, n in zip(saved["states"], saved["length"], strict=True)]
        return policy_divergences(
            trajectories,
            self.policies(saved).probabilities,
            self.config.num_states,
            rng,
            self.config.bandwidth,
            self.config.normalised_occupancy,
            rows,
        )

    def start(self) -> Start:
        """What few-shot adaptation starts from: the medoids; before there are any, a fresh policy."""
        if len(self.medoids["agent"]):
            return Start(self.policies(self.medoids), env_steps=self.env_steps)
        return Start(self.fresh(0, slice(0, 1)), np.zeros(self.problem.num_agents, np.int64))

    def actor(self, agents: np.ndarray | None = None) -> Actor:
        """Acts for `agents` of the population (None: all), for each with the policy adapted to it."""
        return adapt(self.start(), self.problem, self.config, agents)

    def state_dict(self) -> dict:
        """Everything that the next iteration needs, the same on all ranks; medoids first, k rows each."""
        return {
            "policy": self.policies(self.medoids).tensors,
            "trajectories": self.medoids["states"],
            "length": self.medoids["length"],
            "agent": self.medoids["agent"],
            "pool": dict(self.pool),
            "agents": dict(population(self.problem)),
            "support": support_of(self.problem),
            "query": query_of(self.problem),
            "env_steps": self.env_steps,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`, at any number of ranks."""
        if "types" in state:  # saved when agents were called types
            pool = {"agent" if name == "type" else name: value for name, value in state["pool"].items()}
            state = {**state, "agents": state["types"], "agent": state["type"], "pool": pool}
        medoids = {**state["policy"], "states": state["trajectories"]}
        medoids |= {name: state[name] for name in ("length", "agent")}
        self.medoids = {name: value.clone() for name, value in medoids.items()}
        self.pool = {name: value.clone() for name, value in state["pool"].items()}
        self.problem = dataclasses.replace(
            self.problem, agents=dict(state["agents"]), support=state["support"]
        )
        self.env_steps = state["env_steps"]

    def tensors_in_sync(self) -> dict[str, torch.Tensor]:
        """What must be the same on all ranks, to the last bit."""
        pool = {f"pool.{name}": value for name, value in self.pool.items()}
        return pool | {f"medoids.{name}": value for name, value in self.medoids.items()}
