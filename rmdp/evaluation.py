"""The protocol: exploration off, fresh episodes, every policy scored for every agent."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from common import evaluation, film
from common.config import (
    AT_LEAST_ZERO,
    MAY_BE_EMPTY,
    POSITIVE,
    UNIT_INTERVAL,
    Applies,
    Within,
    without_effect,
)
from common.errors import UserError
from common.evaluation import OF_BASELINES, EvaluationSettings, Row
from common.runs import checkpoint
from common.runs.seeding import stream
from envs import Problem
from mpi_utils.comm import Comm
from rmdp import baselines, certificate, figures
from rmdp.assignment import policies_of
from rmdp.cards import Served
from rmdp.config import Config, check_config, shared
from rmdp.export import check_assigned, export
from rmdp.own_dynamics import try_episodes
from rmdp.policy import Actor, Policies
from rmdp.problem import make_task_family, shares_dynamics
from rmdp.reference import random_returns
from rmdp.report import Report, own_dynamics_rows
from rmdp.scoring import play, score
from rmdp.welfare import parse_welfare

SHOWN = 25  # policies up to which the table has a line for each

plot = figures.plot


OF_CERTIFICATE = Applies("--certify", lambda s: s.certify > 0)


@dataclasses.dataclass(frozen=True)
class Settings(EvaluationSettings):
    """Evaluate an r-MDP run: the returns of its policies for the agents assigned to them."""

    episodes: Annotated[int, POSITIVE] = 20
    """Fresh episodes of each policy; all policies have the same starts."""
    welfare: tuple[str, ...] = ()
    """Also these welfares of the agents' utilities: nash, worst, p=P, cvar=A. The one that training maximised
    is always shown."""
    certify: Annotated[int, AT_LEAST_ZERO] = 0
    """Fresh agents, which training never saw, by whom the policies are certified: the share that gets
    1 - epsilon of its own best, and a lower bound of it for all agents."""
    epsilon: Annotated[float, UNIT_INTERVAL, OF_CERTIFICATE] = 0.1
    """What a fresh agent may lack of its own best: of the way there from its floor, as a share."""
    trials: Annotated[int, POSITIVE, OF_CERTIFICATE] = 1
    """Episodes in which a fresh agent tries each policy, before it gets the best."""
    reference: Annotated[str, MAY_BE_EMPTY, OF_CERTIFICATE] = ""
    """A run whose policies tell a fresh agent's own best, where the environment does not state it."""
    baselines: Literal["all", "none"] = "all"
    """Where agents have dynamics of their own, also random actions and one policy for all agents, which is
    trained first."""
    one_policy_share: Annotated[float, Within(0, 1, above=True), OF_BASELINES] = 1.0
    """Environment steps for which that policy is trained, as a share of the run's."""


def parse_settings(flags: list[str], show: bool) -> Settings:
    """Settings from `evaluate`'s flags, checked."""
    settings = evaluation.parse_settings(Settings, flags, show)
    for name in settings.welfare:
        parse_welfare(name)
    return settings


def stored_config(stored: dict, environment: str | None = None) -> Config:
    """The run's configuration from its config.json, checked."""
    return check_config(evaluation.stored_config(Config, stored, environment))


def title(name: str, settings: Settings) -> str:
    """What the figure of the run `name` shows."""
    return f"{name}: {settings.episodes} fresh episodes of each policy"


def restore(config: Config, state: dict, comm: Any) -> tuple[Problem, Policies]:
    """The agents and the policies of a save; a collective."""
    family = make_task_family(config, comm)
    with comm.agree():
        agents = family.check({name: np.asarray(values) for name, values in state["agents"].items()})
        policies = Policies(config, family.observation_space, family.action_space)
        policies.load_state_dict(state["policy"])
    return Problem(config.environment, family, agents, config.max_episode_len), policies


def load_problem(run: str | Path, environment: str = "") -> Problem:
    """The agents of a run folder, or of one save in it, and their environment; raises UserError."""
    stored, state = checkpoint.open_run(run, "rmdp")
    return restore(stored_config(stored, environment), state, Comm())[0]


