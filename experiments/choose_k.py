"""The least number of policies that serve agents who come new: one more at a time, until a certificate holds:

    python -m experiments.choose_k --runs RUNS --table OUT [--share .9 --epsilon .1] -- [flags of train rmdp]

Each number of policies is a run, as `python -m train rmdp` makes it, in a folder of RUNS. Where agents have
dynamics of their own, it begins with the policies of the run before, of which it splits the one whose agents
are worst off. Start the command again, and it goes on. OUT gets the curve as a table and a figure.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import rmdp.evaluation
import train
from common import plots
from common.allocator import keep_freed_memory
from common.config import (
    AT_LEAST_ZERO,
    MAY_BE_EMPTY,
    OUTPUT_FOLDER,
    POSITIVE,
    UNIT_INTERVAL,
    check,
    check_outputs,
    parse_flags,
)
from common.errors import UserError
from common.evaluation import Row, as_markdown
from experiments import tables
from experiments.grid import work_together
from experiments.sweep import training_run
from mpi_utils.comm import Comm, guard, set_threads
from rmdp.config import shared

CURVE = ("social_welfare", "worst_decile", "certified_share", "newcomers_worst_decile")
SET_HERE = ("num_policies", "model_name", "checkpoint_dir", "start_from")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How many policies, and what a certificate must say: `[these flags] -- [flags of train rmdp]`."""

    runs: Annotated[str, OUTPUT_FOLDER] = ""
    """Folder of the run folders."""
    table: Annotated[str, OUTPUT_FOLDER] = ""
    """Folder of table.csv, table.md and curve.png."""
    share: Annotated[float, UNIT_INTERVAL] = 0.9
    """The share of all agents that must be certified to get 1 - epsilon of their own best."""
    certify: Annotated[int, POSITIVE] = 1000
    """Fresh agents of each certificate; those of every number of policies are others."""
    epsilon: Annotated[float, UNIT_INTERVAL] = 0.1
    """What an agent may lack of its own best, as in `evaluate --certify`."""
    trials: Annotated[int, POSITIVE] = 1
    """Episodes in which a fresh agent tries each policy."""
    episodes: Annotated[int, POSITIVE] = 20
    """Episodes in which it is then measured, and those of the agents of training."""
    reference: Annotated[str, MAY_BE_EMPTY] = ""
    """A run whose policies tell a fresh agent's own best, where the environment does not state it."""
    least: Annotated[int, POSITIVE] = 1
    """The number of policies to begin with."""
    most: Annotated[int, POSITIVE] = 20
    """The number of policies to give up at."""
    seed: Annotated[int, AT_LEAST_ZERO] = 0
    """Draws the fresh agents."""


def main(comm: Comm) -> None:
    """Run the command."""
    set_threads(comm)
    keep_freed_memory()
    choose(sys.argv[1:], comm)


def choose(arguments: list[str], comm: Comm) -> int:
    """Train and certify ever more policies until the certificate holds; their number, 0 if it never did."""
    with comm.agree():
        at = arguments.index("--") if "--" in arguments else len(arguments)
        settings = parse_flags(Settings, arguments[:at], "python -m experiments.choose_k", show=comm.is_root)
        flags = arguments[at + 1 :]
        check(settings)
        given = {word.split("=")[0].lstrip("-").replace("-", "_") for word in flags}
        if twice := given & set(SET_HERE):
            raise UserError(f"--{min(twice)}: this command sets it; leave it out behind --")
        if settings.least > settings.most:
            raise UserError(f"--least {settings.least}: is above --most {settings.most}")
        if comm.is_root:
            check_outputs(settings)
    curve: list[Row] = []
    for k in range(settings.least, settings.most + 1):
        rows = certified_run(k, settings, flags, comm)
        curve += [{**row, "num_policies": k} for row in rows if row["metric"] in CURVE]
        bound = next(row["lower_bound"] for row in rows if row["metric"] == "certified_share")
        with comm.agree():
            if comm.is_root:
                print(f"{k} policies: {bound:.1%} of all agents or more are covered", flush=True)
                write(curve, settings)
        if bound >= settings.share:
            if comm.is_root:
                print(f"{k} policies are enough for {settings.share:.0%}", flush=True)
            return k
    if comm.is_root:
        print(f"up to {settings.most} policies are not enough for {settings.share:.0%}", flush=True)
    return 0


