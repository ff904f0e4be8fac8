"""RL4T1D's protocol on the 30 patients, as one command:

    python -m experiments.diabetes --out results/diabetes/protocol [--runs TITLE=FOLDER,FOLDER ...]

plays fresh days of each patient (fixed meals of 40, 80 and 60 g; GuardianRT; an hour at the own basal rate
from 23:00, and a reading in 110..130 mg/dl at midnight), with the clinic's controllers, those of
`experiments.diabetes_tuning` and trained runs (several seeds of one setting as one row), and writes OUT.csv
and OUT.md. "clinic start" has no first hour, as the published rows of basal-bolus. This is research software
on a re-implemented simulator; nothing that it shows is medical advice.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import caml
import persim
import rl2
import rmdp
from common.errors import UserError
from common.evaluation import Row, as_csv, as_markdown, worst_decile
from common.rollout import Episodes, play
from common.runs import checkpoint
from common.runs.files import write_atomic
from common.shipped import shipped
from envs.diabetes import NOTE, Diabetes
from envs.diabetes.patients import GROUPS, numbers
from envs.diabetes.physiology import basal_rate
from envs.protocols import Parameters
from experiments.diabetes_controllers import BasalBolus, ConstantRate, Feedback, own_basal
from mpi_utils.comm import Comm, guard
from rl2.fixed_horizon import FixedHorizon

EXPLAINED = (
    "In range is 70 to 180 mg/dl; shares in per cent of the time until a failure (a reading of 40 or less, "
    "or of 600), as the reference counts, and last of the whole day. Worst is the mean of the tenth of the "
    "patients that is lowest. A return of 288 a day is the most there is."
)
GAINS = shipped("results/diabetes/gains.json")
COHORTS = ("adult", "adolescent", "child", "all")
BANDS = ("54-70", "to 54", "180-250", "over 250")
MEASURES = {"in range (%)": "in_range", "in range, whole day (%)": "in_range_whole", "failed (%)": "failed"}
MEASURES |= {"insulin (U)": "insulin"} | {f"{band} mg/dl (%)": band for band in BANDS}
FAILED = ("failed days", "in range, whole day")
COLUMNS = ["method", "start", "patients", "policies", "return", "return_worst", "in_range", "in_range_sd"]
COLUMNS += ["in_range_worst", *BANDS, "failed", "in_range_whole", "insulin", "days", "return_seed_sd"]
SYSTEMS = {"rl2": rl2, "rmdp": rmdp, "persim": persim, "caml": caml}
TAKEN = ("dose", "discrete", "observation", "see_calibration", "announce")  # of a trained run's family
Maker = Callable[[Parameters], Any]
# RL4T1D's and G2P2C's own rows, of 1,500 days a patient: in range, return, failed days.
PUBLISHED: dict[str, dict[str, tuple[float, float | None, float]]] = {
    "basal-bolus, exact grams": {"adult": (71.02, None, 0.39), "adolescent": (71.43, None, 0.0)},
    "basal-bolus, misjudged grams": {"adult": (69.78, None, 0.35), "adolescent": (70.23, None, 0.0)},
    "PPO, one each": {
        "adult": (69.12, 264, 2.79),
        "adolescent": (63.72, 249, 4.93),
        "child": (64.28, 253, 5.38),
    },
    "G2P2C, one each": {
        "adult": (72.69, 268, 1.62),
        "adolescent": (64.33, 254, 1.48),
        "child": (63.60, 256, 2.67),
    },
}


class Recording:
    """An actor and its environments, of which each step's readings, doses and meals are kept."""

    def __init__(self, env: Any, actor: Any):
        self.env, self.actor = env, actor
        self.reading: list[np.ndarray] = []
        self.running: list[np.ndarray] = []
        self.given: list[np.ndarray] = []
        self.eaten: list[np.ndarray] = []

    def reset(self, num: int) -> None:
        """Begin."""
        self.actor.reset(num)

    def act(self, observation: Any, reward: Any, done: Any, running: Any = None) -> np.ndarray:
        """Act; first keep what the step before led to."""
        self.keep()
        self.running.append(running.copy())
        return self.actor.act(observation, reward, done, running)

    def keep(self) -> None:
        """Keep what the last step led to, if there was one."""
        if self.running:
            self.reading.append(self.env.reading)
            self.given.append(self.env.given)
            self.eaten.append(self.env.eaten)


