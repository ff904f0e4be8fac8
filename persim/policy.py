"""What acts: a planner on each agent's simulator, which plans, acts and replans, or a learned policy."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.spaces import Discrete

from common.errors import UserError
from common.evaluation import stored_config
from common.runs import checkpoint
from common.runs.seeding import stream
from envs.problem import Problem
from mpi_utils.comm import Comm
from persim.config import Config
from persim.data.trajectories import episodes
from persim.history import Remembers
from persim.learned_policy import Acts, LearnedPolicy
from persim.log_family import family_of_log
from persim.new_agents import NewAgents
from persim.partial import planned
from persim.planning import planner
from persim.planning.lookup_table import tabulate
from persim.problem import family_of
from persim.simulator import Simulator


class Actor:
    """Acts for n agents by planning at each step on a model of each; row i acts for agent `agents[i % n]`.

    With a policy that was `learned` it acts by that instead.

    `model.at(agents [E])` gives the models to be planned on; there the agents have the numbers `agents` [n].
    With `tables`, a simulator is looked up in tables where `tabulate` finds that as good. A row's plans
    depend on `seed`, on its number and on the step, not on the other rows.

    A model that infers agents from what they do has `memory(N)` instead of `at`: what it knows of N episodes.
    Its `at(episodes [E])` gives the models, and its `observe(episodes, state, action, next_state)` is told of
    every step.
    """

    def __init__(
        self,
        family: Any,
        model: Any,
        agents: Any,
        *,
        seed: int = 0,
        settings: planner.Settings | None = None,
        tables: bool = True,
        learned: LearnedPolicy | None = None,
    ) -> None:
        self.family, self.agents = family, np.asarray(agents)
        self.seed, self.settings = seed, settings
        self.acts = Acts(learned, model, family.action_space) if learned else None
        self.model: Any = tabulate(model, family, self.agents) if tables and not learned else model
        self.infers = hasattr(model, "memory")
        self.seconds, self.taken = 0.0, 0  # what acting has cost, and for how many actions

    def reset(self, num: int, first: int = 0) -> None:
        """Begin `num` episodes, a row each, that are numbered from `first` (another rank has those before).

        Raises `UserError` for settings of the planner that cannot work.
        """
        self.episodes = np.arange(first, first + num)
        plans = self.acts or planner.make_planner(self.family, first + num, self.seed, self.settings)
        self.planner: Any = plans
        self.memory = self.model.memory(first + num) if self.infers else None
        self.before: tuple[np.ndarray, np.ndarray] | None = None

    def act(
        self,
        observation: np.ndarray,
        reward: np.ndarray | None = None,
        done: np.ndarray | None = None,
        running: np.ndarray | None = None,
    ) -> np.ndarray:
        """Actions [num] int64 or [num, a] float32 in `observation` [num, d].

        Nothing is planned for rows that are not `running` [num] bool (default: all are); their action is 0.
        `reward` plays no part: the family, or the simulator, says what plans bring. Where states are
        histories, those of rows that are `done` [num] bool begin anew.
        """
        space, num = self.family.action_space, len(observation)
        rows = np.arange(num) if running is None else np.flatnonzero(running)
        if hasattr(self.family, "as_state"):
            observation = self.family.as_state(observation)
        if isinstance(self.family, Remembers):
            observation = self.family.remember(self.before, observation, done)
        if self.memory is not None and self.before is not None and len(rows):
            state, action = (array[rows] for array in self.before)
            self.memory.observe(self.episodes[rows], state, action, observation[rows])
        actions = np.zeros((num, *space.shape), np.int64 if isinstance(space, Discrete) else np.float32)
        if len(rows):
            episodes = self.episodes[rows]
            known = (self.model, self.agents[episodes % len(self.agents)])
            if self.memory is not None:
                known = (self.memory, episodes)
            began = time.perf_counter()
            actions[rows] = self.planner.plan(*known, observation[rows], episodes)
            self.seconds, self.taken = self.seconds + time.perf_counter() - began, self.taken + len(rows)
        self.before = np.array(observation), actions
        return actions


def play(
    family: Any, parameters: dict[str, np.ndarray], actor: Actor, num_episodes: int, seed: int, comm: Comm
) -> np.ndarray:
    """Returns [n, num_episodes] of the agents `parameters` {name: [n]}, on every rank; a collective.

    The actor acts for n agents, in the same order. Episodes are shared over ranks, and so are a rank's
    planned together; each has a start and candidates of its own, at any number of ranks.
    """
    n = len(next(iter(parameters.values())))
    total = n * num_episodes
    # Pairs are numbered by episode, then agent: every rank has short and long ones.
    pairs = np.arange(total)[comm.share(total)]
    with comm.agree():
        actor.reset(len(pairs), int(pairs[0]) if len(pairs) else total)
    returns = np.zeros(total)
    if len(pairs):
        own = {name: values[pairs % n] for name, values in parameters.items()}
        start = family.start(stream(seed, "evaluation"), total)[pairs]
        returns[pairs] = episodes(family, own, start, actor, family.max_episode_len).returns()
    return comm.allreduce_(returns).reshape(num_episodes, n).T.copy()


def make_actor(
    config: Config,
    family: Any,
    model: Simulator | NewAgents,
    agents: Sequence[int] | np.ndarray | None = None,
    *,
    horizon: int | None = None,
    num_candidates: int | None = None,
    pessimism: float = 0.0,
    seed: int = 0,
    policy: Literal["planned", "learned"] = "planned",
    learned: LearnedPolicy | None = None,
) -> Actor:
    """Acts for the agents with the numbers `agents` [n] (default: all) by planning on their simulators.

    With `policy="learned"` the run's `learned` policy acts instead, and a planner's settings do not matter.

    The planner is the authors' for `family`, but for `horizon`, the steps that it looks ahead, and
    `num_candidates`, the sequences of actions that it tries; `pessimism` is what it costs a plan that the
    ensemble's members disagree (`planner.Settings`). Raises `UserError` without a family: its spaces
    and rewards must be known; and where no policy was learnt.
    """
    if policy not in ("planned", "learned"):
        raise UserError(f"policy {policy!r}: give planned or learned")
    if policy == "learned" and learned is None:
        raise UserError("policy learned: the run has none; train it with --policy_iters 60 and --resume RUN")
    if family is None:
        raise UserError("the run's environment is unknown: give a family to act in, with its spaces")
    simulator = model.simulator if isinstance(model, NewAgents) else model
    family = planned(config, family, simulator.history)
    numbers = np.arange(model.num_agents) if agents is None else np.asarray(agents)
    settings = planner.settings_of(family, horizon, num_candidates, pessimism)
    numbers = 0 * numbers if config.pooled else numbers
    learned = learned if policy == "learned" else None
    return Actor(family, model, numbers, seed=seed, settings=settings, learned=learned)


def stored_policy(state: dict[str, Any]) -> LearnedPolicy | None:
    """The learned policy of a save; None where none was learnt, or not yet."""
    stored = state.get("policy", {})
    if not stored.get("done"):
        return None
    policy = LearnedPolicy(**stored["sizes"])
    policy.load_state_dict(stored["network"])
    return policy


def load_problem(run: str | Path) -> Problem:
    """The agents of a run, by their covariates where the log has them, and their environment."""
    stored, state = checkpoint.open_run(run, "persim")
    config, covariates = stored_config(Config, stored), state["data"]["covariates"]
    family = family_of(config)
    if family is None or not covariates:
        raise UserError(f"{run}: its agents' dynamics are known by their logs alone")
    agents = {name: np.asarray(values) for name, values in covariates.items()}
    return Problem(config.environment, family, family.check(agents))


def load(
    run: str | Path,
    agents: Sequence[int | str] | np.ndarray | None = None,
    *,
    family: Any = None,
    horizon: int | None = None,
    num_candidates: int | None = None,
    pessimism: float = 0.0,
    seed: int = 0,
    policy: Literal["planned", "learned"] = "planned",
    factors: torch.Tensor | None = None,
) -> Actor:
    """What acts by a trained run: a run folder, or one save in it; see `make_actor`.

    `agents` are names or numbers of agents of the run (default: all), or of those whose `factors` [M, K, r]
    are given (`new_agents.from_steps`, `from_covariates`): agents that are not in the run. A run on logs of
    unknown dynamics needs the `family` to act in, unless its reward is learnt. Raises `UserError` for what is
    no such run.
    """
    stored, state = checkpoint.open_run(run, "persim")
    config = stored_config(Config, stored)
    simulator = Simulator(**state["sizes"])
    simulator.load_state_dict(state["simulator"])
    model: Simulator | NewAgents = simulator if factors is None else NewAgents(simulator, factors)
    names = list(state["data"]["names"] if factors is None else map(str, range(model.num_agents)))
    chosen = range(len(names)) if agents is None else agents
    for agent in chosen:
        if agent not in (names if isinstance(agent, str) else range(len(names))):
            raise UserError(f"{run}: has no agent {agent!r}")
    numbers = [names.index(agent) if isinstance(agent, str) else int(agent) for agent in chosen]
    return make_actor(
        config,
        family or family_of(config) or family_of_log(config, state["data"], simulator.num_actions),
        model,
        numbers,
        horizon=horizon,
        num_candidates=num_candidates,
        pessimism=pessimism,
        seed=seed,
        policy=policy,
        learned=stored_policy(state),
    )
