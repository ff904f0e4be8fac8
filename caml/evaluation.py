"""The protocol: unseen agents, K episodes to choose a start, then a few updates; and the clusters."""

import dataclasses
from contextlib import closing
from typing import Annotated, ClassVar, Literal

import numpy as np

from caml import figures, report
from caml.baselines import METHODS, Training, train_all
from caml.config import Config, check_config
from caml.divergence_study import divergence_study
from caml.export import export
from caml.fewshot import Adaptation, Start, adapt, adaptation_curve
from caml.learner import Learner
from caml.problem import groups_of, identities, make_problem, query_of
from caml.rollout import Rollouts
from common import evaluation as shared
from common import film
from common.config import POSITIVE
from common.errors import UserError
from common.evaluation import EvaluationSettings, Row, row
from common.progress import at
from common.runs.seeding import stream
from envs.particle import TARGET
from envs.problem import Problem
from mpi_utils.comm import Comm

CHECKPOINTS = (0, 10, 20, 40)
RANDOM = "random_actions"

plot, show = figures.plot, report.show


@dataclasses.dataclass(frozen=True)
class Settings(EvaluationSettings):
    """Evaluate a CAML run: few-shot adaptation to its query agents, beside other starts.

    The seed draws all noise of adaptation and study; baselines train with the run's seed.
    """

    ALIASES: ClassVar[dict[str, str]] = {"opponents": "baselines", "arm_selection": "medoid_selection"}

    baselines: str = "all"
    """all, none, or some of joint, same_agent, different_agent, reptile, maml, fomaml, random, with commas
    between. Each is trained first, with as many environment steps as the run (joint is one policy for all).
    all: outside of the particle also random_actions, which learns nothing."""
    medoid_selection: Literal["mean", "halving"] = "mean"
    """How K episodes choose the medoid: all take turns, or the worse half leaves after each round."""
    updates: Annotated[int, POSITIVE] = 5
    """Policy-gradient updates on each agent."""
    repeats: Annotated[int, POSITIVE] = 5
    """How often each agent is adapted to."""
    study: bool = True
    """Also train a policy from scratch on every agent and see whether divergences find the latent groups."""

    @property
    def methods(self) -> tuple[str, ...]:
        """The baselines as names; older names of two of them say type for agent."""
        if self.baselines in ("all", "none"):
            return METHODS if self.baselines == "all" else ()
        names = self.baselines.replace("_type", "_agent").split(",")
        return tuple(dict.fromkeys(filter(None, names)))


def parse_settings(flags: list[str], show: bool) -> Settings:
    """Settings from `evaluate`'s flags, checked."""
    settings = shared.parse_settings(Settings, flags, show)
    unknown = [name for name in settings.methods if name not in METHODS]
    if unknown or not (settings.methods or settings.baselines == "none"):
        what = f"{unknown[0]!r} is unknown" if unknown else "no baseline is named"
        raise UserError(
            f"--baselines {settings.baselines}: {what}; give all, none, or some of {', '.join(METHODS)}"
        )
    return settings


def stored_config(stored: dict, environment: str) -> Config:
    """The run's configuration from its config.json; a user's factory must be named again."""
    return check_config(shared.stored_config(Config, stored, environment))


def title(name: str, settings: Settings) -> str:
    """What the figure of the run `name` shows."""
    return f"{name}: unseen agents, {settings.repeats} repeats of each"


