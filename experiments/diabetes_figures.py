"""Pictures of the diabetes protocol:

    python -m experiments.diabetes_figures --protocol results/diabetes/protocol.csv --out results/diabetes \\
      --sharing "three policies=checkpoints/examples/rmdp_diabetes_k3"

policies.png draws time in range and return against the number of policies, from the table that
`experiments.diabetes` wrote: a line for each kind of rows that are called "KIND absolute, ..." or "KIND
relative, ...", and a diamond for "KIND, second day". day.png draws the same day of one patient under several
controllers of that table, or trained runs (TITLE=FOLDER). sharing.png shows which patients share a policy of
r-MDP's runs. This is research software on a re-implemented simulator; nothing here is medical advice.
"""

import argparse
import csv
import re
from pathlib import Path
from typing import Any

import numpy as np

from common import plots
from common.errors import UserError
from common.evaluation import Row
from common.rollout import play
from envs.diabetes import NOTE, Diabetes
from envs.diabetes.patients import GROUPS, read_patients
from envs.diabetes.physiology import MINUTES, basal_rate
from experiments.diabetes import (
    COHORTS,
    GAINS,
    Recording,
    controllers,
    family_of,
    get_to_know,
    load_runs,
    read_gains,
    titled,
)
from mpi_utils.comm import Comm, guard

EXAMPLES = "checkpoints/examples"
ACTORS = (
    f"one policy for each age group={EXAMPLES}/rmdp_diabetes_age",
    f"RL²={EXAMPLES}/rl2_diabetes",
)
SERIES = re.compile(r"(.*(?:absolute|relative)), (.*)")
BY_AGE = "age group"  # in a method's name: these policies are given by age, and stand beside the lines
MEMORY = re.compile(r"(.*), second day")  # one policy that has known the patient for a day stands there, too
FIGURES = {"in_range": "time in range (%)", "return": "return of a day"}
NEEDED = ("method", "start", "patients", "policies", *FIGURES, *(f"{name}_worst" for name in FIGURES))


