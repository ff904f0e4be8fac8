"""The figures of a comparison as CSV, JSON, Markdown and plain text."""

import dataclasses
import json
import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np

from common.evaluation import Row, as_csv, as_markdown, lines_as_csv, standard_error
from comparison.config import Settings, budget_of
from envs import Problem
from experiments.grid import Result

ORDER = ("single", "per_group", "rmdp", "caml", "rl2", "persim", "per_agent")
TITLES = {
    "single": "one policy for all",
    "per_group": "one policy per group",
    "rmdp": "r-MDP",
    "caml": "CAML",
    "rl2": "RL²",
    "persim": "PerSim",
    "per_agent": "one policy each",
}
EXPLANATIONS = (  # of the columns
    "*mean agent* is the mean return of an episode over all agents, and *worst tenth* the mean over the "
    "tenth of the agents with the lowest returns.",
    "*steps in training* are environment steps of all agents together, those in which policies are tried "
    "on agents included. PerSim's are those of its logs, and of the training of a policy that acts there if "
    "it is trained for them.",
    "*steps per new agent* are the steps that a method needs with a new agent to reach the table's "
    "return: r-MDP tries each policy once, CAML tries its starts and makes one update, RL² plays the "
    "first episodes of a meta-episode, PerSim needs one logged trajectory, one policy for all needs "
    "none, nor does one per group, and one policy each needs all of an agent's training.",
    "*policies to keep* are those that have to be stored, checked and maintained.",
    "*seconds of compute* are processor time of one core, for training and testing together.",
)
REPORTED = "What the environment reports of an episode at its end, as means over episodes and agents:"
SOONER = 0.9  # of the budget: a method that took less is said to be done sooner
FIGURES = ("mean", "worst_decile", "train_steps", "new_agent_steps", "policies", "seconds")


def title(name: str) -> str:
    """How a method is called in text; a further budget of r-MDP has its k."""
    return TITLES.get(name) or f"r-MDP, {name.removeprefix('rmdp_k')} policies"


def place(row: Row) -> tuple[int, float]:
    """Rows by method, budgets of r-MDP by size."""
    name = row["name"]
    return (ORDER.index(name), 0) if name in ORDER else (ORDER.index("rmdp"), 1 + row["policies"])


def rows_of(results: list[Result], steps_per_day: float = 0) -> list[Row]:
    """A row for each method: means over seeds of all figures, `se_mean` and `se_worst_decile`.

    "measures" and "se_measures" {name: value} are what the environment reports.
    """
    rows = []
    for name in dict.fromkeys(result["name"] for result in results):
        own = [result for result in results if result["name"] == name]
        told = [result.get("measures", {}) for result in own]
        each = {name: [some[name] for some in told] for name in told[0] if all(name in some for some in told)}
        rows.append(
            {
                "name": name,
                "method": title(name),
                "seeds": len(own),
                **{figure: float(np.mean([result[figure] for result in own])) for figure in FIGURES},
                "se_mean": standard_error([result["mean"] for result in own]),
                "se_worst_decile": standard_error([result["worst_decile"] for result in own]),
                "measures": {name: float(np.mean(values)) for name, values in each.items()},
                "se_measures": {name: standard_error(values) for name, values in each.items()},
            }
        )
        if steps_per_day:
            rows[-1]["new_agent_days"] = rows[-1]["new_agent_steps"] / steps_per_day
    return sorted(rows, key=place)


def note_of(problem: Problem) -> str:
    """A sentence that the environment wants beside its numbers, or ""."""
    return getattr(problem.family, "note", "")


def heading(problem: Problem, rows: list[Row]) -> str:
    """What is compared; further budgets of r-MDP are no further methods."""
    num = len({row["name"].partition("_k")[0] for row in rows})
    return f"{num} method{'s' * (num != 1)} on {problem.num_agents} agents of {problem.environment}"


def budget_line(problem: Problem, settings: Settings, rows: list[Row]) -> str:
    """How long the methods may train, and which are done sooner."""
    budget = budget_of(settings, problem.environment)
    if budget is None:
        return "Each method trains as long as its own recipe says, so the steps of training differ."
    line = f"Each method may train for {whole(budget)} environment steps, all agents together."
    sooner = [row for row in rows if row["train_steps"] < SOONER * budget]
    why = {"persim": "one logged episode of each agent is all that it learns from"}
    usual = "its next iteration might not have fitted"
    done = [f"{r['method']} after {whole(r['train_steps'])} ({why.get(r['name'], usual)})" for r in sooner]
    return f"{line} Done sooner: {'; '.join(done)}." if done else line


def whole(value: float) -> str:
    """A large number with commas."""
    return f"{value:,.0f}"


def with_error(value: float, error: float | None) -> str:
    """A mean with its standard error."""
    return f"{value:.1f}" if error is None else f"{value:.1f} ± {error:.1f}"


def cost(row: Row) -> list[str]:
    """What a method costs, as text."""
    policies = "a planner" if row["policies"] == 0 else whole(row["policies"])
    steps = [whole(row["train_steps"]), whole(row["new_agent_steps"])]
    steps += [f"{row['new_agent_days']:,.1f}"] if "new_agent_days" in row else []
    return [*steps, policies, whole(row["seconds"]) if row["seconds"] >= 1 else f"{row['seconds']:.1f}"]


def header(rows: list[Row]) -> list[str]:
    """The table's columns."""
    days = ["days per new agent"] if any("new_agent_days" in row for row in rows) else []
    steps = ["steps in training", "steps per new agent", *days]
    return ["method", "mean agent", "worst tenth", *steps, "policies to keep", "seconds of compute"]


