"""The report: one HTML file that needs no network, for readers who know nothing of the code."""

import base64
import json
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import numpy as np

from common.evaluation import Row
from comparison.config import Settings
from comparison.figures import COLOURS, Figure, all_figures
from comparison.problem import GROUP
from comparison.tables import (
    EXPLANATIONS,
    REPORTED,
    budget_line,
    commands,
    cost,
    header,
    heading,
    measured,
    note_of,
    texts,
    title,
    whole,
    with_error,
)
from envs import Problem
from experiments.grid import Result

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1c1c1c;
  background: #fafafa; }
main { max-width: 1240px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .4em 0; } h2 { font-size: 1.2rem; margin: 1.8em 0 .4em; }
h3 { font-size: 1.02rem; margin: 0 0 .3em; } p { max-width: 46em; margin: .5em 0; }
.lead { font-size: 1.08rem; }
.scroll { overflow-x: auto; border: 1px solid #ddd; border-radius: 6px; background: #fff; }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: 6px 10px; text-align: right; border-bottom: 1px solid #eee; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.wide th:first-child, .wide td:first-child { position: sticky; left: 0; background: #fff; }
th { font-weight: 600; white-space: normal; vertical-align: bottom; }
.cards { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
.figures { display: flex; flex-wrap: wrap; gap: 18px; align-items: flex-start; }
.figures > div { flex: 1 1 480px; min-width: 0; display: grid; gap: 18px; }
.card, figure { background: #fff; border: 1px solid #ddd; border-radius: 6px; padding: 12px 14px; margin: 0;
  min-width: 0; }
.card p { font-size: .95rem; }
figure img { display: block; width: 100%; height: auto; }
figcaption { font-size: .92rem; }
details { margin-top: .5em; font-size: .88rem; } summary { cursor: pointer; color: #0b57a4; }
details .scroll { max-height: 320px; overflow: auto; margin-top: .4em; }
details table { font-size: .8rem; } details th, details td { padding: 3px 8px; }
pre { overflow-x: auto; background: #fff; border: 1px solid #ddd; border-radius: 6px; padding: 10px;
  font-size: .85rem; white-space: pre-wrap; overflow-wrap: anywhere; }
pre span { display: inline-block; max-width: 100%; }
@media (max-width: 600px) { .wide table { font-size: .8rem; } .wide th, .wide td { padding: 5px 6px; } }
a { color: #0b57a4; }
"""
EXPLORER_STYLE = """
.wide th { cursor: pointer; } th[aria-sort=descending]::after { content: " ▾"; }
th[aria-sort=ascending]::after { content: " ▴"; }
#explore { background: #fff; border: 1px solid #ddd; border-radius: 6px; padding: 12px 14px; }
#explore .choices { max-width: none; display: flex; flex-wrap: wrap; gap: 4px 18px; }
#explore .choices span { display: inline-block; width: .8em; height: .8em; border-radius: 50%;
  margin: 0 .35em; }
#explore .told { max-width: none; min-height: 3.1em; }
#explore .plots { display: grid; gap: 12px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
#explore svg { width: 100%; height: auto; } #explore svg text { font-size: 12px; fill: #444; }
#explore .grid { stroke: #e5e5e5; } #explore circle { opacity: .75; cursor: pointer; }
#explore circle.hot { opacity: 1; stroke: #000; stroke-width: 2; }
#explore .worst { padding-left: 1.2em; }
#explore button { font: inherit; font-size: .85rem; padding: 0 .4em; }
"""
EXPLORER = files("comparison") / "explore.js"

NAMED = 8  # parameters
TEXT_HEIGHT = 0.25  # of what is above and below a picture, in its widths
METHODS = {
    "single": "One policy is trained on all agents at once and used for all. It does not know which agent "
    "it acts for.",
    "per_group": "The population says which group each agent is of, and a policy is trained on each group. A "
    "new agent gets the policy of its group. What agents of one group need may differ all the same.",
    "rmdp": "A budget of a few policies. Each agent is assigned to the policy with the highest return for "
    "it, and each policy is trained on its agents. A new agent tries each policy for one episode and keeps "
    "the best.",
    "caml": "A few policies, clustered by what they do, are kept as starting points. A new agent chooses one "
    "by some episodes, and that one is then adapted to it. Half of the agents are used in training; all are "
    "tested.",
    "rl2": "One policy with a memory is trained on many agents. It adapts to a new one by remembering what "
    "happened in the first episodes; its weights stay fixed.",
    "persim": "One episode of each agent is logged under another policy. From these logs a simulator of each "
    "agent is learnt, and a planner looks ahead in it at every step. No policy is trained.",
    "per_agent": "A policy is trained for each agent alone, from new weights. It is the reference for what "
    "personalisation can reach, and for its cost without sharing.",
}


def html(
    problem: Problem, settings: Settings, results: list[Result], rows: list[Row], conclusions: Sequence[str]
) -> str:
    """The whole page."""
    name, note, told = heading(problem, rows), note_of(problem), measured(rows)
    parts = [
        f"<h1>{escape(name)}</h1>",
        f"<p><em>{escape(note)}</em></p>" if note else "",
        f'<p class="lead">{escape(what_was_run(problem, settings, rows))}</p>',
        "<h2>In short</h2>",
        *(f"<p>{escape(line)}</p>" for line in conclusions),
        "<h2>In numbers</h2>",
        table(header(rows), texts(rows), "wide"),
        f"<p>{REPORTED}</p>{table(told[0], told[1:], 'wide')}" if told else "",
        "<details><summary>What the columns mean</summary>",
        *(f"<p>{emphasised(line)}</p>" for line in EXPLANATIONS),
        "</details>",
        "<h2>What each method does</h2>",
        f'<div class="cards">{"".join(card(row, problem) for row in rows if row["name"] in METHODS)}</div>',
        *explorer(),
        "<h2>Figures</h2>",
        f'<div class="figures">{in_columns(all_figures(problem, results, rows))}</div>',
        "<h2>How to reproduce it</h2>",
        f"<pre>{unbroken(chr(10).join(commands(problem, settings)))}</pre>",
    ]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(name)}</title>",
            '<link rel="icon" href="data:,">',
            f"<style>{STYLE}{EXPLORER_STYLE}</style></head><body><main>",
            *parts,
            f"</main><script>\n{EXPLORER.read_text()}</script></body></html>",
            "",
        ]
    )


def explorer() -> list[str]:
    """Where a reader follows single agents through plots that answer; its data are those of the figures."""
    text = (
        "Point at an agent to see it in every plot, click to keep it. Choose methods; click on a column of a "
        "table above to sort it. Returns are means over seeds."
    )
    colours = escape(json.dumps({title(name): colour for name, colour in COLOURS.items()}))
    return ["<h2>Agent by agent</h2>", f"<p>{text}</p>", f'<div id="explore" data-colours="{colours}"></div>']


def what_was_run(problem: Problem, settings: Settings, rows: list[Row]) -> str:
    """A paragraph for whoever opens the page first."""
    seeds = max((row["seeds"] for row in rows), default=0)
    varied = list(problem.rows(slice(None)))
    others = f" and {len(varied) - NAMED} more parameters" if len(varied) > NAMED + 1 else ""
    named = ", ".join(varied[:NAMED] if others else varied) + others
    told = any(row["name"] == "per_group" for row in rows)
    known = f", but for “{GROUP}” in one policy per group" if told else ""
    return (
        f"The population has {problem.num_agents} agents of “{problem.environment}”. They differ in "
        f"{named}, which no method is given{known}. Each method was trained "
        f"{'once' if seeds == 1 else f'{seeds} times'} on the same agents and then tested on all of them, in "
        f"{settings.episodes} episodes of at most {problem.horizon} steps (PerSim in {settings.planned}). "
        f"{budget_line(problem, settings, rows)} "
        "Episodes start the same for all methods, and no method "
        "explores in the test. Every step in an agent's environment is counted."
    )


def card(row: Row, problem: Problem) -> str:
    """The returns and the cost of a method, in words."""
    policies = int(row["policies"])
    kept = (
        "a planner and the simulators, no policy"
        if not policies
        else f"{policies} polic{'y' if policies == 1 else 'ies'}"
    )
    new = row["new_agent_steps"]
    needs = "no steps" if new < 1 else f"{whole(new)} steps first"
    sentence = (
        f"The mean agent returns {with_error(row['mean'], row['se_mean'])}, the worst tenth "
        f"{with_error(row['worst_decile'], row['se_worst_decile'])}. Training took "
        f"{whole(row['train_steps'])} steps ({whole(row['train_steps'] / problem.num_agents)} an agent) and "
        f"{cost(row)[-1]} seconds of one core; a new agent needs {needs}. To be kept: {kept}."
    )
    paragraphs = f"<p>{METHODS[row['name']]}</p><p>{escape(sentence)}</p>"
    return f'<div class="card"><h3>{escape(row["method"])}</h3>{paragraphs}</div>'


def in_columns(figures: list[Figure]) -> str:
    """The figures in two columns of about the same height, side by side where there is room."""
    heights = np.cumsum([height(figure) for figure in figures])
    half = int(np.abs(2 * heights - heights[-1]).argmin()) + 1
    return "".join(f"<div>{''.join(map(drawn, some))}</div>" for some in (figures[:half], figures[half:]))


def height(figure: Figure) -> float:
    """Of a picture with its text, in widths of the picture."""
    size = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', figure.svg)
    return TEXT_HEIGHT + (float(size[2]) / float(size[1]) if size else 1.0)


def drawn(figure: Figure) -> str:
    """A picture with its words and its data."""
    image = base64.b64encode(figure.svg).decode()
    link = "data:text/csv;charset=utf-8," + quote(figure.csv)
    lines = [[short(value) for value in line] for line in figure.lines]
    return (
        f"<figure><h3>{escape(figure.heading)}</h3>"
        f'<img alt="{escape(figure.heading)}: {escape(figure.text)}" src="data:image/svg+xml;base64,{image}">'
        f"<figcaption>{escape(figure.text)}"
        f"<details><summary>The data behind it ({len(lines)} rows)</summary>"
        f'<p><a download="{figure.name}.csv" href="{link}">as CSV</a></p>'
        f"{table(figure.names, lines)}</details>"
        "</figcaption></figure>"
    )


def short(value: Any) -> str:
    """A cell of a table of data."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else whole(value)
    return str(value)


def table(header: list[str], lines: list[list[str]], kind: str = "") -> str:
    """A table in a box that scrolls by itself where it is too wide."""
    head = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(t))}</td>" for t in line) + "</tr>" for line in lines)
    inside = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll {kind}" tabindex="0">{inside}</div>'


def unbroken(text: str) -> str:
    """Text whose words are broken between lines only where they are too long for one."""
    return re.sub(r"\S+", r"<span>\g<0></span>", escape(text))


def emphasised(line: str) -> str:
    """Text whose words between stars are emphasised."""
    pieces = escape(line).split("*")
    return "".join(f"<em>{piece}</em>" if i % 2 else piece for i, piece in enumerate(pieces))
