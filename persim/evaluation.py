"""The protocol: predictions 50 steps ahead, planning in the true environment, factors, agents never seen."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from common import film
from common.config import AT_LEAST_ZERO, MAY_BE_EMPTY, POSITIVE, Applies
from common.errors import UserError
from common.evaluation import EvaluationSettings, Row, stored_config
from common.evaluation import parse_settings as parse
from common.progress import at
from common.runs.seeding import stream
from envs.protocols import Dynamics
from mpi_utils.comm import Comm
from persim import new_agents
from persim.config import PATIENTS, Config, check_config, check_decimal
from persim.data import behaviour
from persim.data.form import Form, keep_quiet
from persim.export import NO_PLANNER, export
from persim.learned_reward import LearnedReward
from persim.limits import walls_in
from persim.partial import planned, states_along
from persim.planning.pessimism import TRIED, choose
from persim.planning.planner import settings_of
from persim.planning.true_dynamics import TrueModel
from persim.policy import Actor, make_actor, play
from persim.problem import family_of, print_now
from persim.simulator import Simulator
from persim.testing import episode_tests, figures, held_out_log, prediction, report, trust

plot, show = figures.plot, report.show
OF_TESTS = Applies("tests in the environment, which --log replaces", lambda s: not s.log)
OF_PLANS = Applies("planning: --episodes above 0 and no --log", lambda s: s.episodes and not s.log)
OF_LOGS = Applies("--log", lambda s: s.log)
OF_STEPS = Applies("agents that are not known: --unseen or --log", lambda s: s.unseen or s.log)


@dataclasses.dataclass(frozen=True)
class Settings(EvaluationSettings):
    """Evaluate a PerSim run: how well its simulators predict agents, and what planning on them returns."""

    agents: Annotated[str, MAY_BE_EMPTY] = ""
    """Names of the agents to test, with commas between; default: the first five (our test agents; five of all
    ages for diabetes), with --log all that are there."""
    trajectories: Annotated[int, POSITIVE] = 200
    """Trajectories of each agent, under a policy not seen in training, whose next 50 states are predicted."""
    episodes: Annotated[int, AT_LEAST_ZERO, OF_TESTS] = 20
    """Episodes of each agent in which a planner acts on its simulator; 0: none."""
    upper_bound: Annotated[bool, OF_TESTS] = True
    """Also plan on the true dynamics: what a perfect simulator would return."""
    unseen: Annotated[int, AT_LEAST_ZERO, OF_TESTS] = 20
    """Agents that are in no data, predicted from their covariates and from a few observed steps; 0: none."""
    observed: Annotated[int, POSITIVE, OF_STEPS] = 20
    """Those steps."""
    horizon: Annotated[int, AT_LEAST_ZERO, OF_PLANS] = 0
    """Steps that the planner looks ahead; 0: as the authors."""
    num_candidates: Annotated[int, AT_LEAST_ZERO, OF_PLANS] = 0
    """Sequences of actions that it tries; 0: as the authors."""
    pessimism: Annotated[float, OF_PLANS] = 0.0
    """What it costs a plan, in rewards a step, that the ensemble's members are one deviation apart; below 0:
    chosen by what plans return inside members that are left out of planning."""
    log: Annotated[str, MAY_BE_EMPTY] = ""
    """Instead of all this: hold predictions against the log at this path, of agents that the run knows (the
    next 51 states from each window's first on) and of others (factors from their first steps)."""
    columns: Annotated[str, MAY_BE_EMPTY, OF_LOGS] = ""
    """Which columns of that log are what, as in training; default: as the run's own log has them."""
    decimal: Annotated[str, MAY_BE_EMPTY, OF_LOGS] = ""
    """Its decimal sign, as in training."""
    gaps: Annotated[Literal["as_trained", "refuse", "split"], OF_LOGS] = "as_trained"
    """What a missing value in it does, as in training."""

    FILMED: ClassVar[tuple[str, ...]] = (*EvaluationSettings.FILMED, "horizon", "num_candidates")
    ALIASES: ClassVar[dict[str, str]] = {"bound": "upper_bound", "candidates": "num_candidates"}


def parse_settings(flags: list[str], show: bool) -> Settings:
    """Settings from `evaluate`'s flags, checked."""
    settings = parse(Settings, flags, show)
    check_decimal(settings.decimal)
    return settings


def title(name: str, settings: Settings) -> str:
    """What the figure of the run `name` shows."""
    return f"{name}: {settings.trajectories} trajectories and {settings.episodes} episodes of each agent"


def evaluate(stored: dict[str, Any], state: dict[str, Any], settings: Settings, comm: Comm) -> list[Row]:
    """Rows `method, metric, mean, se, n, dataset` and, where they are about one, `agent`; a collective.

    `median_r2` and `rmse` of predictions, `return` of planning, `factor_correlation` of each `covariate`,
    `unseen_median_r2`. Episodes of planning are shared over ranks.
    """
    with comm.agree():
        config = check_config(stored_config(Config, stored, settings.environment), with_data=False)
        simulator = Simulator(**state["sizes"])
        simulator.load_state_dict(state["simulator"])
    rows = measure(config, simulator, state["data"], settings, comm)
    with comm.agree():
        if settings.export and comm.is_root:
            print(f"--export: {NO_PLANNER}")
            export(config, simulator, state["data"], rows, settings, stored.get("iteration"))
    return rows


def scene(stored: dict[str, Any], state: dict[str, Any], settings: Settings) -> film.Scene:
    """An episode of each of some agents, planned on its simulator; for one rank."""
    config = check_config(stored_config(Config, stored, settings.environment), with_data=False)
    data, family = state["data"], family_of(config)
    if family is None or not data["covariates"]:
        raise UserError("--video: the agents' dynamics are known by their logs alone, which are no pictures")
    simulator = Simulator(**state["sizes"])
    simulator.load_state_dict(state["simulator"])
    names = list(data["names"])
    numbers = chosen_agents(settings.video_agents, "--video_agents", names, config)
    own = {name: np.asarray(values)[numbers] for name, values in data["covariates"].items()}
    parameters = family.check(own)
    planning: dict[str, Any] = {
        name: getattr(settings, name) or None for name in ("horizon", "num_candidates")
    }
    actor = make_actor(config, family, simulator, numbers, seed=settings.seed, **planning)
    labels = [film.label(f"agent {names[i]}", parameters, row) for row, i in enumerate(numbers)]
    env = family.make_vec(parameters, stream(settings.seed, "environment"))
    return film.Scene(family, env, actor, labels, settings.video_steps or family.max_episode_len)


def measure(
    config: Config, simulator: Simulator, data: dict[str, Any], settings: Settings, comm: Comm
) -> list[Row]:
    """The rows of `evaluate`; `data` is what the save says of what the run learnt from."""
    with comm.agree():
        if settings.log:
            form = Form(
                settings.columns,
                decimal=settings.decimal,
                gaps=config.gaps if settings.gaps == "as_trained" else settings.gaps,
                tell=print_now if comm.is_root else keep_quiet,
            )
            numbers = settings.trajectories, settings.observed
            about = settings.agents, form
            return held_out_log.evaluate(settings.log, data, simulator, config, *numbers, *about)
        family = shipped = family_of(config)
        covariates = {name: np.asarray(values) for name, values in data["covariates"].items()}
        chosen = chosen_agents(settings.agents, "--agents", list(data["names"]), config)
        if family is None or not covariates:
            raise UserError(
                f"{config.dataset}: tests need an environment, and its covariates in the log: neither "
                "the predictions nor the plans of this run have anything true to be held against; give --log "
                "with steps that it was not trained on"
            )
        trained: Any = behaviour.load(family)
    if not isinstance(family, Dynamics):
        return episode_tests.evaluate(config, simulator, data, family, chosen, settings, comm)
    with comm.agree():
        test_policy: Any = trained.test
        own, seen = planned(config, family, simulator.history), simulator.target_size
        if config.learn_reward:
            family, seen = LearnedReward(family), seen - 1
            test_policy = family.blind(test_policy)
    make_rows = report.Rows(config.dataset, "pooled" if config.pooled else "persim")
    tested = {name: values[chosen] for name, values in covariates.items()}
    labels = report.labels(tested)
    seed = int(stream(settings.seed, "evaluation").integers(2**62))

    models = simulator.at(np.zeros_like(chosen) if config.pooled else chosen)
    task = prediction.draw_task(family, tested, test_policy, settings.trajectories, stream(seed, "acting"))
    task = prediction.in_states(task, own)
    predicted, variance = prediction.forecast(models, task)
    bounds = []
    if not config.hide:
        bounds = [prediction.upper_bound(family, task, predicted[..., : simulator.target_size])]
    rows = make_rows.predictions(labels, *prediction.only(seen, task, predicted, *bounds))
    if config.walls:
        judged, known = trust.judge(task, predicted, variance, data), walls_in(data)
        shown = prediction.only(seen, task, predicted, variance)
        rows += trust.rows(make_rows, labels, judged, known, *shown)

    if settings.episodes:
        planning = {"horizon": settings.horizon, "num_candidates": settings.num_candidates}
        pessimism = settings.pessimism
        if pessimism < 0:
            pessimism, tried = choose(config, shipped, simulator, chosen, seed, comm, **planning)
            rows += [
                make_rows.row("left_out_return", own, pessimism=value)
                for value, own in zip(TRIED, tried, strict=True)
            ]
            rows.append(make_rows.row("pessimism", pessimism))
        actor = make_actor(config, shipped, simulator, chosen, seed=seed, pessimism=pessimism, **planning)
        actors = {"": actor}
        if settings.upper_bound:
            true = TrueModel(family, tested)
            planner = settings_of(family, **planning)
            actors["true_model"] = Actor(family, true, np.arange(len(chosen)), seed=seed, settings=planner)
        for method, actor in actors.items():
            at(f"planning on {method.replace('_', ' ') or 'the simulators'}")
            returns = play(family, tested, actor, settings.episodes, seed, comm)
            rows += make_rows.returns(method, labels, returns)
    if not config.pooled:
        rows += make_rows.factors(simulator, covariates)
        if settings.unseen:
            at("predicting agents that are in no data")
            rows += unseen_agents(make_rows, simulator, family, own, covariates, test_policy, settings, seed)
    return rows


def chosen_agents(text: str, flag: str, names: list[str], config: Config) -> np.ndarray:
    """Numbers of the agents that a flag's text names, with commas between, or of a few."""
    if not text and config.environment in PATIENTS:  # who are ordered by age
        return np.unique(np.linspace(0, len(names) - 1, 5).astype(int))
    if not text:
        return np.arange(min(5, len(names)))
    wanted, dataset = [name.strip() for name in text.split(",")], config.dataset
    missing = [name for name in wanted if name not in names]
    if missing:
        raise UserError(f"{flag} {text}: {dataset} has no agent {missing[0]!r}; correct it")
    return np.array([names.index(name) for name in wanted])


def unseen_agents(
    make_rows: report.Rows,
    simulator: Simulator,
    family: Any,
    own: Any,
    covariates: dict[str, np.ndarray],
    test_policy: Any,
    settings: Settings,
    seed: int,
) -> list[Row]:
    """Rows on agents drawn anew, from their covariates and from random actions in their environment.

    `own` is the `family` as the simulator has it.
    """
    rng = stream(seed, "tasks")
    agents = family.sample(rng, settings.unseen)
    state, action, following, counts = new_agents.observe(family, agents, settings.observed, rng)
    states = states_along(own, np.concatenate([state, following[:, -1:]], axis=1), action)
    task = prediction.draw_task(family, agents, test_policy, settings.trajectories, stream(seed, "acting", 1))
    task = prediction.in_states(task, own)
    factors = {
        "from_covariates": new_agents.from_covariates(simulator, covariates, agents),
        "from_steps": new_agents.from_steps(simulator, states[:, :-1], action, states[:, 1:], counts),
    }
    rows = []
    for method, factor in factors.items():
        shown = task, prediction.predict(simulator.at(factor=factor), task)
        size = simulator.target_size - isinstance(family, LearnedReward)
        rows.append(make_rows.unseen(method, *prediction.only(size, *shown)))
    return rows
