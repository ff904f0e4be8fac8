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
from persim.off_policy import evaluation as off_policy
from persim.off_policy import report as off_policy_report
from persim.partial import planned, states_along
from persim.planning.pessimism import TRIED, choose
from persim.planning.planner import settings_of
from persim.planning.true_dynamics import TrueModel
from persim.policy import Actor, make_actor, play, stored_policy
from persim.problem import family_of, print_now
from persim.simulator import Simulator
from persim.testing import episode_tests, figures, held_out_log, prediction, report, trust

OF_TESTS = Applies("tests in the environment, which --log replaces", lambda s: not s.log)
OF_PLANS = Applies("planning", lambda s: s.policy != "learned" and (s.policy if s.log else s.episodes))
OF_LOGS = Applies("--log", lambda s: s.log)
OF_VALUES = Applies("--log and --policy", lambda s: s.log and s.policy)
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
    policy: Annotated[str, MAY_BE_EMPTY] = ""
    """Who acts: planned (the default) or learned, the run's own; with --log, what this policy would be worth
    to its agents, which may then also be another run's folder, or a module:factory of your own, called with
    the names of the agents, that returns what acts for them."""
    log: Annotated[str, MAY_BE_EMPTY] = ""
    """Instead of all this: hold predictions against the log at this path, of agents that the run knows (the
    next 51 states from each window's first on) and of others (factors from their first steps)."""
    columns: Annotated[str, MAY_BE_EMPTY, OF_LOGS] = ""
    """Which columns of that log are what, as in training; default: as the run's own log has them."""
    decimal: Annotated[str, MAY_BE_EMPTY, OF_LOGS] = ""
    """Its decimal sign, as in training."""
    gaps: Annotated[Literal["as_trained", "refuse", "split"], OF_LOGS] = "as_trained"
    """What a missing value in it does, as in training."""

    fitted_q: Annotated[int, AT_LEAST_ZERO, OF_VALUES] = 0
    """Gradient steps of fitted-Q evaluation beside it, by d3rlpy (extra `baselines`); 0: none."""
    importance: Annotated[bool, OF_VALUES] = False
    """Also weighted importance sampling, with the probabilities of logged actions estimated from the log."""

    FILMED: ClassVar[tuple[str, ...]] = (*EvaluationSettings.FILMED, "horizon", "num_candidates", "policy")
    ALIASES: ClassVar[dict[str, str]] = {"bound": "upper_bound", "candidates": "num_candidates"}


def parse_settings(flags: list[str], show: bool) -> Settings:
    """Settings from `evaluate`'s flags, checked."""
    settings = parse(Settings, flags, show)
    check_decimal(settings.decimal)
    if not settings.log and settings.policy not in ("", "planned", "learned"):
        raise UserError(f"--policy {settings.policy}: only with --log; without, give planned or learned")
    return settings


def show(rows: list[Row]) -> None:
    """Print the rows."""
    (off_policy_report if of_values(rows) else report).show(rows)


def plot(rows: list[Row], path: str, title: str) -> None:
    """Draw the figure of the rows."""
    (off_policy_report if of_values(rows) else figures).plot(rows, path, title)


def of_values(rows: list[Row]) -> bool:
    """Whether the rows are of an off-policy evaluation."""
    return any(r["method"] == "off_policy" for r in rows)


def title(name: str, settings: Settings) -> str:
    """What the figure of the run `name` shows."""
    if settings.log and settings.policy:
        return f"{name}: what {settings.policy} would be worth"
    return f"{name}: {settings.trajectories} trajectories and {settings.episodes} episodes of each agent"


def evaluate(
    stored: dict[str, Any],
    state: dict[str, Any],
    settings: Settings,
    comm: Comm,
    load_actor: off_policy.LoadActor | None = None,
) -> list[Row]:
    """Rows `method, metric, mean, se, n, dataset` and, where they are about one, `agent`; a collective.

    `median_r2` and `rmse` of predictions, `return` of planning, `factor_correlation` of each `covariate`,
    `unseen_median_r2`. Episodes of planning are shared over ranks. With --log and --policy, those of
    `persim.off_policy.evaluation`; `load_actor` makes what acts of a --policy that is none of the run's.
    """
    with comm.agree():
        config = check_config(stored_config(Config, stored, settings.environment), with_data=False)
        simulator = Simulator(**state["sizes"])
        simulator.load_state_dict(state["simulator"])
    rows = measure(config, simulator, state, settings, comm, load_actor)
    with comm.agree():
        if settings.export and comm.is_root:
            print(f"--export: {NO_PLANNER}")
            export(config, simulator, state["data"], rows, settings, stored.get("iteration"))
    return rows


def scene(stored: dict[str, Any], state: dict[str, Any], settings: Settings) -> film.Scene:
    """An episode of each of some agents, planned on its simulator or by the learned policy; for one rank."""
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
    planning |= {"policy": settings.policy or "planned", "learned": stored_policy(state)}
    actor = make_actor(config, family, simulator, numbers, seed=settings.seed, **planning)
    labels = [film.label(f"agent {names[i]}", parameters, row) for row, i in enumerate(numbers)]
    env = family.make_vec(parameters, stream(settings.seed, "environment"))
    return film.Scene(family, env, actor, labels, settings.video_steps or family.max_episode_len)


def measure(
    config: Config,
    simulator: Simulator,
    state: dict[str, Any],
    settings: Settings,
    comm: Comm,
    load_actor: off_policy.LoadActor | None,
) -> list[Row]:
    """The rows of `evaluate`; `state` is the save's."""
    data = state["data"]
    form = Form(
        settings.columns,
        decimal=settings.decimal,
        gaps=config.gaps if settings.gaps == "as_trained" else settings.gaps,
        tell=print_now if comm.is_root else keep_quiet,
    )
    if settings.log and settings.policy:
        if load_actor is None:
            raise TypeError("what acts by other policies is made by evaluate.py")
        return off_policy.evaluate(config, simulator, state, settings, form, comm, load_actor)
    with comm.agree():
        if settings.log:
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
        policy: Any = settings.policy or "planned"
        with comm.agree():
            actor = make_actor(
                config,
                shipped,
                simulator,
                chosen,
                seed=seed,
                pessimism=pessimism,
                policy=policy,
                learned=stored_policy(state),
                **planning,
            )
        actors = {"learned" if settings.policy == "learned" else "": actor}
        if settings.upper_bound:
            true = TrueModel(family, tested)
            planner = settings_of(family, **planning)
            actors["true_model"] = Actor(family, true, np.arange(len(chosen)), seed=seed, settings=planner)
        for method, actor in actors.items():
            at(f"acting: {method.replace('_', ' ') or 'planning on the simulators'}")
            returns = play(family, tested, actor, settings.episodes, seed, comm)
            rows += make_rows.returns(method, labels, returns)
            spent = comm.allreduce_(np.array([actor.seconds, actor.taken]))
            if settings.policy and comm.is_root:  # no row: rows are the same each time
                print_now(f"{method or 'planning'}: {1000 * spent[0] / spent[1]:.3g} ms for each action")
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
