"""The protocol: unseen types, K episodes to choose a start, then a few updates; and the clusters."""

import dataclasses
from typing import Annotated, Literal

import numpy as np
import torch

from caml import figures, report
from caml.baselines import METHODS, Start, Training, train_all
from caml.config import Config, check_config
from caml.divergence_study import divergence_study
from caml.fewshot import FewShot
from caml.policy import Policies
from caml.tasks import Types, identities, task_family
from common.config import AT_LEAST_ZERO, MAY_BE_EMPTY, POSITIVE, check, parse_flags
from common.errors import UserError
from common.runs.seeding import stream
from envs.particle import TARGET

CHECKPOINTS = (0, 10, 20, 40)

plot, show = figures.plot, report.show


@dataclasses.dataclass(frozen=True)
class Settings:
    """Evaluate a CAML run: few-shot adaptation to its query types, beside other starts."""

    opponents: str = "all"
    """all, none, or some of joint, same_type, different_type, reptile, maml, fomaml, random, with commas
    between. Each is trained first, with as many environment steps as the run."""
    arm_selection: Literal["mean", "halving"] = "mean"
    """How K episodes choose the medoid: all take turns, or the worse half leaves after each round."""
    updates: Annotated[int, POSITIVE] = 5
    """Policy-gradient updates on each type."""
    repeats: Annotated[int, POSITIVE] = 5
    """How often each type is adapted to."""
    study: bool = True
    """Also train a policy from scratch on every type and see whether divergences find the latent groups."""
    seed: Annotated[int, AT_LEAST_ZERO] = 0
    """Draws all noise of adaptation and study; opponents train with the run's seed."""
    environment: Annotated[str, MAY_BE_EMPTY] = ""
    """Needed only for a run on a user's own module:factory, which is never taken from a file."""
    json: Annotated[str, MAY_BE_EMPTY] = ""
    """Write the rows here as JSON (default: evaluation.json in the run folder, if it can be written)."""
    plot: Annotated[str, MAY_BE_EMPTY] = ""
    """Draw the figures here as PNG (default: evaluation.png in the run folder, likewise)."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The opponents as names."""
        if self.opponents in ("all", "none"):
            return METHODS if self.opponents == "all" else ()
        return tuple(dict.fromkeys(filter(None, self.opponents.split(","))))


def parse_settings(flags: list[str], show: bool) -> Settings:
    """Settings from `evaluate`'s flags, checked."""
    settings = parse_flags(Settings, flags, "python -m evaluate RUN", show=show)
    check(settings)
    unknown = [name for name in settings.methods if name not in METHODS]
    if unknown or not (settings.methods or settings.opponents == "none"):
        what = f"{unknown[0]!r} is unknown" if unknown else "names nobody"
        raise UserError(
            f"--opponents {settings.opponents}: {what}; give all, none, or some of {', '.join(METHODS)}"
        )
    return settings


def stored_config(stored: dict, settings: Settings) -> Config:
    """The run's configuration from its config.json; a user's factory must be named again."""
    fields = {field.name for field in dataclasses.fields(Config)}
    try:
        config = check_config(Config(**{name: value for name, value in stored.items() if name in fields}))
    except TypeError as error:
        raise UserError(f"config.json: {error}") from None
    if ":" in config.environment and settings.environment != config.environment:
        raise UserError(
            f"this run trained on {config.environment!r}; name it again: --environment {config.environment}"
        )
    return config


def title(name: str, settings: Settings) -> str:
    """What the figure of the run `name` shows."""
    return f"{name}: unseen types, {settings.repeats} repeats of each"


def evaluate(stored: dict, state: dict, settings: Settings, comm) -> list[dict]:
    """Rows `method, metric, mean, se, n` and, where it applies, `update, entity_type`; a collective.

    `return` and `last_reward` of each query type and of "all"; `adjusted_rand_index` of the study;
    `medoids_...` of the run's own clusters. Opponents, types and repeats are shared over ranks; the numbers
    do not depend on how many there are.
    """
    with comm.agree():
        config = stored_config(stored, settings)
        medoids = Policies({k: torch.as_tensor(v) for k, v in state["policy"].items()}, config.activation)
        if not len(medoids):
            raise UserError(f"no medoids yet: they come with --pool_size ({config.pool_size}) saved policies")
    family = task_family(config, comm)
    parameters = {name: np.asarray(values) for name, values in state["types"].items()}
    types = Types(
        parameters, parameters.get("group"), np.asarray(state["support"]), np.asarray(state["query"])
    )
    seed = int(stream(settings.seed, "evaluation").integers(2**62))
    testing = dataclasses.replace(config, seed=seed)

    tasks, budget = types.query.repeat(settings.repeats), int(state["env_steps"])
    starts = {"caml": Start(medoids, None, budget)}
    starts |= train_all(settings.methods, lambda: Training(config, family, types, budget), tasks, seed, comm)
    few_shot = FewShot(
        testing, family, types[tasks], comm.share(len(tasks)), settings.arm_selection, settings.updates
    )
    rows = []
    for method, start in starts.items():
        curve, ends = run_shared(few_shot, start, comm)
        shape = (len(types.query), settings.repeats)
        rows += report.adaptation(method, curve.reshape(*curve.shape[:2], *shape), types.query)
        rows.append(report.row(method, "env_steps", [start.env_steps]))
        if config.environment == "particle":
            target = TARGET[config.variant]
            rows.append(report.end_points(method, ends, types.group[tasks], target))
    if types.group is not None and len(set(types.group.tolist())) > 1:
        told_apart = identities(config, types)
        rows += report.medoids(config, state, types, testing.seed)
        if settings.study:
            snapshots = divergence_study(testing, family, parameters, types.group, CHECKPOINTS)
            rows += report.study(snapshots, types.group, told_apart)
    return rows


def run_shared(few_shot: FewShot, start: Start, comm):
    """`FewShot.run` of all tasks on every rank."""
    shape = (2, few_shot.num_updates + 1, few_shot.total)
    curve = np.zeros(shape)
    ends = np.zeros((few_shot.total, start.policies.tensors["first.weight"].shape[1]), np.float32)
    own = few_shot.own
    if own.stop > own.start:
        curve[..., own], ends[own] = few_shot.run(start)
    return comm.allreduce_(curve), comm.allreduce_(ends)