def read_protocol(path: Path) -> list[Row]:
    """The rows that are drawn, with their "series"; raises `UserError`."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows: list[Row] = list(csv.DictReader(file))
        for row in rows:
            row |= {name: float(row[name]) for name in NEEDED[3:]}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        made = "make it with python -m experiments.diabetes"
        raise UserError(f"--protocol {path}: is no table of the protocol ({error!r}); {made}") from None
    drawn = []
    for row in rows:
        if row["start"] == "normal" and (found := SERIES.fullmatch(row["method"])):
            drawn.append(row | {"series": found[1], "kind": BY_AGE if BY_AGE in found[2] else ""})
        elif row["start"] == "normal" and (found := MEMORY.fullmatch(row["method"])):
            drawn.append(row | {"series": found[1], "kind": "second day"})
    if not any(row["kind"] == "" for row in drawn):
        raise UserError(
            f'--protocol {path}: no method is called "KIND absolute, ..." or "KIND relative, ..."'
        )
    return drawn


def draw_policies(rows: list[Row], path: Path) -> None:
    """Figures against the number of policies, by age group; full lines are means, dashed the worst tenth."""
    cohorts = [name for name in ("all", *COHORTS[:-1]) if any(row["patients"] == name for row in rows)]
    drawn = plots.figure(3.2 * len(cohorts), 5.6)
    panels = drawn.subplots(len(FIGURES), len(cohorts), sharex=True, sharey="row", squeeze=False)
    sizes = sorted({int(row["policies"]) for row in rows})
    for number, series in enumerate(dict.fromkeys(row["series"] for row in rows)):
        for line, (figure, label) in enumerate(FIGURES.items()):
            panels[line, 0].set_ylabel(label)
            for axes, cohort in zip(panels[line], cohorts, strict=True):
                own = [row for row in rows if (row["series"], row["patients"]) == (series, cohort)]
                draw_series(axes, own, figure, series, f"C{number}")
    for axes, cohort in zip(panels[0], cohorts, strict=True):
        axes.set_title("all patients" if cohort == "all" else f"{cohort}s".replace("childs", "children"))
    for axes in panels.flat:
        axes.set_xscale("log")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=8)
    text = "policies for all patients; full lines: mean, dashed: worst tenth of the patients"
    drawn.supxlabel(f"{text}\n{NOTE}", fontsize=8)
    plots.save(drawn, path, dpi=130)


def draw_series(axes: Any, rows: list[Row], figure: str, title: str, color: str) -> None:
    """One kind of policies: a line by their number, stars for those given by age, diamonds for memories."""
    line, by_age, memory = (
        sorted((row for row in rows if row["kind"] == kind), key=lambda row: row["policies"])
        for kind in ("", BY_AGE, "second day")
    )
    for column, style, face in ((figure, "o-", color), (f"{figure}_worst", "o--", "white")):
        for some, mark, size, name in (
            (line, style, 4, title),
            (by_age, "*", 11, f"{title}, by age"),
            (memory, "D", 7, f"{title}, second day"),
        ):
            x, y = [row["policies"] for row in some], [row[column] for row in some]
            label = name if some and column == figure else None
            axes.plot(x, y, mark, color=color, markerfacecolor=face, markersize=size, label=label)


def draw_day(shown: dict[str, dict[str, np.ndarray]], patient: str, path: Path) -> None:
    """Glucose and meals above doses, a column for each controller; see `play_day`."""
    drawn = plots.figure(4.2 * len(shown), 4.8)
    panels = drawn.subplots(2, len(shown), sharex=True, sharey="row", squeeze=False, height_ratios=(2, 1))
    for (glucose, doses), (title, day) in zip(panels.T, shown.items(), strict=True):
        hours = (np.arange(len(day["glucose"])) + 1) * MINUTES / 60
        glucose.axhspan(70, 180, color="C2", alpha=0.15, linewidth=0)
        glucose.plot(hours, day["glucose"], color="C0")
        for at in np.flatnonzero(day["eaten"]):
            glucose.axvline(hours[at], color="C1", linewidth=0.8, linestyle=":")
            where = (hours[at], 0.98)
            grams, about = f"{day['eaten'][at]:.0f} g", {"color": "C1", "fontsize": 8, "va": "top"}
            glucose.annotate(grams, where, xycoords=("data", "axes fraction"), **about)
        if day["failed"]:
            glucose.plot(hours[-1], day["glucose"][-1], "x", color="C3", label="the day fails")
            glucose.legend(fontsize=8, loc="center right")
        doses.step(hours, 60 * day["given"], where="pre", color="C0")
        doses.set_yscale("symlog", linthresh=1)
        doses.set_yticks(ticks := [0, 0.5, 1, 2, 5, 10, 20, 50, 100], [f"{tick:g}" for tick in ticks])
        doses.minorticks_off()
        glucose.set_title(title, fontsize=10)
        glucose.set(xlim=(0, 24), xticks=range(0, 25, 4))
        for axes in (glucose, doses):
            axes.grid(alpha=0.3)
    most = max(60 * day["given"].max() for day in shown.values())
    panels[1, 0].set_ylim(0, 1.2 * max(most, 1.0))
    panels[0, 0].set_ylabel("glucose (mg/dl)")
    panels[1, 0].set_ylabel("insulin (U/h)")
    drawn.supxlabel(f"hour of a day of {patient}; shaded: 70 to 180 mg/dl\n{NOTE}", fontsize=8)
    plots.save(drawn, path, dpi=130)


def draw_sharing(shared: dict[str, np.ndarray], patients: dict[str, np.ndarray], path: Path) -> None:
    """Each patient at own basal rate and body weight, coloured by the policy [30] that each title gives."""
    drawn = plots.figure(4.2 * len(shared), 4.2)
    panels = drawn.subplots(1, len(shared), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (title, policy_of) in zip(panels, shared.items(), strict=True):
        basal = 60 * basal_rate(patients)
        order = [np.median(basal[policy_of == j]) for j in np.unique(policy_of)]
        colour = np.argsort(np.argsort(order))[np.unique(policy_of, return_inverse=True)[1]]
        for group, (name, mark) in enumerate(zip(GROUPS, "^os", strict=True)):
            own = patients["group"] == group
            colours = [f"C{number}" for number in colour[own]]
            axes.scatter(basal[own], patients["BW"][own], c=colours, marker=mark, s=40)
            axes.scatter([], [], c="0.4", marker=mark, s=40, label=name)
        axes.set_title(title, fontsize=10)
        axes.set(xlabel="own basal rate (U/h)", xscale="log", yscale="log")
        axes.set_xticks(ticks := [0.3, 0.5, 1, 2], [f"{tick:g}" for tick in ticks])
        axes.set_yticks(ticks := [25, 50, 100], [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("body weight (kg)")
    panels[0].legend(fontsize=8)
    drawn.supxlabel(f"a colour for each policy\n{NOTE}", fontsize=8)
    plots.save(drawn, path, dpi=130)


def sharing_of(chosen: list[str]) -> dict[str, np.ndarray]:
    """Number of the policy of each patient [30] in each run TITLE=FOLDER; raises `UserError`."""
    found = dict[str, np.ndarray]()
    for one in chosen:
        title, folders = titled(one)
        _, _, actor = load_runs(title, folders[:1])[0]
        if not hasattr(actor, "policy_of"):
            raise UserError(f"--sharing {one}: is no run of r-MDP, whose patients share policies")
        found[title] = actor.policy_of
    return found


def play_day(actor: Any, start: str, absorption: str, row: int, seed: int) -> dict[str, np.ndarray]:
    """A day of the protocol, the same whoever acts: "glucose" (mg/dl), "given" (U/min) and "eaten" (g) [T].

    `row` is the patient's among the 30; "failed" tells whether the day ended early.
    """
    family = family_of(actor, start, absorption, 0.0)
    env = family.make_vec(family.members(), np.random.default_rng(seed))
    recording = Recording(env, actor)
    lasted = play(env, recording, family.max_episode_len).lengths[row]
    recording.keep()
    kept = {"glucose": recording.reading, "given": recording.given, "eaten": recording.eaten}
    day = {name: np.array(values)[:lasted, row] for name, values in kept.items()}
    return day | {"failed": np.array(lasted < family.max_episode_len)}


def actors_of(
    chosen: list[str], tuned: dict[str, Any], absorption: str, seed: int
) -> dict[str, tuple[str, Any]]:
    """Start and actor of each controller of the table, or of a run TITLE=FOLDER; raises `UserError`.

    A memory is shown twice: as it begins, and once it has known the patient for a day.
    """
    patients, found = Diabetes().members(), dict[str, tuple[str, Any]]()
    made = controllers(patients, tuned)
    for one in chosen:
        if one in made:
            found[one] = ("normal", made[one][1](patients))
        elif "=" in one or Path(one).exists():
            title, folders = titled(one)
            _, start, actor = load_runs(title, folders[:1])[0]
            found[title] = (start, actor)
            if hasattr(actor, "start_from"):
                _, _, again = load_runs(title, folders[:1])[0]
                get_to_know(family_of(again, "any", absorption, 0.0), patients, again, 1, seed + 1)
                found[f"{title}, second day"] = (start, again)
        else:
            raise UserError(f"--actors {one!r}: give TITLE=FOLDER or one of {'; '.join(made)}")
    return found


def main(comm: Comm) -> None:
    """Read, play and draw."""
    parser = argparse.ArgumentParser("python -m experiments.diabetes_figures")
    parser.add_argument("--protocol", required=True, help="the CSV file that experiments.diabetes wrote")
    parser.add_argument("--out", required=True, help="the folder of the pictures")
    parser.add_argument(
        "--actors", nargs="+", default=ACTORS, help="whose day is drawn (default: two, one of them twice)"
    )
    parser.add_argument("--sharing", nargs="*", default=[], metavar="TITLE=FOLDER", help="runs of r-MDP")
    parser.add_argument("--patient", default="adolescent#005", help="whose day it is (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=5000, help="draws the day (default: 5000)")
    parser.add_argument("--absorption", choices=["published", "corrected"], default="published")
    parser.add_argument("--gains", default=str(GAINS), help="what experiments.diabetes_tuning wrote")
    settings = parser.parse_args()
    with comm.agree():
        if not comm.is_root:
            return
        rows, names, out = read_protocol(Path(settings.protocol)), read_patients()[0], Path(settings.out)
        if settings.patient not in names:
            raise UserError(f"--patient {settings.patient}: give one of {names[0]} to {names[-1]}")
        if settings.seed < 0:
            raise UserError("give --seed of at least 0")
        actors = actors_of(
            settings.actors,
            read_gains(Path(settings.gains), settings.absorption),
            settings.absorption,
            settings.seed,
        )
        row, shared, made = names.index(settings.patient), sharing_of(settings.sharing), ["policies", "day"]
        draw_policies(rows, out / "policies.png")
        about = settings.absorption, row, settings.seed
        days = {title: play_day(actor, start, *about) for title, (start, actor) in actors.items()}
        draw_day(days, settings.patient, out / "day.png")
        if shared:
            draw_sharing(shared, Diabetes().members(), out / "sharing.png")
            made.append("sharing")
        print(NOTE, *(out / f"{name}.png" for name in made), sep="\n")


if __name__ == "__main__":
    guard(main)