def play_days(family: Diabetes, patients: Parameters, actor: Any, num_days: int, seed: int) -> Episodes:
    """`num_days` of each of the patients [n], the same days whoever acts.

    The actor gets num_days * n rows, row day * n + i for patient i.
    """
    env = family.make_vec(repeated(patients, num_days), np.random.default_rng(seed))
    return play(env, actor, family.max_episode_len)


def repeated(parameters: Parameters, times: int) -> Parameters:
    """The parameters one after the other, `times` over."""
    return {name: np.concatenate([values] * times) for name, values in parameters.items()}


def get_to_know(family: Diabetes, patients: Parameters, actor: Any, num_days: int, seed: int) -> None:
    """Let an actor with a memory have a day with each patient, of which all later `reset`s know.

    Rows are those of `play_days`; each has a day of its own.
    """
    actor.start_from(None)
    whole, rows = FixedHorizon(family, family.max_episode_len), repeated(patients, num_days)
    env = whole.make_vec(rows, np.random.default_rng(seed))
    observation, reward, done = env.reset()[0], None, None
    actor.reset(len(rows["BW"]))
    for _ in range(family.max_episode_len):
        observation, reward, _, done, _ = env.step(actor.act(observation, reward, done))
    actor.start_from(actor.remembered(reward, done))


def measure(days: Episodes, group: np.ndarray, chosen: Sequence[int] = ()) -> list[Row]:
    """A row for each cohort of patients whose age groups are `group` [n], of what the environment reports.

    Of all patients, or of the `chosen` only. Worst is the mean of the tenth of the patients that is lowest.
    """
    n = len(group)
    each = {MEASURES[name]: values.reshape(-1, n) for name, values in days.measures.items()}
    each["return"] = days.returns.reshape(-1, n)
    in_range = each.pop("in_range")
    rows = []
    for cohort in COHORTS:
        of = np.array([i for i in chosen or range(n) if cohort in ("all", GROUPS[group[i]])], int)
        if not of.size:
            continue
        row = {name: float(values[:, of].mean()) for name, values in each.items()}
        row |= {"in_range": float(in_range[:, of].mean()), "in_range_sd": float(in_range[:, of].std())}
        row |= {"in_range_worst": worst_decile(in_range[:, of].mean(0))}
        row |= {"return_worst": worst_decile(each["return"][:, of].mean(0))}
        rows.append({"patients": cohort, "days": len(in_range), **row})
    return rows


def family_of(actor: Any, start: str, absorption: str, suspend_below: float) -> Diabetes:
    """The protocol's environments as the actor takes them."""
    shield: Any = {"suspend_below": suspend_below, **actor.settings}
    return Diabetes(absorption, "fixed", start=start, **shield)


def controllers(patients: Parameters, tuned: dict[str, Any]) -> dict[str, tuple[int, Maker]]:
    """Number of policies and a maker of each controller, for rows that repeat the patients."""
    n = len(patients["group"])
    made: dict[str, tuple[int, Maker]] = {
        "basal-bolus, exact grams": (n, BasalBolus),
        "basal-bolus, misjudged grams": (n, lambda rows: BasalBolus(rows, misjudged=True)),
        "own basal rate": (n, own_basal),
    }
    if rate := tuned.get("constant"):
        made["one constant rate"] = (1, lambda rows: ConstantRate(np.full(len(rows["BW"]), rate)))
    for unit, sets in tuned.get("feedback", {}).items():
        for name, chosen in sets.items():
            gains = np.array(chosen["gains"])[chosen["policy_of"]]

            def feedback(rows: Parameters, gains: np.ndarray = gains, unit: str = unit) -> Feedback:
                times = len(rows["BW"]) // n
                own = basal_rate(rows) if unit == "relative" else np.ones(len(rows["BW"]))
                return Feedback(np.concatenate([gains] * times), own)

            made[f"feedback {unit}, {name}"] = (len(chosen["gains"]), feedback)
    return made


