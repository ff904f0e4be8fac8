"""What is meta-trained on: a built-in family of tasks or the user's own, and the expert of a warm start."""

import dataclasses
from typing import Any

from common.errors import UserError
from envs import Population, agreed_factory, make_family
from envs.problem import Problem
from mpi_utils.comm import Comm
from rl2.bandit_baselines import Gittins
from rl2.config import Config
from rl2.fixed_horizon import FixedHorizon
from rl2.mdp_baselines import BEBReplanned, MdpBaseline
from rl2.seen_task import SeenTask


def make_problem(config: Config, comm: Comm) -> Problem:
    """The family of `config.environment`, and its agents where they are given; a collective.

    A user's factory is imported by rank 0 and sent to all ranks.
    """
    factory = agreed_factory(config.environment, comm)
    with comm.agree():
        names = {"bandit": ("num_actions",), "tabular_mdp": ("num_states", "num_actions", "max_episode_len")}
        sizes = {name: getattr(config, name) for name in names.get(config.environment, ())}
        family: Any = make_family(factory or config.environment, **sizes)
        agents = None
        if config.population:
            agents = family.check(Population.of_run(config.population, config.environment).parameters)
        longest = config.episodes * family.max_episode_len if getattr(family, "declares_length", True) else 0
        if longest > config.meta_episode_len:
            raise UserError(
                f"--episodes {config.episodes}: they may last {longest} steps in {config.environment}; give "
                f"--meta_episode_len {longest}"
            )
        if config.early_ends == "wait":
            if not getattr(family, "declares_length", True):
                raise UserError(
                    f"--early_ends wait: {config.environment} does not say how long episodes last; give it "
                    "an attribute max_episode_len"
                )
            family = FixedHorizon(family, family.max_episode_len)
        if config.see_task:
            family = SeenTask(family, agents)
        return Problem(config.environment, family, agents)


def hidden(problem: Problem) -> Problem:
    """The problem as those see it who are not shown the task."""
    family = problem.family
    return dataclasses.replace(problem, family=family.family) if isinstance(family, SeenTask) else problem


def stored_problem(config: Config, state: dict, comm: Comm) -> Problem:
    """The problem of a run; its agents come from the save, which older ones do not hold; a collective."""
    if config.population and state.get("agents"):
        whole = make_problem(dataclasses.replace(config, population=""), comm)
        return dataclasses.replace(whole, agents=state["agents"])
    return make_problem(config, comm)


def expert_of(config: Config) -> MdpBaseline | Gittins | None:
    """What `--warm_start` clones, or None."""
    if config.warm_start == "none":
        return None
    if config.warm_start == "gittins":
        return Gittins(config.num_actions, config.meta_episode_len)
    sizes = config.num_states, config.num_actions, config.max_episode_len
    return BEBReplanned(*sizes, scale=config.warm_start_bonus)
