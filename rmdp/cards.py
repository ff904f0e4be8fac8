"""The one-page card that goes with an exported policy."""

from typing import Any

import numpy as np

from common.evaluation import Row
from envs.target_speed import ROBOTS
from rmdp.report import Report

LISTED = 50  # agents up to which a card names each


def card(
    row: Row,
    report: Report,
    settings: Any,
    iteration: int | None,
    versions: dict[str, str],
    file: tuple[str, int, str],
) -> str:
    """The card in Markdown; `row` is the policy's row of returns, `file` its name, size and SHA-256."""
    j, (name, size, digest) = row["policy"], file
    config, agents = report.config, report.agents_of(row["policy"])
    observation, action = meanings(report.family)
    trained: list[tuple[str, Any]] = [
        ("environment", config.environment),
        ("algorithm", f"r-MDP, {config.algorithm}; {config.num_policies} policies for {report.n} agents"),
        ("iterations", "not recorded" if iteration is None else f"{iteration:,}"),
    ]
    if iteration is not None:
        steps = iteration * config.steps_per_policy
        trained.append(("environment steps", f"{steps:,} of this policy, {steps * report.k:,} of all"))
    trained += [
        ("data", "its own steps in the simulator; no recorded data of anybody"),
        ("seed", config.seed),
        ("run", config.model_name),
        ("versions at export", ", ".join(f"{package} {number}" for package, number in versions.items())),
    ]
    parts = [
        f"# Policy {j} of {report.k}: {config.environment}",
        "## Agents assigned to it",
        bullets(
            [("agents", f"{len(agents)} of {report.n} (index.json lists them)"), *targets(report, agents)]
        ),
        "## Their returns",
        bullets(measured(row, report, agents, settings)),
        "## Input and output",
        f'`torch.jit.load("{name}")(observation)` in Python, or LibTorch in C++; nothing else is needed.',
        bullets([("observation", observation), ("action", action)]),
        "## How it was trained",
        bullets(trained),
        "## File",
        bullets([("name", f"`{name}`, {size:,} bytes, TorchScript"), ("SHA-256", f"`{digest}`")]),
    ]
    return "\n\n".join(parts) + "\n"


def bullets(pairs: list[tuple[str, Any]]) -> str:
    """A list of Markdown."""
    return "\n".join(f"- {name}: {text}" for name, text in pairs)


def targets(report: Report, agents: np.ndarray) -> list[tuple[str, str]]:
    """The preferences of the agents with these numbers: each of a few, or the range of many."""
    lines = []
    for name, values in report.agents.items():
        own = values[agents]
        if 0 < len(own) <= LISTED:
            each = [f"{value:.4g} (agent {i})" for i, value in zip(agents, own, strict=True)]
            lines.append((name, ", ".join(each)))
        elif len(own):
            lines.append((name, f"{own.min():.4g} to {own.max():.4g}, mean {own.mean():.4g}"))
    return lines


def measured(row: Row, report: Report, agents: np.ndarray, settings: Any) -> list[tuple[str, str]]:
    """Returns on fresh episodes."""
    unit = " (times 100)" if report.scale != 1 else ""
    most = f"{report.scale * report.family.max_return:.4g}"
    if row["mean"] is None:
        return [("return", "not measured: no agent is assigned to it")]
    error = "" if row["se"] is None else f" ± {row['se']:.2f} (standard error over episodes)"
    worst = agents[report.own[agents].argmin()]
    who = ", ".join(f"{name} {values[worst]:.4g}" for name, values in report.agents.items())
    return [
        (f"return of an agent in an episode{unit}", f"{row['mean']:.2f}{error}; at most {most} is possible"),
        ("worst agent assigned to it", f"agent {worst} ({who}) with {row['worst']:.2f}"),
        ("measured on", f"{settings.episodes} fresh episodes, seed {settings.seed}, no exploration"),
    ]


def meanings(family: Any) -> tuple[str, str]:
    """What goes in and what comes out."""
    width = family.observation_space.shape[0]
    shape = f"float32 [B, {width}], raw (the file normalises by itself)"
    if family.name not in ROBOTS:
        return (
            f"{shape}: row and column of the walker, counted from the upper left; two zeros; for each of the "
            "25 cells, row by row, 1 if it was visited",
            "int64 [B]: 0 up, 1 down, 2 left, 3 right",
        )
    robot, space = ROBOTS[family.name], family.action_space
    low, high = float(space.low.min()), float(space.high.max())
    return (
        f"{shape}: positions of the joints but for the first {robot.hidden} (where it is on the ground), "
        f"then all velocities, in the order of Gymnasium's {robot.id}",
        f"float32 [B, {space.shape[0]}]: controls of the motors in the order of {robot.id}; the simulator "
        f"clips them to {low:g} to {high:g}",
    )
