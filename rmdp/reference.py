"""The returns between which an agent is badly and well served: its floor and its own best."""

from contextlib import closing
from typing import Any

import numpy as np

from common.baselines import RandomActions
from common.config import from_stored
from common.errors import UserError
from common.evaluation import EVALUATION
from common.progress import at
from common.rollout import play
from common.runs import checkpoint
from common.runs.seeding import SharedStream, stream
from envs import Problem
from rmdp.config import Config
from rmdp.own_dynamics import try_episodes
from rmdp.policy import Policies

EPISODES = 20  # of each agent with random actions and with each policy of a reference run


def return_range(problem: Problem, run: str, seed: int, comm: Any) -> tuple[np.ndarray, np.ndarray]:
    """The floor and the best return `[n]` of each agent; a collective.

    They are those of the reference run `run`: the floor what random actions return, the best what the best of
    its policies for the agent does, each the mean of `EPISODES`. Without one they are what the family states.
    Raises UserError where there is neither, or an agent whose best is not above its floor.
    """
    with comm.agree():
        check_reference(problem.family, run)
        if not run:
            return problem.family.return_range(problem.rows(slice(None)))
        policies = reference_policies(problem, run) if comm.is_root else None
    policies = comm.bcast_object(policies)
    at("the reference run")
    floor = random_returns(problem, EPISODES, seed, comm).mean(1)
    best = try_episodes(policies, problem, EPISODES, seed, comm).mean(2).max(0)
    with comm.agree():
        if len(bad := np.flatnonzero(best <= floor)):
            told = f"agent {bad[0]} gets {best[bad[0]]:.4g} at best, random actions {floor[bad[0]]:.4g}"
            raise UserError(f"--reference {run}: {told}; give a run that serves all agents")
    return floor, best


def check_reference(family: Any, run: str) -> None:
    """Refuse a family that states no range of returns where no run gives one."""
    if not run and not hasattr(family, "return_range"):
        raise UserError(
            f"--reference: {family.name} states no best return of an agent; give a run, e.g. one that has a "
            "policy for each"
        )


def reference_policies(problem: Problem, run: str) -> Policies:
    """The policies of a run in the problem's environment; raises UserError."""
    try:
        stored, state = checkpoint.open_run(run, "rmdp")
    except UserError as error:
        raise UserError(f"--reference {error}") from None
    config = from_stored(Config, stored)
    if config.environment != problem.environment:
        raise UserError(f"--reference {run}: is of {config.environment}, not of {problem.environment}")
    policies = Policies(config, problem.family.observation_space, problem.family.action_space)
    policies.load_state_dict(state["policy"])
    return policies


def random_returns(problem: Problem, num_episodes: int, seed: int, comm: Any) -> np.ndarray:
    """Returns `[n, E]` of uniform actions; a collective. The starts are those of `try_episodes`."""
    n, own = problem.num_agents, comm.share(problem.num_agents)
    returns = np.zeros((n, num_episodes))
    for e in range(num_episodes if own.stop > own.start else 0):
        draws = SharedStream(stream(seed, "evaluation", 0, e), n, own)
        acting = SharedStream(stream(seed, "acting", EVALUATION, e), n, own)
        with closing(problem.family.make_vec(problem.rows(own), draws)) as env:
            actor = RandomActions(problem.family.action_space, acting)
            returns[own, e] = play(env, actor, problem.horizon).returns
    return comm.allreduce_(returns)
