"""Off-policy evaluation: what a policy is worth to each agent of a log, by a run's simulators."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from common.evaluation import Row, row
from common.progress import at
from common.protocols import Actor
from mpi_utils.comm import Comm
from persim import new_agents
from persim.baselines import offline
from persim.config import Config
from persim.data.form import Form
from persim.data.transitions import Transitions
from persim.log_family import family_of_log
from persim.off_policy.episodes import LoggedEpisodes, actions_along, episodes_of
from persim.off_policy.importance import weighted_importance_sampling
from persim.off_policy.model_value import model_value
from persim.off_policy.support import Support
from persim.off_policy.verdict import Interval, interval, verdicts
from persim.partial import planned
from persim.policy import make_actor, stored_policy
from persim.problem import family_of
from persim.simulator import Simulator
from persim.testing.held_out_log import read_held_out

LoadActor = Callable[[str, str, list[str]], Actor]  # of a --policy, an environment and agents' names


@dataclasses.dataclass(frozen=True)
class Trial:
    """All that policies are judged by: n agents' simulators and their logged episodes."""

    model: new_agents.NewAgents
    family: Any
    """Rewards, ends and spaces; its states are the simulators'."""
    log: Transitions
    episodes: LoggedEpisodes
    seen: int
    """Coordinates of a state that an actor is shown."""

    @classmethod
    def of(
        cls,
        simulator: Simulator,
        config: Config,
        data: dict[str, Any],
        log: Transitions,
        known: Any,
        num_observed: int,
        num_episodes: int,
    ) -> "Trial":
        """The trial of a log whose states are the simulator's; agents that the run does not know are new."""
        family, number = (
            planned(config, known, simulator.history),
            {n: i for i, n in enumerate(data["names"])},
        )
        factor = simulator.factors()[:, [0 if config.pooled else number.get(n, 0) for n in log.names]]
        unknown = [i for i, name in enumerate(log.names) if name not in number and not config.pooled]
        if unknown:
            steps = new_agents.first_steps(log, num_observed, unknown)
            factor[:, unknown] = new_agents.from_steps(simulator, *steps)
        seen = simulator.target_size - config.learn_reward
        episodes = episodes_of(log, family, known.max_episode_len, num_episodes, seen)
        return cls(new_agents.NewAgents(simulator, factor), family, log, episodes, seen)


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What is said of a policy for each of n agents."""

    value: Interval
    gain: Interval
    """Over the logged returns, from the same starts on."""
    unlike: np.ndarray
    """[n], the share of steps at which the log has no data."""
    verdicts: list[str]
    """better, worse or unknown."""


def judge(trial: Trial, actor: Actor, support: Support, comm: Comm) -> Judgement:
    """What the simulators say of the policy of `actor`, which has the trial's agents; a collective."""
    models = trial.model.at(np.arange(trial.log.num_agents))
    found = model_value(models, trial.family, trial.log, trial.episodes, actor, trial.seen, support, comm)
    there = trial.episodes.there
    value, gain = (interval(x, there) for x in (found.returns, found.returns - trial.episodes.returns))
    return Judgement(value, gain, found.unlike, verdicts(gain, found.unlike))


def evaluate(
    config: Config,
    simulator: Simulator,
    state: dict[str, Any],
    settings: Any,
    form: Form,
    comm: Comm,
    load_actor: LoadActor,
) -> list[Row]:
    """Rows on what `settings.policy` is worth to the agents of the log `settings.log`; a collective.

    Of each agent and in the mean: `logged_return`; `value` and `gain` over what was logged, with `low` and
    `high`; the `verdict`; `unlike`, the share of steps at which the log has no data. Where asked for, also
    `fitted_q`, and `importance` with the `effective_episodes` that it rests on.
    """
    with comm.agree():
        if settings.fitted_q:
            offline.library()  # a missing one is told before work starts
        data = state["data"]
        _, log = read_held_out(settings.log, data, simulator, config, form, settings.agents)
        known = family_of(config) or family_of_log(config, data, simulator.num_actions)
        numbers = settings.observed, settings.trajectories
        trial = Trial.of(simulator, config, data, log, known, *numbers)
        if settings.policy in ("planned", "learned"):
            actor: Actor = make_actor(
                config,
                known,
                trial.model,
                pessimism=settings.pessimism,
                seed=settings.seed,
                policy=settings.policy,
                learned=stored_policy(state),
            )
        else:
            actor = load_actor(settings.policy, config.environment, log.names)
        support = Support(log, trial.seen)
    at(f"playing {settings.policy} in the simulators")
    rows = rows_of(settings.log, log.names, trial.episodes, judge(trial, actor, support, comm))
    if settings.fitted_q or settings.importance:
        at("taking the policy's actions along the log")
        actions = actions_along(log, trial.episodes, actor, trial.seen)
        latents = agent_numbers(trial.model)
        if settings.fitted_q:
            values = offline.fitted_q(trial, actions, latents, settings.fitted_q, settings.seed)
            rows += agent_rows(settings.log, log.names, "fitted_q", values)
        if settings.importance:
            values, effective = weighted_importance_sampling(trial, actions, latents)
            rows += agent_rows(settings.log, log.names, "importance", values)
            rows += agent_rows(settings.log, log.names, "effective_episodes", effective)
    return rows


def agent_numbers(model: new_agents.NewAgents) -> np.ndarray:
    """What tells agents apart for estimators that know no simulators [n, r]: the mean member's factors."""
    first = model.factors()[model.simulator.active_members][0].detach().double().numpy()
    spread = first.std(0)
    return (first - first.mean(0)) / np.where(spread > 0, spread, 1.0)


def rows_of(path: str, names: list[str], episodes: LoggedEpisodes, found: Judgement) -> list[Row]:
    """Rows of a judgement."""
    count = episodes.there.sum(1)
    logged = [own[there] for own, there in zip(episodes.returns, episodes.there, strict=True)]
    rows = [
        row("off_policy", "agents", float(found.verdicts.count(verdict)), verdict=verdict, dataset=path)
        for verdict in ("better", "worse", "unknown")
    ]
    rows.append(row("logged", "logged_return", [own.mean() for own in logged], dataset=path))
    rows.append(row("off_policy", "value", found.value.mean, dataset=path))
    rows.append(row("off_policy", "unlike", found.unlike, dataset=path))
    for a, name in enumerate(names):
        own = {"agent": name, "episodes": int(count[a]), "dataset": path}
        rows.append(row("logged", "logged_return", logged[a], **own))
        for metric, of in (("value", found.value), ("gain", found.gain)):
            low, high = float(of.low[a]), float(of.high[a])
            more = {"verdict": found.verdicts[a]} if metric == "gain" else {}
            rows.append(row("off_policy", metric, of.mean[a], low=low, high=high, **own, **more))
        rows.append(row("off_policy", "unlike", found.unlike[a], **own))
    return rows


def agent_rows(path: str, names: list[str], metric: str, values: np.ndarray) -> list[Row]:
    """A row on the agents' mean and one on each, of values [n]; those that are no number are missing."""
    rows = [row(metric, metric, values, dataset=path)]
    return rows + [
        row(metric, metric, value, agent=name, dataset=path)
        for name, value in zip(names, values, strict=True)
    ]