def protocol(settings: argparse.Namespace, tuned: dict[str, Any]) -> list[Row]:
    """All rows."""
    patients, rows = Diabetes().members(), list[Row]()
    seed, num_days, absorption = settings.seed, settings.days, settings.absorption
    chosen = numbers(settings.members.split(","))
    trained = [(title, load_runs(title, folders)) for title, folders in map(titled, settings.runs)]

    def add(method: str, policies: int, start: str, *actors: Any) -> None:
        about, found = {"method": method, "start": start, "policies": policies}, []
        for actor in actors:
            family = family_of(actor, start, absorption, settings.suspend_below)
            played = play_days(family, patients, actor, num_days, seed)
            found.append(measure(played, patients["group"], chosen))
        rows.extend(about | row for row in over_seeds(found))

    many = repeated(patients, num_days)
    for misjudged, name in ((False, "exact"), (True, "misjudged")):
        actor: Any = BasalBolus(many, misjudged, first_minute=23 * 60)
        add(f"basal-bolus, {name} grams", len(patients["group"]), "clinic", actor)
    for method, (policies, make) in controllers(patients, tuned).items():
        add(method, policies, "normal", make(many))
    for title, runs in trained:
        add(title, *runs[0][:2], *(actor for *_, actor in runs))
        if with_memory := [actor for *_, actor in runs if hasattr(actor, "start_from")]:
            for actor in with_memory:
                family = family_of(actor, "any", absorption, settings.suspend_below)
                get_to_know(family, patients, actor, num_days, seed + 1)
            add(f"{title}, second day", *runs[0][:2], *with_memory)
    return rows


def over_seeds(found: list[list[Row]]) -> list[Row]:
    """Rows of each seed as one of all: means, and "return_seed_sd" where there are several."""
    rows = []
    for of in zip(*found, strict=True):
        rows.append(
            {
                name: float(np.mean([row[name] for row in of])) if isinstance(value, float) else value
                for name, value in of[0].items()
            }
        )
        if len(of) > 1:
            rows[-1]["return_seed_sd"] = float(np.std([row["return"] for row in of], ddof=1))
    return rows


def titled(run: str) -> tuple[str, list[str]]:
    """Title and folders of TITLE=FOLDER,FOLDER or of a folder alone."""
    title, equals, folders = run.rpartition("=")
    return (title, folders.split(",")) if equals and not Path(run).exists() else (Path(run).name, [run])


def load_runs(title: str, folders: list[str]) -> list[tuple[int, str, Any]]:
    """Several seeds as `load_run` loads one; raises `UserError` also if their numbers of policies differ."""
    runs = [load_run(folder) for folder in folders]
    if len(sizes := {policies for policies, *_ in runs}) > 1:
        text = f"runs of {' and '.join(map(str, sorted(sizes)))} policies"
        raise UserError(f"--runs {title}: {text}; give seeds of one setting in a row")
    return runs


def load_run(path: str) -> tuple[int, str, Any]:
    """Number of policies, start and actor of a trained run; raises `UserError` if it is of something else."""
    stored, *_ = checkpoint.find(Path(path))
    module: Any = SYSTEMS[stored["system"]]
    problem = module.load_problem(path)
    family = problem.family.family if isinstance(problem.family, FixedHorizon) else problem.family
    if not isinstance(family, Diabetes):
        raise UserError(f"--runs {path}: was trained in {problem.environment}, not with diabetes patients")
    patients = Diabetes().members()
    if stored["system"] == "rl2":
        actor: Any = rl2.load(path)  # acts for whom it meets
    elif not problem.num_agents:
        actor = module.load(path)
    elif same(problem.agents, patients):
        actor = module.load(path, np.arange(30))
    elif stored.get("algorithm") == "given":  # others get the policy of those who have the same parameter
        actor = module.load(path, alike(path, problem.agents, patients, stored["assign_by"]))
    else:
        raise UserError(f"--runs {path}: its population is not the 30 patients; populate with --members all")
    actor.settings = {name: getattr(family, name) for name in TAKEN}
    return int(stored.get("num_policies", 1)), "normal", actor


def alike(path: str, agents: Parameters, patients: Parameters, name: str) -> np.ndarray:
    """For each of the `patients` an agent [n] with the same parameter; raises `UserError` where none has."""
    equal = patients[name][:, None] == agents[name]
    if not equal.any(1).all():
        none = patients[name][(~equal.any(1)).argmax()]
        raise UserError(f"--runs {path}: no agent of its population has {name} of {none}")
    return equal.argmax(1)