def evaluate(stored: dict, state: dict, settings: Settings, comm: Comm) -> list[Row]:
    """Rows `method, metric, mean, se, n` and, where it applies, `update, agent`; a collective.

    `return` and `last_reward` of each query agent and of "all"; `adjusted_rand_index` of the study;
    `medoids_...` of the run's own clusters. Baselines, agents and repeats are shared over ranks; the numbers
    do not depend on how many there are.
    """
    with comm.agree():
        config = stored_config(stored, settings.environment)
    learner = Learner(config, comm, make_problem(config, comm))
    learner.load_state_dict(state)
    with comm.agree():
        if not len(learner.medoids["agent"]):
            raise UserError(f"no medoids yet: they come with --pool_size ({config.pool_size}) saved policies")
    problem, budget = learner.problem, learner.env_steps
    query, groups = query_of(problem), groups_of(problem)
    seed = int(stream(settings.seed, "evaluation").integers(2**62))
    testing = dataclasses.replace(config, seed=seed)

    agents = query.repeat(settings.repeats)
    starts = {"caml": learner.start()}
    starts |= train_all(settings.methods, lambda: Training(config, problem, budget), agents, seed, comm)
    rows = []
    for method, start in starts.items():
        at(f"adapting from {method}")
        curve, ends = adapt_shared(start, problem, testing, agents, settings, comm)
        curve = curve.reshape(*curve.shape[:2], len(query), settings.repeats)
        rows += report.adaptation(method, curve, query)
        rows.append(row(method, "env_steps", start.env_steps))
        if config.environment == "particle" and groups is not None:
            rows.append(report.end_points(method, ends, groups[agents], TARGET[config.variant]))
    if settings.baselines == "all" and config.environment != "particle":
        curve = random_curve(problem, testing, agents, settings.updates, comm)
        curve = curve.reshape(*curve.shape[:2], len(query), settings.repeats)
        rows += [*report.adaptation(RANDOM, curve, query), row(RANDOM, "env_steps", 0)]
    if groups is not None and len(set(groups.tolist())) > 1:
        rows += report.medoids(learner, groups, seed)
        if settings.study:
            snapshots = divergence_study(testing, problem, CHECKPOINTS)
            rows += report.study(snapshots, groups, identities(problem))
    with comm.agree():
        if settings.export and comm.is_root:
            export(learner, rows, settings, stored.get("iteration"))
    return rows


def scene(stored: dict, state: dict, settings: Settings) -> film.Scene:
    """An episode of each of some query agents after one update on its best medoid; for one rank."""
    config = stored_config(stored, settings.environment)
    learner = Learner(config, Comm(), make_problem(config, Comm()))
    learner.load_state_dict(state)
    if not len(learner.medoids["agent"]):
        raise UserError(f"no medoids yet: they come with --pool_size ({config.pool_size}) saved policies")
    problem, query = learner.problem, query_of(learner.problem)
    numbers = query[film.spread(len(query))]
    if settings.video_agents:
        numbers = film.chosen(settings.video_agents, problem.num_agents, "the run")
    seed = int(stream(settings.seed, "evaluation").integers(2**62))
    drawn = stream(settings.seed, "acting")  # as in the tables, actions are not the most likely ones
    actor = adapt(learner.start(), problem, dataclasses.replace(config, seed=seed), numbers, rng=drawn)
    parameters = problem.rows(numbers)
    labels = [film.label(f"agent {number}", parameters, row) for row, number in enumerate(numbers)]
    env = problem.make_vec(numbers, stream(settings.seed, "environment"))
    return film.Scene(problem.family, env, actor, labels, settings.video_steps or problem.horizon)


def random_curve(
    problem: Problem, config: Config, agents: np.ndarray, updates: int, comm: Comm
) -> np.ndarray:
    """The curve `[2, updates + 1, agents]` of uniform actions, with the starts that adapted policies have
    after as many updates; a collective.
    """
    own = comm.share(len(agents))
    curve = np.zeros((2, updates + 1, len(agents)))
    if own.stop > own.start:
        rollouts = Rollouts(problem, agents, config, 0, own)
        with closing(rollouts):
            for u in range(updates + 1):
                rollouts.plays = u + 1  # the first play chose a start
                curve[:, u, own] = rollouts.play_randomly()
    return comm.allreduce_(curve)


def adapt_shared(
    start: Start, problem: Problem, config: Config, agents: np.ndarray, settings: Settings, comm: Comm
) -> tuple[np.ndarray, np.ndarray]:
    """`adaptation_curve` with all of `agents` on every rank."""
    own = comm.share(len(agents))
    curve = np.zeros((2, settings.updates + 1, len(agents)))
    ends = np.zeros((len(agents), start.policies.tensors["first.weight"].shape[1]), np.float32)
    if own.stop > own.start:
        adaptation = Adaptation(
            start, problem, config, agents, iteration=0, own=own, selection=settings.medoid_selection
        )
        curve[..., own], ends[own] = adaptation_curve(adaptation, start, settings.updates)
    return comm.allreduce_(curve), comm.allreduce_(ends)
