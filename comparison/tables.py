"""The figures of a comparison as CSV, JSON, Markdown and plain text."""

import csv
import dataclasses
import io
import json

import numpy as np

ORDER = ("single", "rmdp", "caml", "rl2", "persim", "per_agent")
TITLES = {
    "single": "one policy for all",
    "rmdp": "r-MDP",
    "caml": "CAML",
    "rl2": "RL²",
    "persim": "PerSim",
    "per_agent": "one policy each",
}
FIGURES = ("mean", "worst_decile", "train_steps", "new_agent_steps", "policies", "seconds")


def title(name: str) -> str:
    """How a method is called in text; a further budget of r-MDP has its k."""
    return TITLES.get(name) or f"r-MDP, {name.removeprefix('rmdp_k')} policies"


def place(row: dict):
    """Rows by method, budgets of r-MDP by size."""
    name = row["name"]
    return (ORDER.index(name), 0) if name in ORDER else (ORDER.index("rmdp"), 1 + row["policies"])


def rows_of(results: list[dict]) -> list[dict]:
    """A row for each method: means over seeds of all figures, `se_mean` and `se_worst_decile`."""
    names = list(dict.fromkeys(r["name"] for r in results))
    rows = []
    for name in names:
        own = [r for r in results if r["name"] == name]
        row = {"name": name, "method": title(name), "seeds": len(own)}
        row |= {figure: float(np.mean([r[figure] for r in own])) for figure in FIGURES}
        for figure in ("mean", "worst_decile"):
            values = [r[figure] for r in own]
            spread = float(np.std(values, ddof=1) / np.sqrt(len(own))) if len(own) > 1 else None
            row[f"se_{figure}"] = spread
        rows.append(row)
    return sorted(rows, key=place)


def whole(value: float) -> str:
    """A large number with commas."""
    return f"{value:,.0f}"


def with_error(value: float, error: float | None) -> str:
    return f"{value:.1f}" if error is None else f"{value:.1f} ± {error:.1f}"


def cost(row: dict) -> list[str]:
    """What a method costs, as text."""
    policies = "a planner" if row["policies"] == 0 else whole(row["policies"])
    steps = [whole(row["train_steps"]), whole(row["new_agent_steps"])]
    return [*steps, policies, whole(row["seconds"]) if row["seconds"] >= 1 else f"{row['seconds']:.1f}"]


HEADER = [
    "method",
    "mean agent",
    "worst tenth",
    "steps in training",
    "steps per new agent",
    "policies to keep",
]
HEADER += ["seconds of compute"]


def texts(rows: list[dict]) -> list[list[str]]:
    """The table's lines."""
    most = max((row["seeds"] for row in rows), default=0)
    return [
        [
            row["method"] + (f" ({row['seeds']} of {most} seeds)" if row["seeds"] < most else ""),
            with_error(row["mean"], row["se_mean"]),
            with_error(row["worst_decile"], row["se_worst_decile"]),
            *cost(row),
        ]
        for row in rows
    ]


def plain(rows: list[dict]) -> str:
    """The table for a terminal."""
    lines = [HEADER, *texts(rows)]
    widths = [max(len(line[c]) for line in lines) for c in range(len(HEADER))]
    made = [
        [line[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    return "\n".join("  ".join(line) for line in made)


def markdown(people, settings, rows: list[dict], name: str) -> str:
    """The page beside the report NAME.html and the picture NAME.png."""
    seeds = max(row["seeds"] for row in rows) if rows else 0
    table = ["| " + " | ".join(HEADER) + " |", "|---|" + "---|" * (len(HEADER) - 1)]
    table += ["| " + " | ".join(line) + " |" for line in texts(rows)]
    return "\n".join(
        [
            f"# {len(rows)} methods on {people.n} agents of {people.environment}",
            "",
            f"Means over {seeds} {'seed' if seeds == 1 else 'seeds'}, with their standard error. Each "
            f"agent is tested in {settings.episodes} episodes (PerSim in {settings.planned}) that start the "
            f"same for all methods, without exploration. [{name}.html]({name}.html) has figures of each "
            "agent and their data; it is one file that opens in any browser, without a network.",
            "",
            f"![The mean agent, the worst tenth, and returns by the steps of a new agent]({name}.png)",
            "",
            *table,
            "",
            *(f"- {line}" for line in explanations(people)),
            "",
            "```bash",
            *commands(people, settings),
            "```",
            "",
        ]
    )


def explanations(people) -> list[str]:
    """What the columns mean."""
    return [
        "*mean agent* is the mean return of an episode over all agents, and *worst tenth* the mean over the "
        "tenth of the agents with the lowest returns.",
        "*steps in training* are environment steps of all agents together, those in which policies are tried "
        "on agents included. PerSim's are those of its logs; the training of the policies that acted there "
        "is not counted.",
        "*steps per new agent* are the steps that a method needs with a new agent to reach the table's "
        "return: r-MDP tries each policy once, CAML tries its starts and makes one update, RL² plays the "
        "first episodes of a meta-episode, PerSim needs one logged trajectory, one policy for all needs "
        "none, and one policy each needs all of an agent's training.",
        "*policies to keep* are those that have to be stored, checked and maintained.",
        "*seconds of compute* are processor time of one core, for training and testing together.",
    ]


SEEDS_TRIED = 10


def commands(people, settings) -> list[str]:
    """The commands that make it again: that of the population, if it was drawn, and the comparison."""
    made = []
    for seed in range(SEEDS_TRIED):
        drawn = people.family.sample(np.random.default_rng(seed), people.n)
        if all(np.array_equal(drawn.get(name), values) for name, values in people.parameters.items()):
            agents = f"--num_agents {people.n} --seed {seed} --out {settings.population}"
            made = [f"python -m envs.populate {people.environment} {agents}"]
            break
    return [*made, command(settings)]


def command(settings) -> str:
    """The command that made it, settings at their defaults left out."""
    given = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value != field.default:
            given.append(f"--{field.name} {value}")
    return "mpirun -np 2 python -m evaluate compare " + " ".join(given)


def as_csv(rows: list[dict]) -> str:
    """All figures of all methods."""
    names = ["name", "method", "seeds", *FIGURES, "se_mean", "se_worst_decile"]
    return to_csv(names, ([row[name] for name in names] for row in rows))


def agents_csv(people, results: list[dict]) -> str:
    """A row for each method, seed and agent: its parameters, its group and its return."""
    numbers = scalars(people)
    names = ["name", "seed", "agent", *numbers, "group", "return"]
    lines = []
    for result in results:
        for i, value in enumerate(result["returns"]):
            group = "" if result["groups"] is None else result["groups"][i]
            wants = [values[i] for values in numbers.values()]
            lines.append([result["name"], result["seed"], i, *wants, group, value])
    return to_csv(names, lines)


def scalars(people) -> dict[str, np.ndarray]:
    """Parameters that are one number an agent; parts of arrays have names with their place."""
    found = {}
    for name, values in people.parameters.items():
        flat = values.reshape(len(values), -1)
        names = [name] if values.ndim == 1 else [f"{name}.{c}" for c in range(flat.shape[1])]
        found |= dict(zip(names, flat.T.tolist(), strict=True))
    return found


def as_json(people, settings, results: list[dict], rows: list[dict]) -> str:
    """Everything: the settings, the table, and each cell's result."""
    content = {"settings": dataclasses.asdict(settings), "environment": people.environment}
    content |= {"agents": people.n, "rows": rows, "cells": results}
    return json.dumps(content, indent=1) + "\n"


def to_csv(names, lines) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(lines)
    return text.getvalue()
