"""Settings of a comparison, and how long each method trains in each environment."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from common.config import (
    AT_LEAST_ZERO,
    MAY_BE_EMPTY,
    OUTPUT_FOLDER,
    POSITIVE,
    Applies,
    Output,
    check,
    parse_flags,
)
from common.errors import UserError
from envs.target_speed import ROBOTS

BEHAVIOURS = ("auto", "shipped", "random", "single")
# The longest first, so that ranks end together.
METHODS = ("rl2", "persim", "caml", "per_agent", "rmdp", "per_group", "single")
PAGE = Output(added=(".md", ".html", ".png"))
OF_BUDGETS = Applies("--methods rmdp or caml", lambda s: bool({"rmdp", "caml"} & set(methods_of(s))))
OF_RMDP = Applies("--methods rmdp", lambda s: "rmdp" in methods_of(s))
OF_PERSIM = Applies("--methods persim", lambda s: "persim" in methods_of(s))


@dataclass(frozen=True)
class Settings:
    """Compare methods of personalising on one population: training, adaptation, return and cost."""

    population: Annotated[str, MAY_BE_EMPTY] = ""
    """The agents: a file made by `python -m envs.populate` (or envs.Population.save)."""
    methods: str = "all"
    """Which, with commas between: rl2, rmdp, persim, caml, single (one policy for all), per_group (one for
    each value of the parameter `group`, if agents have it), per_agent (one each); all: those that can serve
    the population, with a line on each that cannot."""
    seeds: str = "0"
    """Seeds with commas between; each is a training of its own of every method."""
    out: Annotated[str, MAY_BE_EMPTY, OUTPUT_FOLDER] = ""
    """Folder of everything that is written; the same command again continues there."""
    num_policies: Annotated[int, POSITIVE, OF_BUDGETS] = 5
    """The budget k of rmdp, and the medoids of caml."""
    budgets: Annotated[str, MAY_BE_EMPTY, OF_RMDP] = "2"
    """More budgets to train rmdp with, for the curve of welfare against k; "" for none."""
    episodes: Annotated[int, POSITIVE] = 5
    """Fresh starts of each agent, the same for all methods."""
    planned: Annotated[int, POSITIVE, OF_PERSIM] = 1
    """Those that persim plans in: its planner takes most of the time."""
    budget: Annotated[int, AT_LEAST_ZERO] = 0
    """Environment steps in which each method may train, all agents together; 0: usual for the environment."""
    budget_rule: Literal["equal", "recipe"] = "equal"
    """Every method gets the same budget; or as many iterations as its own recipe says, whatever they cost."""
    behaviour: Annotated[str, OF_PERSIM] = "auto"
    """Who acts in persim's logs: shipped (policies that come with the environment), random, single (one
    policy for all, trained within the budget), or auto (shipped, and single where there are none)."""
    simulator_iters: Annotated[int, AT_LEAST_ZERO, OF_PERSIM] = 0
    """Iterations of persim's training, which take no steps; 0: usual for the environment."""
    max_episode_len: Annotated[int, AT_LEAST_ZERO] = 0
    """Steps of an episode at most; 0: the environment's (200 where it says nothing)."""
    environment: Annotated[str, MAY_BE_EMPTY] = ""
    """Needed only for a population of a user's own module:factory, which is never taken from a file."""
    page: Annotated[str, MAY_BE_EMPTY, PAGE] = ""
    """Also write PAGE.md, PAGE.html and PAGE.png, e.g. results/comparison/particle."""


def parse_settings(flags: list[str], show: bool) -> Settings:
    """Settings from the flags behind `compare`, checked."""
    settings = parse_flags(Settings, flags, "python -m evaluate compare", show=show)
    check(settings)
    for name in ("population", "out"):
        if not getattr(settings, name):
            raise UserError(f"--{name}: missing (see python -m evaluate compare --help)")
    names = methods_of(settings)
    unknown = [name for name in names if name not in METHODS]
    if settings.behaviour not in BEHAVIOURS:
        raise UserError(f"--behaviour {settings.behaviour}: is unknown; give one of {', '.join(BEHAVIOURS)}")
    if settings.budget and settings.budget_rule == "recipe":
        raise UserError("--budget: says how much every method gets; leave it out with --budget_rule recipe")
    if unknown or not names:
        what = f"{unknown[0]!r} is unknown" if unknown else "names nobody"
        raise UserError(f"--methods {settings.methods}: {what}; give some of {', '.join(METHODS)}")
    numbers(settings, "seeds")
    numbers(settings, "budgets")
    if settings.planned > settings.episodes:
        raise UserError(f"--planned {settings.planned}: more than --episodes ({settings.episodes})")
    return settings


