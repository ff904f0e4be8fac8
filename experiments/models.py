"""The table of shipped models, made by evaluating each of them anew:

    python -m experiments.models --out results/models.md [--only NAME ...]

With --only, the other lines of a table that is there stay.
Each model is evaluated by its system's protocol, in fewer episodes and without baselines that are trained
first. The training command has every setting that differs from its default; steps and minutes are those of
its own curve.csv.
"""

import argparse
import csv
import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import caml.evaluation
import persim.evaluation
import rl2.evaluation
import rmdp.evaluation
from common.config import OUTPUT_FILE, check_output, from_stored, idle
from common.evaluation import Row, as_markdown
from common.runs import checkpoint
from common.shipped import EXAMPLES, shipped
from mpi_utils.comm import Comm, guard
from train import SYSTEMS

EVALUATIONS: dict[str, Any] = {
    "rl2": rl2.evaluation,
    "rmdp": rmdp.evaluation,
    "persim": persim.evaluation,
    "caml": caml.evaluation,
}
SHORT = {  # flags of `evaluate`, in the order of their systems
    "rl2": ["--baselines", "none"],
    "rmdp": ["--baselines", "none", "--episodes", "5"],
    "persim": ["--episodes", "5", "--trajectories", "50", "--unseen", "0"],
    "caml": ["--baselines", "none", "--study", "False", "--updates", "1"],
}
PLACES = {"model_name", "checkpoint_dir", "checkpoint_interval", "device"}  # they shape no result
PAPER = {  # RL² in tables 1 and 2 of Duan et al. 2016
    "bandit_n10_k5": "paper 6.7",
    "bandit_n100_k5": "paper 78.7",
    "bandit_n100_k50": "paper 84.9",
    "bandit_n500_k50": "paper 438.9",
    "mdp_n10": "paper 156.2",
    "mdp_n10_warm": "paper 156.2",
    "mdp_n10_bonus": "paper 156.2",
    "mdp_n25": "paper 445.7",
}


def training_command(stored: dict[str, Any]) -> str:
    """The command that trains such a run, with the settings that differ from their defaults."""
    config: Any = from_stored(SYSTEMS[stored["system"]].config, stored)
    defaults = getattr(type(config), "defaults", None)
    usual = defaults({"environment": config.environment}) if defaults else type(config)()
    words = ["python", "-m", "train", stored["system"]]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        said = value is not None and value != getattr(usual, field.name)
        if said and field.name not in PLACES | idle(config).keys():
            words += [f"--{field.name}", *map(str, value if isinstance(value, tuple | list) else [value])]
    if "--environment" not in words and config.environment != type(config)().environment:
        words += ["--environment", config.environment]
    return shlex.join(words)


def effort(run: Path) -> tuple[str, str]:
    """Million environment steps and minutes of training, from the last row of the learning curve."""
    with open(run / "curve.csv") as file:
        *_, last = csv.DictReader(file)
    steps, minutes = float(last["env_steps"]) / 1e6, float(last["minutes"])
    return f"{steps:.1f}" if steps else "none, from logs", f"{minutes:.1f}" if minutes else "–"


def score(name: str, system: str, rows: list[Row]) -> tuple[str, str]:
    """What the model reaches and what stands beside it, with standard errors where there are some."""
    by_metric = {(row["method"], row["metric"]): row for row in reversed(rows)}

    def told(row: Row) -> str:
        error = f" ± {row['se']:.2g}" if row["se"] else ""
        return f"{row['mean']:.4g}{error}"

    if system == "rl2":
        return f"return {told(rows[0])}", PAPER.get(name, "–")
    if system == "rmdp":
        metrics = {row["metric"]: row for row in reversed(rows)}
        bound = metrics.get("upper_bound")
        return f"welfare {told(metrics['social_welfare'])}", f"upper bound {told(bound)}" if bound else "–"
    if system == "persim":
        returns = {
            m: [r["mean"] for r in rows if r["metric"] == "return" and r["method"] == m] for m, _ in by_metric
        }
        means = {m: sum(values) / len(values) for m, values in returns.items() if values}
        true = means.pop("true_model")
        [(_, own)] = means.items()
        return f"return {own:.4g}", f"planned on the true dynamics {true:.4g}"
    after = [r for r in rows if r["metric"] == "return" and r["agent"] == "all"]
    return f"return after one update {told(after[-1])}", f"before {told(after[0])}"


def main(comm: Comm) -> None:
    """Evaluate the models and write the table."""
    parser = argparse.ArgumentParser("python -m experiments.models")
    parser.add_argument("--out", required=True, help="the table, .md")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the models")
    settings = parser.parse_args()
    with comm.agree():
        if comm.is_root:
            check_output(f"--out {settings.out}", settings.out, OUTPUT_FILE)
    names = settings.only or sorted(path.name for path in shipped(EXAMPLES).iterdir() if path.is_dir())
    lines = {}
    for name in names:
        with comm.agree():
            run = shipped(EXAMPLES) / name
            stored, _, contents = checkpoint.find(run)
            step, state = checkpoint.unpack(contents)
            system = stored["system"]
            evaluation = EVALUATIONS[system]
            flags = evaluation.parse_settings(SHORT[system], show=False)
        rows = evaluation.evaluate({**stored, "iteration": step}, state, flags, comm)
        steps, minutes = effort(run)
        reached, beside = score(name, system, rows)
        command = f"`{training_command(stored)}`"
        lines[name] = [f"`{name}`", stored["environment"], steps, minutes, reached, beside, command]
        if comm.is_root:
            print(*lines[name][:-1], sep=" | ", flush=True)
    if comm.is_root:
        out = Path(settings.out)
        lines = (kept(out) if settings.only else {}) | lines
        write(out, [lines[name] for name in sorted(lines)])


def kept(path: Path) -> dict[str, list[str]]:
    """The lines of a table that is there, by the model's name."""
    text = path.read_text() if path.exists() else ""
    return {m[1]: m[0][2:-2].split(" | ") for m in re.finditer(r"^\| `(\w+)` \|.*\|$", text, re.MULTILINE)}


def write(path: Path, lines: list[list[str]]) -> None:
    """Write the page."""
    header = ["model", "environment", "million steps", "minutes", "score", "beside it", "trained by"]
    flags = "; ".join(f"{system}: `{' '.join(words)}`" for system, words in SHORT.items())
    path.write_text(
        "# Shipped models\n\n"
        "`python -m evaluate checkpoints/examples/NAME` evaluates a model by its method's whole protocol, "
        "and `rl2.load`, `rmdp.load`, `persim.load` or `caml.load` give its actor in Python. Steps and "
        "minutes of training are those of its curve.csv.\n\n"
        f"{as_markdown(header, lines)}\n"
        f"`python -m experiments.models --out {path}` makes this page, by short evaluations: {flags}.\n"
    )


if __name__ == "__main__":
    guard(main)