def load(run: str | Path, agents: Any = None, environment: str | None = None) -> Actor:
    """What acts for the agents of a run folder, or of one save in it, each by its policy.

    Exploration is off. Row i acts for agent `agents[i % len(agents)]`, by default for all in order. A run on
    a user's own environment needs its name `module:factory` again. Raises UserError for what is no run of
    r-MDP, or one that has not assigned its agents yet.
    """
    stored, state = checkpoint.open_run(run, "rmdp")
    config = stored_config(stored, environment or "")
    problem, policies = restore(config, state, Comm())
    policy_of = policies_of(state["assignment"])
    if policy_of is None:
        raise UserError(f"{run}: no agent is assigned yet (cluster assigns halfway); use a later save")
    return Actor(policies, problem.family.action_space, policy_of if agents is None else policy_of[agents])


def evaluate(stored: dict, state: dict, settings: Settings, comm: Any) -> list[Row]:
    """Rows on welfare, on each policy and, up to 1000 of them, on each agent; a collective.

    Resource gathering is reported x100, as in the paper. Episodes and agents are shared over ranks; the
    numbers do not depend on how many there are. `stored` is config.json and may hold the `iteration`.
    """
    with comm.agree():
        config = stored_config(stored, settings.environment)
        if shared(config) and settings.one_policy_share != Settings.one_policy_share:
            raise UserError(without_effect("one_policy_share", "agents that have dynamics of their own"))
    problem, policies = restore(config, state, comm)
    fresh: list[Row] = []
    if settings.certify:
        fresh = certificate.rows(config, certificate.certify(config, problem, policies, settings, comm))
    if shares_dynamics(problem):
        iteration = stored.get("iteration")
        return evaluate_shared(config, problem, policies, state, settings, comm, iteration, fresh)
    returns = try_episodes(policies, problem, settings.episodes, settings.seed, comm)
    policy_of = np.asarray(state["assignment"]["policy_of"])
    rows = own_dynamics_rows(config, problem, policy_of, returns, state.get("weights"), settings.welfare)
    with comm.agree():
        if settings.export and comm.is_root:
            own = returns.mean(2)[policy_of, np.arange(problem.num_agents)]
            each = [r for r in rows if r["metric"] == "policy_return"]
            agents, said = problem.rows(slice(None)), certificate.in_words(fresh)
            served = Served(config, problem.family, agents, policy_of, own, each, certificate=said)
            export(policies, served, settings, stored.get("iteration"), state["env_steps"])
    return rows + fresh + baseline_rows(config, problem, state["env_steps"], settings, comm)


def scene(stored: dict, state: dict, settings: Settings) -> film.Scene:
    """An episode of each of some agents, by default of one for each policy; for one rank."""
    problem, policies = restore(stored_config(stored, settings.environment), state, Comm())
    policy_of = policies_of(state["assignment"])
    if policy_of is None:
        raise UserError("--video: no agent is assigned yet (cluster assigns halfway); use a later save")
    if settings.video_agents:
        numbers = film.chosen(settings.video_agents, problem.num_agents, "the run")
    else:
        numbers = one_for_each(problem, policy_of)[: film.MOST_AGENTS]
    parameters, rng = problem.rows(numbers), stream(settings.seed, "environment")
    sizes, own = np.bincount(policy_of), policy_of[numbers]
    names = [f"policy {j}, for {sizes[j]} agents: agent {i}" for i, j in zip(numbers, own, strict=True)]
    labels = [film.label(name, parameters, row) for row, name in enumerate(names)]
    actor = Actor(policies, problem.family.action_space, own)
    env, num_steps = problem.make_vec(numbers, rng), settings.video_steps or problem.horizon
    return film.Scene(problem.family, env, actor, labels, num_steps)