def methods_of(settings: Settings) -> list[str]:
    """The methods, in the order in which they are worked on."""
    if settings.methods == "all":
        return list(METHODS)
    given = {name.strip() for name in settings.methods.split(",")} - {""}
    return [name for name in METHODS if name in given] + sorted(given - set(METHODS))


def numbers(settings: Settings, name: str) -> list[int]:
    """Whole numbers with commas between."""
    words = [word.strip() for word in getattr(settings, name).split(",") if word.strip()]
    if not all(word.isdecimal() for word in words) or (not words and name == "seeds"):
        raise UserError(f"--{name} {getattr(settings, name)}: give whole numbers with commas between")
    return list(dict.fromkeys(map(int, words)))


PATIENTS = ("diabetes", "diabetes_relative", "diabetes_reading", "diabetes_pump", "diabetes_discrete")
# Steps of training that each method gets, where the command does not say.
BUDGETS = {
    "bandit": 400_000,
    "tabular_mdp": 1_000_000,
    "cart_pole": 2_000_000,
    "mountain_car": 6_000_000,
    "particle": 4_800_000,
    "resource_gathering": 2_000_000,
    **dict.fromkeys(PATIENTS, 8_000_000),
    "": 1_000_000,
}
Table = dict[str, dict[str, int]]
# By environment: what each method's own settings are here; "" is for any other. `max_iters` counts with
# `--budget_rule recipe`, and for PerSim, whose iterations take no steps.
DAYS = {"max_iters": 80, "steps_per_policy": 9216, "envs_per_policy": 32, "minibatch": 576, "num_epochs": 5}
RMDP: Table = {
    **dict.fromkeys(PATIENTS, DAYS),
    "cart_pole": {"max_iters": 40, "steps_per_policy": 2048, "envs_per_policy": 8},
    "mountain_car": {"max_iters": 120, "steps_per_policy": 8192, "envs_per_policy": 16},
    "particle": {"max_iters": 100, "steps_per_policy": 3200, "envs_per_policy": 32},
    "": {"max_iters": 60, "steps_per_policy": 4096, "envs_per_policy": 16},
}
PER_AGENT: Table = {  # n policies at once: fewer steps of each
    **dict.fromkeys(PATIENTS, DAYS),
    "cart_pole": {"max_iters": 40, "steps_per_policy": 1024, "envs_per_policy": 4},
    "mountain_car": {"max_iters": 100, "steps_per_policy": 2048, "envs_per_policy": 4},
    "particle": {"max_iters": 60, "steps_per_policy": 800, "envs_per_policy": 8},
    "": {"max_iters": 60, "steps_per_policy": 1024, "envs_per_policy": 4},
}
RL2: Table = {
    "bandit": {"max_iters": 50, "episodes": 100},
    "tabular_mdp": {"max_iters": 125, "episodes": 10},
    "cart_pole": {"max_iters": 80, "episodes": 2},
    "mountain_car": {"max_iters": 60, "episodes": 2},
    "particle": {"max_iters": 200, "episodes": 3},
    **dict.fromkeys(PATIENTS, {"max_iters": 57, "episodes": 2, "batch": 30, "meta_episodes": 480}),
    "": {"max_iters": 80, "episodes": 2},
}
CAML: Table = {
    "mountain_car": {"max_iters": 30, "updates_per_task": 4},
    "particle": {"max_iters": 100, "updates_per_task": 1},
    "": {"max_iters": 60, "updates_per_task": 4},
}
PERSIM: Table = {  # the planner's settings come last
    "cart_pole": {"max_iters": 100, "horizon": 40, "num_candidates": 128},
    "mountain_car": {"max_iters": 60, "horizon": 50, "num_candidates": 256},
    "particle": {"max_iters": 60, "horizon": 30, "num_candidates": 64},
    "half_cheetah_body": {"max_iters": 60, "horizon": 15, "num_candidates": 64},
    "diabetes": {"max_iters": 15, "horizon": 36, "num_candidates": 32},
    "diabetes_relative": {"max_iters": 15, "horizon": 36, "num_candidates": 32},
    "": {"max_iters": 60, "horizon": 30, "num_candidates": 128},
    **dict.fromkeys(ROBOTS, {"max_iters": 60, "horizon": 15, "num_candidates": 64}),
}
RECIPES = {"rl2": RL2, "persim": PERSIM, "caml": CAML, "per_agent": PER_AGENT}
RECIPES |= dict.fromkeys(("rmdp", "per_group", "single"), RMDP)


def recipe(method: str, environment: str) -> dict[str, Any]:
    """A method's own settings for an environment."""
    return dict(RECIPES[method].get(environment, RECIPES[method][""]))


def budget_of(settings: Settings, environment: str) -> int | None:
    """Steps of training that each method gets; None where each method's recipe says it."""
    if settings.budget_rule == "recipe":
        return None
    return settings.budget or BUDGETS.get(environment, BUDGETS[""])