def same(some: Parameters, others: Parameters) -> bool:
    """Whether the parameters are those."""
    return all(np.array_equal(some[name], values) for name, values in others.items())


def markdown(rows: list[Row], settings: argparse.Namespace) -> str:
    """A table for each cohort, and the published rows beside."""
    shield = f", insulin suspended below {settings.suspend_below:g} mg/dl" if settings.suspend_below else ""
    about = f"Stomach emptying: {settings.absorption}; {settings.days} days of each patient{shield}."
    seeds = " A return's deviation is over seeds." if any("return_seed_sd" in row for row in rows) else ""
    text = [f"{NOTE}\n\n{about} {EXPLAINED}{seeds}\n"]
    head = ["method", "policies", "return", "worst", "in range ± sd", "worst", *BANDS, *FAILED]
    for cohort in COHORTS:
        body = []
        for row in rows:
            if row["patients"] != cohort:
                continue
            method = row["method"] + (" (clinic start)" if row["start"] == "clinic" else "")
            spread = f" ± {row['return_seed_sd']:.0f}" if "return_seed_sd" in row else ""
            cells = [f"{row['return']:.0f}{spread}", f"{row['return_worst']:.0f}"]
            cells += [f"{row['in_range']:.1f} ± {row['in_range_sd']:.1f}", f"{row['in_range_worst']:.1f}"]
            cells += [f"{row[band]:.2f}" for band in BANDS]
            cells += [f"{row['failed']:.1f}", f"{row['in_range_whole']:.1f}"]
            body.append([method, str(row["policies"]), *cells])
        if settings.absorption == "published" and settings.members == "all" and not settings.suspend_below:
            body += [published(name, *of[cohort]) for name, of in PUBLISHED.items() if cohort in of]
        text.append(f"\n## {cohort}\n\n{as_markdown(head, body)}")
    return "".join(text).rstrip() + "\n"


def published(name: str, in_range: float, total: float | None, failed: float) -> list[str]:
    """A published row."""
    cells = [
        "" if total is None else f"{total:.0f}",
        "",
        f"{in_range:.1f}",
        "",
        *[""] * len(BANDS),
        f"{failed:.1f}",
    ]
    return [f"published: {name}", "10", *cells, ""]


def main(comm: Comm) -> None:
    """Play, write and print."""
    parser = argparse.ArgumentParser("python -m experiments.diabetes")
    parser.add_argument("--out", required=True, help="the tables to write: OUT.csv and OUT.md")
    parser.add_argument("--days", type=int, default=30, help="days of each patient (default: 30)")
    parser.add_argument("--seed", type=int, default=5000, help="draws the days (default: 5000)")
    parser.add_argument("--absorption", choices=["published", "corrected"], default="published")
    parser.add_argument("--suspend_below", type=float, default=0.0, help="the shield, mg/dl (default: off)")
    parser.add_argument("--members", default="all", help="patients to measure, e.g. child#003,adult (all)")
    parser.add_argument("--gains", default=str(GAINS), help="what experiments.diabetes_tuning wrote")
    parser.add_argument("--runs", nargs="*", default=[], metavar="TITLE=FOLDER[,FOLDER]", help="trained runs")
    settings = parser.parse_args()
    with comm.agree():
        if settings.days < 1 or settings.seed < 0:
            raise UserError("give --days of at least 1 and --seed of at least 0")
        if not comm.is_root:
            return
        tuned = read_gains(Path(settings.gains), settings.absorption)
        out = Path(settings.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        rows = protocol(settings, tuned)
        write_atomic(out.with_suffix(".csv"), as_csv(rows, COLUMNS, digits=6).encode())
        text = markdown(rows, settings)
        write_atomic(out.with_suffix(".md"), text.encode())
        print(text)


def read_gains(path: Path, absorption: str) -> dict[str, Any]:
    """What was tuned for this version of the simulator; raises `UserError`."""
    try:
        return json.loads(path.read_text())[absorption]
    except (OSError, ValueError, KeyError) as error:
        command = f"python -m experiments.diabetes_tuning --absorption {absorption} --out {path}"
        raise UserError(f"--gains {path}: cannot be read ({error}); make it with {command}") from None


if __name__ == "__main__":
    guard(main)
