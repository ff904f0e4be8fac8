"""The systems that keep the contracts of common/protocols.py, each with a tiny run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import caml
import persim
import rl2
import rmdp


@dataclass(frozen=True)
class Case:
    """One of the four, with flags beside its tiny ones, and what its actor is made with."""

    system: str
    load: Callable[..., Any]
    flags: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)  # of both ways to an actor
    loading: dict[str, Any] = field(default_factory=dict)  # of `load` alone
    adapts: bool = False  # to agents, for which `load` has to be told
    numbered: bool = False  # rows draw, each by its number


POINTS = "envs.examples:point_family"
PLANNER = {"horizon": 4, "num_candidates": 20}
COUNTED = (
    "--environment cart_pole --episodes 1 --meta_episode_len 200 --normalise_observations True "
    "--normalise_rewards True --bootstrap True --cut_at_time_limits True --eval_interval 1 --eval_tasks 3"
)
SEEN = "--environment half_cheetah_body --architecture gru --see_task True"
HISTORIES = "--environment cart_pole --num_agents 6 --hide velocity,angular_velocity --history 2"
VARIBAD = "--architecture varibad --encoder_features 6 --vae_updates 3 --vae_buffer 2 --elbo_terms 4"
BOTH = f"{VARIBAD} --decode both --elbo_steps 0 --shared_network False"
CASES = {
    "rl2": Case("rl2", rl2.load),
    "rl2, continuous": Case("rl2", rl2.load, ("--environment", POINTS), loading={"environment": POINTS}),
    "rl2, counted episodes": Case("rl2", rl2.load, tuple(COUNTED.split())),
    "rl2, variational": Case("rl2", rl2.load, tuple(VARIBAD.split())),
    "rl2, variational, counted episodes": Case("rl2", rl2.load, (*COUNTED.split(), *BOTH.split())),
    "rl2, oracle": Case("rl2", rl2.load, tuple(SEEN.split())),
    "rmdp": Case("rmdp", rmdp.load),
    "rmdp, dynamics of its own": Case("rmdp", rmdp.load, ("--environment", "cart_pole")),
    "persim": Case("persim", persim.load, options=PLANNER, numbered=True),
    "persim, histories": Case("persim", persim.load, tuple(HISTORIES.split()), PLANNER, numbered=True),
    "caml": Case("caml", caml.load, adapts=True),
    "caml, continuous": Case(
        "caml", caml.load, ("--environment", POINTS), loading={"environment": POINTS}, adapts=True
    ),
}