def one_for_each(problem: Problem, policy_of: np.ndarray) -> np.ndarray:
    """For each policy that is used the agent in the middle of its agents, where the family orders them."""
    order = getattr(problem.family, "order", None)
    ordered = order(problem.agents) if order else np.arange(problem.num_agents)
    middle = [own[len(own) // 2] for own in (ordered[policy_of[ordered] == j] for j in np.unique(policy_of))]
    return ordered[np.isin(ordered, middle)]


def baseline_rows(
    config: Config, problem: Problem, env_steps: int, settings: Settings, comm: Any
) -> list[Row]:
    """Rows of the baselines on the same agents and starts; a collective."""
    if settings.baselines == "none":
        return []
    returns = random_returns(problem, settings.episodes, settings.seed, comm)
    rows = baselines.rows(config, baselines.RANDOM, returns, 0, 0.0)
    if config.num_policies > 1:
        share = settings.one_policy_share
        policies, steps = baselines.one_policy(config, problem, share * env_steps, comm)
        returns = try_episodes(policies, problem, settings.episodes, settings.seed, comm)[0]
        rows += baselines.rows(config, baselines.ONE, returns, steps, share)
    return rows


def evaluate_shared(
    config: Config,
    problem: Problem,
    policies: Policies,
    state: dict,
    settings: Settings,
    comm: Any,
    iteration: int | None = None,
    fresh: Sequence[Row] = (),
) -> list[Row]:
    """Rows where agents share dynamics: all are scored on the same episodes of each policy; a collective.

    `state` holds the `assignment` of a save, and what training measured as `welfare`; `fresh` are the rows of
    a certificate.
    """
    with comm.agree():
        if settings.export:
            check_assigned(state["assignment"])
    seed = int(stream(settings.seed, "evaluation").integers(2**62))
    episodes = play(policies, problem.family, settings.episodes, seed, comm)
    scores = score(problem, state["assignment"], episodes, comm)
    report = Report(config, problem, state, episodes, scores, settings.welfare)
    with comm.agree():
        rows = report.rows()
        if settings.export and comm.is_root:
            steps = config.steps_per_policy * config.num_policies * (iteration or 0)
            served = report.served()._replace(certificate=certificate.in_words(fresh))
            export(policies, served, settings, iteration, steps)
    return [*rows, *fresh]


def show(rows: list[Row]) -> None:
    """Print one table on the population, one on the policies and one on baselines."""
    beside = [r for r in rows if r["method"] in baselines.BASELINES]
    said = certificate.in_words(rows)
    rows = [
        r for r in rows if r["method"] not in baselines.BASELINES and r["metric"] not in certificate.METRICS
    ]
    first = rows[0]
    print(
        f"{first['environment']}, {first['method']}: {first['num_policies']} policies for "
        f"{first['num_agents']} agents"
    )
    print(f"{'':22s}{'mean':>9s}{'se':>8s}")
    for r in rows:
        if not {"policy", "agent"} & r.keys():
            print(f"{r['metric']:22s}{number(r['mean'])}{number(r['se'], 8)}")
    policies = [r for r in rows if r["metric"] == "policy_return"]
    behaviour = [r for r in rows if r["metric"] in ("policy_speed", "walk")]
    names = {"policy_speed": f"{'speed':>9s}", "walk": f"{'steps':>9s}"}
    head = names[behaviour[0]["metric"]] if behaviour else ""
    print(f"{'policy':>8s}{'agents':>9s}{'return':>9s}{'se':>8s}{'worst':>9s}{head}")
    last = [number(r["mean"]) for r in behaviour] or [""] * len(policies)
    for r, shown in list(zip(policies, last, strict=True))[:SHOWN]:
        returns = f"{number(r['mean'])}{number(r['se'], 8)}{number(r['worst'])}"
        print(f"{r['policy']:8d}{r['agents']:9d}{returns}{shown}")
    if len(policies) > SHOWN:
        print(f"and {len(policies) - SHOWN} more, in the rows")
    baselines.show(beside)
    for line in said:
        print(line)


def number(value: float | None, width: int = 9) -> str:
    """Two decimals, or a dash."""
    return f"{'-':>{width}s}" if value is None else f"{value:{width}.2f}"
