"""The protocol: unseen types, K episodes to choose a start, then a few updates (Zhang 2019, section 4)."""

import dataclasses

import numpy as np
import torch

from caml.adapt import make_optimiser, update
from caml.arms import mean_returns, take_turns
from caml.config import Config, check_config
from caml.policy import Policies, num_weights
from caml.rollout import Actors, num_inputs_of
from caml.tasks import task_family
from common.config import UsageError, check, parse_flags
from mpi_utils.seeding import SharedStream, stream

METRICS = ("return", "last_reward")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Evaluate a CAML run: few-shot adaptation to its query types."""

    updates: int = 5
    """Policy-gradient updates on each type."""
    repeats: int = 5
    """How often each type is adapted to."""
    seed: int = 0
    """Everything random follows from it."""
    json: str = ""
    """Write the rows here as JSON (default: evaluation.json in the run folder, if it can be written)."""
    plot: str = ""
    """Draw the adaptation curves here as PNG (default: evaluation.png in the run folder, likewise)."""


def parse_settings(flags: list[str], show: bool) -> Settings:
    """Settings from `evaluate`'s flags, checked."""
    settings = parse_flags(Settings, flags, "python -m evaluate RUN", show=show)
    check(settings, positive=("updates", "repeats"), at_least_zero=("seed",), may_be_empty=("json", "plot"))
    return settings


def stored_config(stored: dict) -> Config:
    """The run's configuration from its config.json."""
    fields = {field.name for field in dataclasses.fields(Config)}
    try:
        return check_config(Config(**{name: value for name, value in stored.items() if name in fields}))
    except TypeError as error:
        raise UsageError(f"config.json: {error}") from None


def title(name: str, settings: Settings) -> str:
    """What the figure of the run `name` shows."""
    return f"{name}: unseen types, {settings.repeats} repeats of each"


def evaluate(stored: dict, state: dict, settings: Settings, comm) -> list[dict]:
    """Rows `method, metric, mean, se, n, update, entity_type`, of each query type and of "all"; a collective.

    Types and repeats are shared over ranks; the numbers do not depend on how many there are.
    """
    config = stored_config(stored)
    family = task_family(config, comm)
    medoids = Policies({name: torch.as_tensor(v) for name, v in state["policy"].items()}, config.activation)
    if not len(medoids):
        raise UsageError(f"no medoids yet: they come with --pool_size ({config.pool_size}) saved policies")
    seed = int(stream(settings.seed, "evaluation").integers(2**62))
    config = dataclasses.replace(config, seed=seed)
    query = np.asarray(state["query"])
    types = query.repeat(settings.repeats)
    own = comm.share(len(types))
    mine = {name: np.asarray(values)[types[own]] for name, values in state["types"].items()}
    curves = np.zeros((2, len(METRICS), settings.updates + 1, len(types)))
    for number, start in enumerate((from_medoids, from_scratch)):
        if own.stop > own.start:
            actors = Actors(family, mine, config, number, len(types), own)
            curves[number, ..., own] = adapt(start(actors, medoids), actors, settings.updates)
            actors.close()
    comm.allreduce_(curves)
    return make_rows(("caml", "random"), curves.reshape(*curves.shape[:3], len(query), -1), query)


def from_medoids(actors: Actors, medoids: Policies) -> Policies:
    """For each task a copy of the medoid with the best mean return over K episodes that all take in turn."""
    P = actors.num_tasks
    pulls = actors.play(take_turns(medoids, P, actors.config.num_rollouts))
    return medoids.take(torch.from_numpy(mean_returns(pulls, P, len(medoids)).argmax(1)))


def from_scratch(actors: Actors, medoids: Policies) -> Policies:
    """For each task a fresh policy."""
    space, config = actors.env.single_observation_space, actors.config
    sizes = num_inputs_of(space), config.num_features, int(actors.env.single_action_space.n)
    uniform = SharedStream(stream(config.seed, "weights"), actors.total, actors.own)
    uniform = uniform.random((actors.num_tasks, num_weights(*sizes)), np.float32)
    return Policies.fresh(uniform, *sizes, config.activation)


def adapt(policies: Policies, actors: Actors, num_updates: int):
    """Mean return and last reward of each task after 0, 1, ... updates, `[2, num_updates + 1, P]`."""
    optimiser, curve = make_optimiser(policies, actors.config.learning_rate), []
    for u in range(num_updates + 1):
        episodes = actors.play(policies)
        curve.append([episodes.returns().mean(1), episodes.last_rewards().mean(1)])
        if u < num_updates:
            update(policies, optimiser, episodes, actors.config)
    return np.swapaxes(curve, 0, 1)


def make_rows(methods, curves, query) -> list[dict]:
    """Rows from `curves [methods, metrics, updates + 1, types, repeats]`; `se` is over repeats, or types."""
    rows = []
    for index in np.ndindex(curves.shape[:3]):
        method, metric, u = methods[index[0]], METRICS[index[1]], index[2]
        over_types = [("all", curves[index].mean(1))]
        for entity_type, values in [*over_types, *zip(query.tolist(), curves[index], strict=True)]:
            n = len(values)
            se = float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
            row = {"method": method, "metric": metric, "mean": float(values.mean()), "se": se, "n": n}
            rows.append(row | {"update": u, "entity_type": entity_type})
    return rows


def show(rows: list[dict]) -> None:
    """Print the mean over query types after each update."""
    rows = [row for row in rows if row["entity_type"] == "all"]
    updates = sorted({row["update"] for row in rows})
    print(f"{'mean over query types':30s}" + "".join(f"{f'u{u}':>10s}" for u in updates))
    for metric in METRICS:
        for method in dict.fromkeys(row["method"] for row in rows):
            line = [r["mean"] for r in rows if (r["metric"], r["method"]) == (metric, method)]
            print(f"{metric + ', ' + method:30s}" + "".join(f"{value:10.3f}" for value in line))


def plot(rows: list[dict], path, title: str) -> None:
    """The paper's Figure 1: the last step's reward over updates."""
    from common.plots import curves_figure

    curves = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        chosen = [
            r for r in rows if (r["method"], r["metric"], r["entity_type"]) == (method, "last_reward", "all")
        ]
        curves[method] = tuple([r[name] for r in chosen] for name in ("update", "mean", "se"))
    labels = {"xlabel": "updates", "ylabel": "reward of the last step", "title": title}
    curves_figure(path, curves, highlight="caml", **labels)
