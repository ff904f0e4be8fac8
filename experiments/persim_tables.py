"""Tables of PerSim by agent, from the evaluations of many runs:

    python -m experiments.persim_tables RUNS OUT

RUNS is the folder of a sweep's runs, each with its evaluation.json. Writes agents.csv (a row for each run,
method, metric and agent) and agents.md (mean ± standard deviation over the runs, which differ in their seed).
"""

import json
import sys
from pathlib import Path

import numpy as np

from common.config import OUTPUT_FOLDER, check_output
from common.errors import UserError
from common.evaluation import Row, as_csv, as_markdown
from common.runs.files import write_atomic
from mpi_utils.comm import guard

COLUMNS = ("environment", "dataset", "method", "metric", "agent")
TITLES = {
    "median_r2": "Median R² of 50 steps ahead",
    "rmse": "RMSE of 50 steps ahead",
    "return": "Return of planning",
    "factor_correlation": "Rank correlation of covariates with what is read off the factors",
    "unseen_median_r2": "Median R² of agents that are in no data",
}
ORDER = ("persim", "pooled", "mean", "upper_bound", "true_model", "from_covariates", "from_steps")
OLD_METHODS = {"ceiling": "upper_bound"}


def main(comm) -> None:
    """Read all evaluations of RUNS and write both files into OUT."""
    with comm.agree():
        if len(sys.argv) != 3:
            raise UserError("give a folder of runs and a folder for the tables: persim_tables RUNS OUT")
        if comm.is_root:
            runs, out = map(Path, sys.argv[1:])
            check_output(str(out), str(out), OUTPUT_FOLDER)
            found = read(runs)
            out.mkdir(parents=True, exist_ok=True)
            columns = [*COLUMNS, "num_agents", "seed", "mean"]
            write_atomic(out / "agents.csv", as_csv(found, columns, digits=6).encode())
            write_atomic(out / "agents.md", tables(found).encode())


def read(runs: Path) -> list[Row]:
    """Rows about one agent or one covariate, each with the run's settings."""
    found = []
    for path in sorted(runs.glob("*/evaluation.json")):
        report = json.loads(path.read_text())
        config = report["config"]
        for row in report["rows"]:
            if config["pooled"] and row["method"] != "pooled":
                continue  # its upper bound is that of its own first step
            about = row.get("agent") or row.get("covariate") or ("all" if "lowest" in row else None)
            if about and row["metric"] in TITLES and row["mean"] is not None:
                run = {name: config[name] for name in ("environment", "num_agents", "seed")}
                own = {name: row[name] for name in ("dataset", "metric", "mean")}
                method = OLD_METHODS.get(row["method"], row["method"])
                found.append({**run, **own, "method": method, "agent": about})
    if not found:
        raise UserError(f"{runs}: holds no evaluation of a PerSim run; evaluate some first")
    return found


def tables(found: list[Row]) -> str:
    """One table for each metric and environment: datasets and methods down, agents across."""
    text = ""
    for metric, title in TITLES.items():
        for environment in dict.fromkeys(row["environment"] for row in found if row["metric"] == metric):
            rows = [row for row in found if (row["metric"], row["environment"]) == (metric, environment)]
            values: dict[tuple, dict[str, list[float]]] = {}
            for row in rows:
                own = values.setdefault((row["dataset"], row["method"], row["num_agents"]), {})
                own.setdefault(row["agent"], []).append(row["mean"])
            agents = list(dict.fromkeys(row["agent"] for row in rows))
            order = sorted(values, key=lambda key: (key[0], ORDER.index(key[1]), -key[2]))
            lines = [[*key, *(entry(values[key].get(agent, [])) for agent in agents)] for key in order]
            table = as_markdown(["data", "method", "agents", *agents], lines)
            text += f"### {title}: {environment}\n\n{table}\n"
    return f"{text}Mean ± standard deviation over seeds.\n"


def entry(values: list[float]) -> str:
    """Mean ± standard deviation."""
    if not values:
        return "-"
    spread = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
    return f"{np.mean(values):.4g}{spread}"


if __name__ == "__main__":
    guard(main)
