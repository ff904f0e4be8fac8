"""The protocol: predictions 50 steps ahead, planning in the true environment, factors, agents never seen."""

import dataclasses
from typing import Annotated

import numpy as np

from common.config import AT_LEAST_ZERO, MAY_BE_EMPTY, POSITIVE, check, parse_flags
from common.errors import UserError
from common.runs.seeding import stream
from persim import new_agents, policy
from persim.config import Config, check_config
from persim.data import behaviour
from persim.data.datasets import family_of
from persim.learned_reward import Earning, hide
from persim.planning import planner
from persim.planning.true_dynamics import TrueModel
from persim.simulator import Simulator
from persim.testing import figures, held_out_log, prediction, report

plot, show = figures.plot, report.show


@dataclasses.dataclass(frozen=True)
class Settings:
    """Evaluate a PerSim run: how well its simulators predict agents, and what planning on them earns."""

    agents: Annotated[str, MAY_BE_EMPTY] = ""
    """Names of the agents to test, with commas between; default: the first five (our test agents)."""
    trajectories: Annotated[int, POSITIVE] = 200
    """Trajectories of each agent, under a policy not seen in training, whose next 50 states are predicted."""
    episodes: Annotated[int, AT_LEAST_ZERO] = 20
    """Episodes of each agent in which a planner acts on its simulator; 0: none."""
    bound: bool = True
    """Also plan on the true dynamics: what a perfect simulator would earn."""
    unseen: Annotated[int, AT_LEAST_ZERO] = 20
    """Agents that are in no data, predicted from their covariates and from a few observed steps; 0: none."""
    observed: Annotated[int, POSITIVE] = 20
    """Those steps."""
    horizon: Annotated[int, AT_LEAST_ZERO] = 0
    """Steps that the planner looks ahead; 0: as the authors."""
    candidates: Annotated[int, AT_LEAST_ZERO] = 0
    """Sequences of actions that it tries; 0: as the authors."""
    log: Annotated[str, MAY_BE_EMPTY] = ""
    """Instead of all this: hold predictions against the log at this path, of agents that the run knows (the
    next 51 states from each window's first on) and of others (factors from their first steps)."""
    seed: Annotated[int, AT_LEAST_ZERO] = 0
    """Draws starts, noise and unseen agents."""
    json: Annotated[str, MAY_BE_EMPTY] = ""
    """Write the rows here as JSON (default: evaluation.json in the run folder, if it can be written)."""
    plot: Annotated[str, MAY_BE_EMPTY] = ""
    """Draw the figures here as PNG (default: evaluation.png in the run folder, likewise)."""


def parse_settings(flags: list[str], show: bool) -> Settings:
    """Settings from `evaluate`'s flags, checked."""
    settings = parse_flags(Settings, flags, "python -m evaluate RUN", show=show)
    check(settings)
    return settings


def stored_config(stored: dict) -> Config:
    """The run's configuration from its config.json."""
    fields = {field.name for field in dataclasses.fields(Config)}
    try:
        config = Config(**{name: value for name, value in stored.items() if name in fields})
        return check_config(config, with_data=False)
    except TypeError as error:
        raise UserError(f"config.json: {error}") from None


def title(name: str, settings: Settings) -> str:
    """What the figure of the run `name` shows."""
    return f"{name}: {settings.trajectories} trajectories and {settings.episodes} episodes of each agent"


def evaluate(stored: dict, state: dict, settings: Settings, comm) -> list[dict]:
    """Rows `method, metric, mean, se, n, dataset` and, where they are about one, `agent`; a collective.

    `median_r2` and `rmse` of predictions, `return` of planning, `factor_correlation` of each `covariate`,
    `unseen_median_r2`. Episodes of planning are shared over ranks.
    """
    with comm.agree():
        config = stored_config(stored)
        simulator = Simulator(**state["sizes"])
        simulator.load_state_dict(state["simulator"])
        if settings.log:
            return held_out_log.evaluate(settings.log, state["data"], simulator, config, settings)
        family = family_of(config)
        data = state["data"]
        covariates = {name: np.asarray(values) for name, values in data["covariates"].items()}
        chosen = chosen_agents(settings, list(data["names"]), stored["dataset"])
        if family is None or not covariates:
            raise UserError(
                f"{stored['dataset']}: tests need an environment, and its covariates in the log: neither "
                "the predictions nor the plans of this run have anything true to be held against; give --log "
                "with steps that it was not trained on"
            )
        test_policy = behaviour.load(family).test
        if config.learn_reward:
            family = Earning(family)
            test_policy = family.blind(test_policy)
    row = report.Rows(stored["dataset"], "pooled" if config.pooled else "persim")
    tested = {name: values[chosen] for name, values in covariates.items()}
    labels = report.labels(tested)
    seed = int(stream(settings.seed, "evaluation").integers(2**62))

    own = np.zeros_like(chosen) if config.pooled else chosen
    test = prediction.draw_test(family, tested, test_policy, settings.trajectories, stream(seed, "acting"))
    predicted = prediction.predict(simulator.at(own), test)
    bound = prediction.ceiling(family, test, predicted)
    if config.learn_reward:
        test, predicted, bound = hide(test, predicted, bound)
    rows = row.predictions(labels, test, predicted, bound)

    if settings.episodes:
        planning = planner_settings(family, settings)
        models = {"": (simulator, own)}
        if settings.bound:
            models["true_model"] = (TrueModel(family, tested), None)
        for method, (model, numbers) in models.items():
            played = policy.play(family, tested, model, settings.episodes, seed, comm, planning, numbers)
            rows += row.returns(method, labels, played)
    if not config.pooled:
        rows += row.factors(simulator, covariates)
        if settings.unseen:
            rows += unseen_agents(row, simulator, family, covariates, test_policy, settings, seed)
    return rows


def chosen_agents(settings: Settings, names: list[str], dataset: str) -> np.ndarray:
    """Numbers of the agents to test."""
    if not settings.agents:
        return np.arange(min(5, len(names)))
    wanted = [name.strip() for name in settings.agents.split(",")]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise UserError(f"--agents {settings.agents}: {dataset} has no agent {missing[0]!r}; correct it")
    return np.array([names.index(name) for name in wanted])


def planner_settings(family, settings: Settings) -> planner.Settings:
    """The authors', but for what is given."""
    given = {"horizon": settings.horizon, "num_candidates": settings.candidates}
    changed = {name: value for name, value in given.items() if value}
    if "num_candidates" in changed:
        changed["num_elites"] = max(1, changed["num_candidates"] // 4)
    return dataclasses.replace(planner.AUTHORS[family.name], **changed)


def unseen_agents(row, simulator, family, covariates, test_policy, settings: Settings, seed) -> list[dict]:
    """Rows on agents drawn anew, from their covariates and from random actions in their environment."""
    rng = stream(seed, "tasks")
    agents = family.sample(rng, settings.unseen)
    seen = new_agents.observe(family, agents, settings.observed, rng)
    test = prediction.draw_test(family, agents, test_policy, settings.trajectories, stream(seed, "acting", 1))
    factors = {
        "from_covariates": new_agents.from_covariates(simulator, covariates, agents),
        "from_steps": new_agents.from_steps(simulator, *seen),
    }
    rows = []
    for method, factor in factors.items():
        shown = test, prediction.predict(simulator.at(factor=factor), test)
        rows.append(row.unseen(method, *(hide(*shown) if isinstance(family, Earning) else shown)))
    return rows
