"""What PerSim and each baseline do with one dataset: section 2's two tasks, for each test agent."""

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

import numpy as np

from common.config import AT_LEAST_ZERO, POSITIVE
from common.evaluation import Row
from common.runs.seeding import stream
from mpi_utils.comm import Comm
from persim.baselines import cadm, morel, offline, synthetic
from persim.data import behaviour
from persim.data.behaviour import BehaviourPolicy
from persim.data.trajectories import trajectories
from persim.data.transitions import Transitions
from persim.planning import planner
from persim.planning.true_dynamics import TrueModel
from persim.policy import Actor, play
from persim.simulator import Simulator
from persim.testing import prediction, report

CADM = {"cadm": cadm.VANILLA, "cadm_pets": cadm.PE_TS}
OFFLINE = ("bcq_p", "bcq_a", "cql_p", "cql_a", "morel_p", "morel_a")  # for the population, for each agent
AUGMENTED = {"persim_bcq_5": "bcq", "persim_cql_5": "cql"}
METHODS = ("true_model", "persim", *CADM, *OFFLINE, *AUGMENTED)


@dataclass(frozen=True)
class Budgets:
    """What a training, and an evaluation, of each method may cost; the same for -P and -A."""

    offline_steps: Annotated[int, POSITIVE] = 3000
    """Gradient steps of BCQ and CQL, with and without PerSim's trajectories."""
    morel_steps: Annotated[int, POSITIVE] = 200_000
    """Steps in MOReL's pessimistic MDP."""
    cadm_steps: Annotated[int, POSITIVE] = 10_000
    """Gradient steps of CaDM."""
    pets_steps: Annotated[int, POSITIVE] = 10_000
    """Gradient steps of PE-TS CaDM's five members, side by side."""
    synthetic: Annotated[int, POSITIVE] = 5
    """PerSim's trajectories for each agent, added to the observed one."""
    candidates: Annotated[int, POSITIVE] = 1000
    """Sequences of actions that PerSim, and true dynamics, are planned with."""
    horizon: Annotated[int, AT_LEAST_ZERO] = 0
    """Steps that planners look ahead; 0: as PerSim's authors."""
    synthetic_candidates: Annotated[int, POSITIVE] = 300
    """Those by which PerSim acts inside its simulators."""
    cadm_candidates: Annotated[int, POSITIVE] = 200
    """Those of CaDM (its authors: 200, in each round of the cross-entropy method)."""
    pets_candidates: Annotated[int, POSITIVE] = 200
    """Those of PE-TS CaDM."""
    pets_particles: Annotated[int, POSITIVE] = 20
    """Its particles in planning (its authors: 20)."""
    planned_episodes: Annotated[int, POSITIVE] = 20
    """Episodes of each agent in which a planner acts, also PerSim's."""
    cadm_episodes: Annotated[int, POSITIVE] = 20
    """Those of both CaDMs."""
    episodes: Annotated[int, POSITIVE] = 100
    """Episodes of each agent of the methods without a planner."""
    trajectories: Annotated[int, POSITIVE] = 200
    """Trajectories of each agent that are predicted."""


@dataclass(frozen=True, eq=False)
class Case:
    """A dataset of a family and the tests of its first n agents; `simulator` is PerSim's, trained on it."""

    family: Any
    data: Transitions
    tested: dict[str, np.ndarray]  # covariates [n]
    budgets: Budgets
    seed: int  # of training
    test_seed: int  # of the tests, the same for all methods and repeats
    simulator: Simulator | None = None
    networks: dict[str, int] = field(default_factory=dict)  # sizes of PerSim's, for MOReL's members

    @property
    def num_agents(self) -> int:
        """n."""
        return len(next(iter(self.tested.values())))

    def planning(self, num_candidates: int) -> planner.Settings:
        """The authors' planner with another number of candidates, and the budgets' horizon."""
        return planner.settings_of(self.family, self.budgets.horizon, num_candidates)

    @cached_property
    def imagined(self) -> list[Transitions]:
        """Each agent's transitions out of its simulator, the same for all who learn from them."""
        agents, planning = np.arange(self.num_agents), self.planning(self.budgets.synthetic_candidates)
        rng, num = stream(self.seed, "acting", 2), self.budgets.synthetic
        assert self.simulator is not None
        return synthetic.imagine(self.family, self.simulator, agents, num, planning, rng, self.seed)