def certified_run(k: int, settings: Settings, flags: list[str], comm: Comm) -> list[Row]:
    """The rows of the run with k policies, its certificate among them; a collective."""
    with comm.agree():
        _, config = train.parse_arguments(["rmdp", *flags, *own_flags(k, settings)], comm, may_be_idle=True)
        if k > settings.least and not shared(config):
            config = dataclasses.replace(config, start_from=str(Path(settings.runs) / f"k{k - 1}"))
    protocol = rmdp.evaluation.Settings(
        certify=settings.certify,
        epsilon=settings.epsilon,
        trials=settings.trials,
        reference=settings.reference,
        episodes=settings.episodes,
        baselines="none",
        seed=settings.seed + k,  # agents by which k - 1 was found too small may not certify k
    )
    run = training_run("rmdp", config, protocol, comm)
    work_together([run], comm)
    with comm.agree():
        result = run.result() if comm.is_root else None
        if comm.is_root and result is None:
            raise UserError(f"{run.name}: another process works on it; start this again when it is done")
    return comm.bcast_object(result["rows"] if result else None)


def own_flags(k: int, settings: Settings) -> list[str]:
    """The flags of train that this command sets."""
    return ["--num_policies", str(k), "--model_name", f"k{k}", "--checkpoint_dir", settings.runs]


def write(curve: list[Row], settings: Settings) -> None:
    """Write the curve so far as CSV, Markdown and a figure."""
    out = Path(settings.table)
    out.mkdir(parents=True, exist_ok=True)
    fields = ["num_policies", *tables.ROW, "covered", "lower_bound"]
    tables.write_csv(out / "table.csv", curve, fields)
    by_k: dict[int, dict[str, Any]] = {}
    for row in curve:
        by_k.setdefault(row["num_policies"], {})[row["metric"]] = row
    header = ["policies", "welfare", "worst tenth", "fresh agents covered", "of all, at least"]
    lines = [
        [
            str(k),
            f"{found['social_welfare']['mean']:.2f}",
            f"{found['worst_decile']['mean']:.2f}",
            f"{found['certified_share']['mean']:.1%}",
            f"{found['certified_share']['lower_bound']:.1%}",
        ]
        for k, found in by_k.items()
    ]
    (out / "table.md").write_text(as_markdown(header, lines))
    draw(by_k, settings, out / "curve.png")


def draw(by_k: dict[int, dict[str, Any]], settings: Settings, path: Path) -> None:
    """Welfare and worst tenth, and the certificate with what it must reach, by the number of policies."""
    figure = plots.figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    ks = list(by_k)
    for metric, label in (("social_welfare", "mean agent"), ("worst_decile", "worst tenth")):
        left.plot(ks, [by_k[k][metric]["mean"] for k in ks], marker="o", label=label)
    left.set(xlabel="policies", ylabel="return", xticks=ks)
    share = [by_k[k]["certified_share"] for k in ks]
    right.plot(ks, [row["mean"] for row in share], marker="o", label="fresh agents covered")
    right.plot(ks, [row["lower_bound"] for row in share], marker="o", label="of all, at least (95 %)")
    right.axhline(settings.share, color="black", linewidth=0.8, linestyle="--", label="enough")
    right.set(xlabel="policies", ylabel="share", xticks=ks, ylim=(0, 1.02))
    for axes in (left, right):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    plots.save(figure, path)


if __name__ == "__main__":
    guard(main)