def texts(rows: list[Row]) -> list[list[str]]:
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


def measured(rows: list[Row]) -> list[list[str]]:
    """Header and lines of what the environment reports; none if it reports nothing."""
    names = list(dict.fromkeys(name for row in rows for name in row["measures"]))
    lines = [["method", *names]] if names else []
    for row in rows if names else ():
        cells = [
            with_error(row["measures"][name], row["se_measures"][name]) if name in row["measures"] else ""
            for name in names
        ]
        lines.append([row["method"], *cells])
    return lines


def plain(rows: list[Row]) -> str:
    """The tables for a terminal."""
    found = [aligned([header(rows), *texts(rows)])]
    if lines := measured(rows):
        found += [REPORTED, aligned(lines)]
    return "\n".join(found)


def aligned(lines: list[list[str]]) -> str:
    """Lines of cells in columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    made = [
        [line[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    return "\n".join("  ".join(line) for line in made)


def markdown(
    problem: Problem, settings: Settings, rows: list[Row], name: str, conclusions: Sequence[str] = ()
) -> str:
    """The page beside the report NAME.html and the picture NAME.png."""
    seeds = max(row["seeds"] for row in rows) if rows else 0
    note, lines = note_of(problem), measured(rows)
    return "\n".join(
        [
            f"# {heading(problem, rows)}",
            "",
            *([f"*{note}*", ""] if note else []),
            f"{budget_line(problem, settings, rows)} Means over {seeds} "
            f"{'seed' if seeds == 1 else 'seeds'}, with their standard error. Each agent is tested in "
            f"{settings.episodes} episodes (PerSim in {settings.planned}) that start the "
            f"same for all methods, without exploration. [{name}.html]({name}.html) has figures of each "
            "agent and their data; it is one file that opens in any browser, without a network.",
            "",
            "![The mean agent and the worst tenth; returns by the steps of training, and of a new agent]"
            f"({name}.png)",
            "",
            *(f"{line}\n" for line in conclusions),
            as_markdown(header(rows), texts(rows)),
            *([REPORTED, "", as_markdown(lines[0], lines[1:])] if lines else []),
            *(f"- {line}" for line in EXPLANATIONS),
            "",
            "```bash",
            *commands(problem, settings),
            "```",
            "",
        ]
    )


SEEDS_TRIED = 10


def commands(problem: Problem, settings: Settings) -> list[str]:
    """The commands that make it again: that of the population, if it was drawn, and the comparison."""
    made = []
    for seed in range(SEEDS_TRIED):
        drawn = problem.family.sample(np.random.default_rng(seed), problem.num_agents)
        if all(np.array_equal(drawn.get(name), values) for name, values in problem.rows(slice(None)).items()):
            agents = f"--num_agents {problem.num_agents} --seed {seed} --out {settings.population}"
            made = [f"python -m envs.populate {problem.environment} {agents}"]
            break
    return [*made, command(settings)]


def command(settings: Settings) -> str:
    """The command that made it, settings at their defaults left out."""
    given = []
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value != field.default:
            given.append(f"--{field.name} {shlex.quote(str(value))}")
    return "mpirun -np 2 python -m evaluate compare " + " ".join(given)


def method_csv(rows: list[Row]) -> str:
    """All figures of all methods."""
    columns = ["name", "method", "seeds", *FIGURES, "se_mean", "se_worst_decile"]
    columns += ["new_agent_days"] if any("new_agent_days" in row for row in rows) else []
    names = list(dict.fromkeys(name for row in rows for name in row["measures"]))
    errors = [{f"se_{name}": value for name, value in row["se_measures"].items()} for row in rows]
    flat = [row["measures"] | error | row for row, error in zip(rows, errors, strict=True)]
    return as_csv(flat, columns + names + [f"se_{name}" for name in names])


def agents_csv(problem: Problem, results: list[Result]) -> str:
    """A row for each method, seed and agent: its parameters, the policy or start it has, and its return."""
    numbers = scalars(problem)
    names = ["name", "seed", "agent", *numbers, "policy", "return"]
    lines = []
    for result in results:
        for i, value in enumerate(result["returns"]):
            policy = "" if result["groups"] is None else result["groups"][i]
            own = [values[i] for values in numbers.values()]
            lines.append([result["name"], result["seed"], i, *own, policy, value])
    return lines_as_csv(names, lines)


def scalars(problem: Problem) -> dict[str, list[Any]]:
    """Parameters that are one number an agent; parts of arrays have names with their place."""
    found: dict[str, list[Any]] = {}
    for name, values in problem.rows(slice(None)).items():
        flat = values.reshape(len(values), -1)
        names = [name] if values.ndim == 1 else [f"{name}.{c}" for c in range(flat.shape[1])]
        found |= dict(zip(names, flat.T.tolist(), strict=True))
    return found


def as_json(
    problem: Problem, settings: Settings, results: list[Result], rows: list[Row], conclusions: Sequence[str]
) -> str:
    """Everything: the settings, the table, what it shows, and each experiment's result."""
    content = {
        "settings": dataclasses.asdict(settings),
        "environment": problem.environment,
        "note": note_of(problem),
        "agents": problem.num_agents,
        "budget": budget_of(settings, problem.environment),
        "rows": rows,
        "conclusions": list(conclusions),
        "experiments": results,
    }
    return json.dumps(content, indent=1) + "\n"
