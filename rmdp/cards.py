"""The one-page card that goes with an exported policy."""

import numpy as np

from envs.target_speed import ROBOTS
from rmdp.report import Report

LISTED = 50  # agents up to which a card names each


def card(
    row: dict, report: Report, stored: dict, settings, versions: dict, file: tuple[str, int, str]
) -> str:
    """The card in Markdown; `row` is the policy's row of returns, `file` its name, size and SHA-256."""
    j, (name, size, digest) = row["policy"], file
    config, members = report.config, report.members(row["policy"])
    observation, action = meanings(report.family)
    iterations = stored.get("iteration")
    trained = [
        ("environment", config.environment),
        ("algorithm", f"r-MDP, {config.algorithm}; {config.num_policies} policies for {report.n} agents"),
        ("iterations", "not recorded" if iterations is None else f"{iterations:,}"),
    ]
    if iterations is not None:
        steps = iterations * config.steps_per_policy
        trained.append(("environment steps", f"{steps:,} of this policy, {steps * report.k:,} of all"))
    trained += [
        ("data", "its own steps in the simulator; no recorded data of anybody"),
        ("seed", config.seed),
        ("run", config.model_name),
        ("versions at export", ", ".join(f"{package} {number}" for package, number in versions.items())),
    ]
    parts = [
        f"# Policy {j} of {report.k}: {config.environment}",
        "## Whom it serves",
        bullets(
            [("agents", f"{len(members)} of {report.n} (index.json lists who)"), *wants(report, members)]
        ),
        "## What it gives them",
        bullets(measured(row, report, members, settings)),
        "## Input and output",
        f'`torch.jit.load("{name}")(observation)` in Python, or LibTorch in C++; nothing else is needed.',
        bullets([("observation", observation), ("action", action)]),
        "## How it was trained",
        bullets(trained),
        "## File",
        bullets([("name", f"`{name}`, {size:,} bytes, TorchScript"), ("SHA-256", f"`{digest}`")]),
    ]
    return "\n\n".join(parts) + "\n"


def bullets(pairs) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in pairs)


def wants(report: Report, members: np.ndarray) -> list[tuple[str, str]]:
    """What the served agents want: each of a few, or the range of many."""
    lines = []
    for name, values in report.agents.items():
        served = values[members]
        if 0 < len(served) <= LISTED:
            each = [f"{value:.4g} (agent {i})" for i, value in zip(members, served, strict=True)]
            lines.append((name, ", ".join(each)))
        elif len(served):
            lines.append((name, f"{served.min():.4g} to {served.max():.4g}, mean {served.mean():.4g}"))
    return lines


def measured(row: dict, report: Report, members: np.ndarray, settings) -> list[tuple[str, str]]:
    """Returns on fresh episodes."""
    unit = " (times 100)" if report.scale != 1 else ""
    most = f"{report.scale * report.family.max_return:.4g}"
    if row["mean"] is None:
        return [("return", "not measured: it serves nobody")]
    error = "" if row["se"] is None else f" ± {row['se']:.2f} (standard error over episodes)"
    worst = members[report.own[members].argmin()]
    who = ", ".join(f"{name} {values[worst]:.4g}" for name, values in report.agents.items())
    return [
        (f"return of an agent in an episode{unit}", f"{row['mean']:.2f}{error}; at most {most} is possible"),
        ("worst agent it serves", f"agent {worst} ({who}) with {row['worst']:.2f}"),
        ("measured on", f"{settings.episodes} fresh episodes, seed {settings.seed}, no exploration"),
    ]


def meanings(family) -> tuple[str, str]:
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
