"""What the card that goes with an exported policy says."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from common.evaluation import Row
from common.export import Port, Section, action_port, bullets, observation_port, training
from envs.target_speed import ROBOTS
from rmdp.config import Config

LISTED = 50  # agents up to which a card names each


class Served(NamedTuple):
    """n agents, their policies, and what these return to them."""

    config: Config
    family: Any
    agents: dict[str, np.ndarray]  # [n, ...]
    policy_of: np.ndarray  # [n]
    own: np.ndarray  # [n] mean returns
    rows: list[Row]  # `policy_return` of each policy
    unit: str = ""
    most: float | None = None  # return that is possible, if it is known
    certificate: list[str] = []  # of all policies together, in words


def sections(row: Row, served: Served, settings: Any, iteration: int | None, env_steps: int) -> list[Section]:
    """The sections of a card; `row` is the policy's row of returns."""
    config, agents = served.config, np.flatnonzero(np.asarray(served.policy_of) == row["policy"])
    n, facts = len(served.own), []
    if iteration is not None:
        steps = f"{iteration * config.steps_per_policy:,} of this policy, {env_steps:,} of all"
        facts = [("environment steps", steps)]
    assigned = [("agents", f"{len(agents)} of {n} (index.json lists them)"), *parameters(served, agents)]
    return [
        ("Agents assigned to it", bullets(assigned)),
        ("Their returns", bullets(measured(row, served, agents, settings))),
        *([("Agents that come new", "\n".join(served.certificate))] if served.certificate else []),
        training(
            config,
            iteration,
            ("algorithm", f"r-MDP, {config.algorithm}; {config.num_policies} policies for {n} agents"),
            *facts,
            ("data", "its own steps in the simulator; no recorded data of anybody"),
        ),
    ]


def parameters(served: Served, agents: np.ndarray) -> list[tuple[str, str]]:
    """What tells the agents with these numbers from others: of each of a few, or the range of many."""
    lines = []
    for name, values in served.agents.items():
        own = values[agents]
        if own.ndim > 1:
            lines.append((name, f"of each agent an array of shape {own.shape[1:]}"))
        elif 0 < len(own) <= LISTED:
            each = [f"{value:.4g} (agent {i})" for i, value in zip(agents, own, strict=True)]
            lines.append((name, ", ".join(each)))
        elif len(own):
            lines.append((name, f"{own.min():.4g} to {own.max():.4g}, mean {own.mean():.4g}"))
    return lines


def measured(row: Row, served: Served, agents: np.ndarray, settings: Any) -> list[tuple[str, str]]:
    """Returns on fresh episodes."""
    if row["mean"] is None:
        return [("return", "not measured: no agent is assigned to it")]
    error = "" if row["se"] is None else f" ± {row['se']:.2f} (standard error over episodes)"
    most = "" if served.most is None else f"; at most {served.most:.4g} is possible"
    worst = agents[served.own[agents].argmin()]
    scalars = [(name, values[worst]) for name, values in served.agents.items() if values.ndim == 1]
    who = f" ({', '.join(f'{name} {value:.4g}' for name, value in scalars)})" if scalars else ""
    return [
        (f"return of an agent in an episode{served.unit}", f"{row['mean']:.2f}{error}{most}"),
        ("worst agent assigned to it", f"agent {worst}{who} with {row['worst']:.2f}"),
        ("measured on", f"{settings.episodes} fresh episodes, seed {settings.seed}, no exploration"),
    ]


def meanings(family: Any) -> tuple[Port, Port]:
    """What goes in and what comes out."""
    seen, action = observation_port(family.observation_space), action_port(family.action_space)
    raw = "raw (the file normalises by itself)"
    if not hasattr(family, "make_shared"):
        return dataclasses.replace(seen, meaning=f"{seen.meaning}, {raw}"), action
    if family.name not in ROBOTS:
        cells = (
            f"{raw}: row and column of the walker, counted from the upper left; two zeros; for each of the "
            "25 cells, row by row, 1 if it was visited"
        )
        moves = "0 up, 1 down, 2 left, 3 right"
        return dataclasses.replace(seen, meaning=cells), dataclasses.replace(action, meaning=moves)
    robot, space = ROBOTS[family.name], family.action_space
    low, high = float(space.low.min()), float(space.high.max())
    joints = (
        f"{raw}: positions of the joints but for the first {robot.hidden} (where it is on the ground), "
        f"then all velocities, in the order of Gymnasium's {robot.id}"
    )
    motors = f"controls of the motors in the order of {robot.id}, from {low:g} to {high:g}"
    return dataclasses.replace(seen, meaning=joints), dataclasses.replace(action, meaning=motors)