def run(method: str, case: Case) -> list[Row]:
    """Rows `agent, metric, value` of one of METHODS but persim, whose runs are evaluated as such."""
    budgets = case.budgets
    if method == "true_model":
        model = TrueModel(case.family, case.tested)
        return planned(case, model, budgets.candidates, budgets.planned_episodes)
    if method in CADM:
        return run_cadm(method, case)
    if method in AUGMENTED:
        return acted(case, augmented(AUGMENTED[method], case))
    algorithm, form = method.rsplit("_", 1)
    if form == "p":
        return acted(case, [learn(algorithm, [case.data], case)] * case.num_agents)
    return acted(case, [learn(algorithm, [case.data.of([i])], case) for i in range(case.num_agents)])


def learn(algorithm: str, data: list[Transitions], case: Case) -> BehaviourPolicy:
    """The policy of BCQ, CQL or MOReL from lists of transitions."""
    if algorithm == "morel":
        settings = morel.Settings(num_steps=case.budgets.morel_steps, networks=case.networks)
        return morel.train(data[0], case.family, settings, case.seed)
    return offline.train(algorithm, data, case.family, case.budgets.offline_steps, case.seed)


def augmented(algorithm: str, case: Case) -> list[BehaviourPolicy]:
    """For each agent a policy from what it did and from what a planner did in its simulator."""
    agents = range(case.num_agents)
    return [learn(algorithm, [case.data.of([i]), case.imagined[i]], case) for i in agents]


def run_cadm(method: str, case: Case) -> list[Row]:
    """Rows on CaDM's predictions and on planning with it."""
    budgets, pets = case.budgets, method == "cadm_pets"
    steps = budgets.pets_steps if pets else budgets.cadm_steps
    settings = dataclasses.replace(CADM[method], num_steps=steps)
    if pets:
        settings = dataclasses.replace(settings, num_particles=budgets.pets_particles)
    model = cadm.train(case.data, case.family, settings, case.seed)
    test_policy = behaviour.load(case.family).test
    rng = stream(case.test_seed, "acting")
    task = prediction.draw_task(case.family, case.tested, test_policy, budgets.trajectories, rng)
    assert task.past is not None
    rmse, r2 = prediction.score(task, prediction.predict(model.after(*task.past), task))
    found = {"rmse": np.nanmean(rmse, axis=1), "median_r2": np.nanmedian(r2, axis=1)}
    candidates = budgets.pets_candidates if pets else budgets.cadm_candidates
    return rows_of(case, found) + planned(case, model, candidates, budgets.cadm_episodes)


def planned(case: Case, model: Any, num_candidates: int, num_episodes: int) -> list[Row]:
    """Rows on episodes in which a planner acts by `model`."""
    settings = case.planning(num_candidates)
    agents, seed = np.arange(case.num_agents), case.test_seed
    actor = Actor(case.family, model, agents, seed=seed, settings=settings, tables=False)
    returns = play(case.family, case.tested, actor, num_episodes, seed, Comm())
    return rows_of(case, {"return": returns.mean(1)})


def acted(case: Case, policies: list[BehaviourPolicy]) -> list[Row]:
    """Rows on episodes in which each agent has a policy of its own; all have the same starts."""
    means = []
    for i, acting in enumerate(policies):
        agents = {name: np.repeat(values[i], case.budgets.episodes) for name, values in case.tested.items()}
        rng = stream(case.test_seed, "evaluation", 1)
        played = trajectories(case.family, agents, acting, rng, case.family.max_episode_len)
        means.append(played.returns().mean())
    return rows_of(case, {"return": np.array(means)})


def rows_of(case: Case, found: dict[str, np.ndarray]) -> list[Row]:
    """A row for each metric and agent."""
    labels = report.labels(case.tested)
    return [
        {"agent": label, "metric": metric, "value": float(value)}
        for metric, values in found.items()
        for label, value in zip(labels, values, strict=True)
    ]
