"""One iteration of CAML (Zhang 2019, Algorithm 2): adapt, save, and cluster when the pool is full."""

import math
import time

import numpy as np
import torch

from caml.adapt import make_optimiser, update
from caml.clustering import choose_k, k_medoids, scores, silhouette
from caml.divergence import policy_divergences
from caml.medoid_selection import mean_returns, take_turns
from caml.policy import Policies, num_weights, weight_shapes
from caml.rollout import Actors, num_inputs_of
from caml.tasks import Types, draw_types, task_family
from common.runs.seeding import SharedStream, stream

RETURNS = ("return", "return_before", "last_reward", "last_reward_before")


class Learner:
    """Trains k medoid policies; the same numbers at any number of ranks, up to the order of summation.

    Every rank adapts its share of an iteration's tasks; then all ranks have all of what was saved, compute
    their rows of the divergences, and cluster. Until n policies are saved, tasks start from fresh policies.
    Saved of a policy are its parameters, the `states [T, D]` of one episode after its updates, of which the
    first `length` count, and the `type` it was adapted to. Medoids are copies: no task changes them.
    """

    def __init__(self, config, comm):
        self.config, self.comm = config, comm
        self.family = task_family(config, comm)
        with comm.agree():
            self.types = draw_types(config, self.family)
        self.own = comm.share(config.tasks_per_iteration)
        num_inputs = num_inputs_of(self.family.observation_space)
        self.sizes = num_inputs, config.num_features, int(self.family.action_space.n)
        self.shapes = weight_shapes(*self.sizes)
        self.shapes |= {"states": (config.max_episode_len, num_inputs), "length": (), "type": ()}
        self.pool = {name: torch.zeros(config.pool_size, *shape) for name, shape in self.shapes.items()}
        self.medoids = {name: value[:0] for name, value in self.pool.items()}
        self.env_steps = 0

    def train_iteration(self, i: int) -> dict[str, float]:
        """Adapt to the iteration's types, save, cluster if the pool is full, report."""
        config, began = self.config, time.perf_counter()
        m, num_medoids = config.tasks_per_iteration, len(self.medoids["type"])
        rng = stream(config.seed, "tasks", i, 1)
        types = rng.choice(self.types.support, m)
        starts = rng.integers(num_medoids, size=m) if num_medoids else None

        adapted = self.gather(i, types, self.adapt(i, types, starts))
        first = i * m % config.pool_size
        for name, saved in self.pool.items():
            saved[first : first + m] = adapted[name]
        steps = adapted["env_steps"].sum().item()
        self.env_steps += int(steps)
        seconds = time.perf_counter() - began

        clusters = self.cluster(i) if first + m == config.pool_size else {}

        return (
            {f"train/{name}": adapted[name].mean().item() for name in RETURNS}
            | clusters
            | {
                "train/env_steps": float(self.env_steps),
                "time/adapt_s": seconds,
                "time/cluster_s": time.perf_counter() - began - seconds,
                "time/steps_per_second": steps / seconds,
            }
        )

    def adapt(self, i: int, types, starts) -> dict | None:
        """Adapt this rank's share of the tasks, from medoids `starts [m]`, or from fresh policies if None.

        Returns what is saved of each and its returns, `[own, ...]`; None if the share is empty.
        """
        config, own, m = self.config, self.own, self.config.tasks_per_iteration
        num_own = own.stop - own.start
        if not num_own:
            return None
        actors = Actors(self.family, self.types[types[own]], config, i, m, own)

        if starts is None:
            uniform = SharedStream(stream(config.seed, "weights", i), m, own)
            uniform = uniform.random((num_own, num_weights(*self.sizes)), np.float32)
            policies = Policies.fresh(uniform, *self.sizes, config.activation)
        else:
            medoids, starts = self.policies(self.medoids), starts[own]
            if config.medoid_choice == "best":
                pulls = actors.play(take_turns(medoids, num_own, config.num_rollouts))
                starts = mean_returns(pulls, num_own, len(medoids)).argmax(1)
            policies = medoids.take(torch.from_numpy(starts))

        optimiser = make_optimiser(policies, config.learning_rate)
        before = episodes = actors.play(policies)
        for _ in range(config.updates_per_task):
            update(policies, optimiser, episodes, config)
            episodes = actors.play(policies)
        actors.close()

        states, length = episodes.trajectory(config.max_episode_len)
        return policies.tensors | {
            **{"states": states, "length": length, "type": types[own], "env_steps": actors.num_steps},
            "return": episodes.returns().mean(1),
            "return_before": before.returns().mean(1),
            "last_reward": episodes.last_rewards().mean(1),
            "last_reward_before": before.last_rewards().mean(1),
        }

    def gather(self, i: int, types, rows: dict | None) -> dict[str, torch.Tensor]:
        """The rows of all tasks `[m, ...]`, by one reduction; all ranks raise alike if one is not finite."""
        shapes = self.shapes | dict.fromkeys((*RETURNS, "env_steps"), ())
        widths = [math.prod(shape) for shape in shapes.values()]
        table = torch.zeros(len(types), sum(widths))
        if rows is not None:
            own = [torch.as_tensor(rows[name]).detach() for name in shapes]
            table[self.own] = torch.cat([value.reshape(len(value), -1).float() for value in own], dim=1)
        self.comm.allreduce_(table)
        bad = (~table.isfinite().all(1)).nonzero()
        if len(bad):
            raise FloatingPointError(
                f"iteration {i}: a reward, observation or weight is not finite on type {types[bad[0, 0]]}"
            )
        pieces = table.split(widths, dim=1)
        columns = zip(shapes.items(), pieces, strict=True)
        return {name: piece.reshape(-1, *shape) for (name, shape), piece in columns}

    def policies(self, saved) -> Policies:
        """The policies of what was saved."""
        tensors = {name: saved[name] for name in weight_shapes(*self.sizes)}
        return Policies(tensors, self.config.activation)

    def cluster(self, i: int) -> dict[str, float]:
        """Make medoids of the pool and the medoids before; returns how good the clusters are."""
        config, comm = self.config, self.comm
        saved = {name: torch.cat([self.medoids[name], value]) for name, value in self.pool.items()}
        trajectories = [states[: int(n)] for states, n in zip(saved["states"], saved["length"], strict=True)]
        rows = comm.share(len(trajectories))
        divergences = np.zeros((len(trajectories), len(trajectories)))
        divergences[rows] = policy_divergences(
            trajectories,
            self.policies(saved).probabilities,
            config.num_states,
            stream(config.seed, "assignment", i),
            config.bandwidth,
            config.normalised_occupancy,
            rows,
        )
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
        if self.types.group is not None:  # the group of the type that a policy was adapted to last
            group = self.types.group[saved["type"].long().numpy()]
            report |= {f"cluster/{name}": value for name, value in scores(clusters.labels, group).items()}
        return report

    def state_dict(self) -> dict:
        """Everything that the next iteration needs, the same on all ranks; medoids first, k rows each."""
        return {
            "policy": self.policies(self.medoids).tensors,
            "trajectories": self.medoids["states"],
            "length": self.medoids["length"],
            "type": self.medoids["type"],
            "pool": dict(self.pool),
            "types": dict(self.types.parameters),
            "support": self.types.support,
            "query": self.types.query,
            "env_steps": self.env_steps,
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state_dict`, at any number of ranks."""
        medoids = state["policy"] | {"states": state["trajectories"]}
        medoids |= {name: state[name] for name in ("length", "type")}
        self.medoids = {name: value.clone() for name, value in medoids.items()}
        self.pool = {name: value.clone() for name, value in state["pool"].items()}
        parameters = dict(state["types"])
        self.types = Types(parameters, parameters.get("group"), state["support"], state["query"])
        self.env_steps = state["env_steps"]

    def tensors_in_sync(self) -> dict[str, torch.Tensor]:
        """What must be the same on all ranks, to the last bit."""
        pool = {f"pool.{name}": value for name, value in self.pool.items()}
        return pool | {f"medoids.{name}": value for name, value in self.medoids.items()}
