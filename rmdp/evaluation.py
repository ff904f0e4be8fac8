"""The protocol: exploration off, fresh episodes, every policy scored for every agent."""

import dataclasses
from pathlib import Path
from typing import Annotated

import numpy as np

from common.config import AT_LEAST_ZERO, MAY_BE_EMPTY, POSITIVE, check, parse_flags
from common.errors import UserError
from common.runs.seeding import stream
from rmdp import figures, separate_report
from rmdp.config import Config, check_config, shared
from rmdp.export import check_folder, export
from rmdp.policy import Policies
from rmdp.report import Report
from rmdp.scoring import play, score
from rmdp.tasks import shared_family

SHOWN = 25  # policies up to which the table has a line for each

plot = figures.plot


@dataclasses.dataclass(frozen=True)
class Settings:
    """Evaluate an r-MDP run: what its policies give the agents they serve."""

    episodes: Annotated[int, POSITIVE] = 20
    """Fresh episodes of each policy."""
    seed: Annotated[int, AT_LEAST_ZERO] = 0
    """Draws the starts of the episodes; all policies have the same."""
    environment: Annotated[str, MAY_BE_EMPTY] = ""
    """Needed only for a run on a user's own module:factory, which is never taken from a file."""
    export: Annotated[str, MAY_BE_EMPTY] = ""
    """Write the policies to this new folder: files that run without this project, and a card for each."""
    json: Annotated[str, MAY_BE_EMPTY] = ""
    """Write the rows here as JSON (default: evaluation.json in the run folder, if it can be written)."""
    plot: Annotated[str, MAY_BE_EMPTY] = ""
    """Draw who is served how here as PNG (default: evaluation.png in the run folder, likewise)."""


def parse_settings(flags: list[str], show: bool) -> Settings:
    """Settings from `evaluate`'s flags, checked."""
    settings = parse_flags(Settings, flags, "python -m evaluate RUN", show=show)
    check(settings)
    return settings


def stored_config(stored: dict) -> Config:
    """The run's configuration from its config.json."""
    fields = {field.name for field in dataclasses.fields(Config)}
    try:
        return check_config(Config(**{name: value for name, value in stored.items() if name in fields}))
    except TypeError as error:
        raise UserError(f"config.json: {error}") from None


def title(name: str, settings: Settings) -> str:
    """What the figure of the run `name` shows."""
    return f"{name}: {settings.episodes} fresh episodes of each policy"


def evaluate(stored: dict, state: dict, settings: Settings, comm) -> list[dict]:
    """Rows on welfare, on each policy and, up to 1000 of them, on each agent; a collective.

    Resource gathering is reported x100, as in the paper. Episodes and agents are shared over ranks; the
    numbers do not depend on how many there are. `stored` is config.json and may hold the `iteration`.
    """
    with comm.agree():
        config = stored_config(stored)
        if not shared(config):
            check_separate(config, settings)
    if not shared(config):
        return separate_report.evaluate(config, state, settings, comm)
    with comm.agree():
        family = shared_family(config)
        agents = family.check({name: np.asarray(values) for name, values in state["agents"].items()})
        policies = Policies(config, family.observation_space, family.action_space)
        policies.load_state_dict(state["policy"])
        if settings.export and comm.is_root:
            check_folder(Path(settings.export), state["assignment"])
    seed = int(stream(settings.seed, "evaluation").integers(2**62))
    episodes = play(policies, family, settings.episodes, seed, comm)
    scores = score(family, agents, state["assignment"], episodes, comm)
    report = Report(config, family, agents, state, episodes, scores)
    with comm.agree():
        rows = report.rows()
        if settings.export and comm.is_root:
            export(Path(settings.export), policies, report, stored, settings)
    return rows


def check_separate(config: Config, settings: Settings) -> None:
    """Refuse what cannot be done where agents have dynamics of their own."""
    if settings.export:
        raise UserError(f"--export: cards tell what agents want; those of {config.environment} do not say")
    if ":" in config.environment and settings.environment != config.environment:
        raise UserError(
            f"this run trained on {config.environment!r}; name it again: --environment {config.environment}"
        )


def show(rows: list[dict]) -> None:
    """Print one table on the population and one on the policies."""
    first = rows[0]
    print(
        f"{first['environment']}, {first['method']}: {first['num_policies']} policies for "
        f"{first['num_agents']} agents"
    )
    print(f"{'':22s}{'mean':>9s}{'se':>8s}")
    for r in rows:
        if not {"policy", "agent"} & r.keys():
            print(f"{r['metric']:22s}{number(r['mean'])}{number(r['se'], 8)}")
    policies = [r for r in rows if r["metric"] == "policy_return"]
    does = [r for r in rows if r["metric"] in ("policy_speed", "walk")]
    what = {"policy_speed": f"{'speed':>9s}", "walk": f"{'steps':>9s}"}[does[0]["metric"]] if does else ""
    print(f"{'policy':>8s}{'agents':>9s}{'return':>9s}{'se':>8s}{'worst':>9s}{what}")
    does = [number(did["mean"]) for did in does] or [""] * len(policies)
    for r, did in list(zip(policies, does, strict=True))[:SHOWN]:
        returns = f"{number(r['mean'])}{number(r['se'], 8)}{number(r['worst'])}"
        print(f"{r['policy']:8d}{r['agents']:9d}{returns}{did}")
    if len(policies) > SHOWN:
        print(f"and {len(policies) - SHOWN} more, in the rows")


def number(value: float | None, width: int = 9) -> str:
    return f"{'-':>{width}s}" if value is None else f"{value:{width}.2f}"
