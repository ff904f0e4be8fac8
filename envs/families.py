"""Task families by name."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from envs.ant_tasks import AntDir, AntForwardBackward, AntGoal
from envs.bandit import BernoulliBandit
from envs.cart_pole import CartPole
from envs.cheetah_tasks import HalfCheetahDir, HalfCheetahVel
from envs.diabetes import Diabetes
from envs.grid_navi import GridNavi
from envs.gym_family import GymFamily
from envs.half_cheetah import HalfCheetah
from envs.mountain_car import MountainCar
from envs.parameters import EnvError
from envs.particle import Particle
from envs.protocols import SharedRewardFamily, TaskFamily
from envs.resource_gathering import ResourceGathering
from envs.robots import ROBOTS
from envs.sparse_point_robot import SparsePointRobot
from envs.tabular_mdp import TabularMDP
from envs.target_speed import SpeedTask
from envs.walker_params import WalkerParams

# Agents share the dynamics and differ in rewards only: one step is rewarded for all of them.
SHARED_FAMILIES: dict[str, Callable[..., SharedRewardFamily]] = {
    **{robot: partial(SpeedTask, robot) for robot in ROBOTS},
    "resource_gathering": ResourceGathering,
}
# On which meta-RL is compared (docs/suite.md).
SUITE_FAMILIES: dict[str, Callable[..., TaskFamily]] = {
    "half_cheetah_vel": HalfCheetahVel,
    "half_cheetah_dir": HalfCheetahDir,
    "ant_dir": AntDir,
    "ant_forward_backward": AntForwardBackward,
    "ant_goal": AntGoal,
    "walker_params": WalkerParams,
    "grid_navi": GridNavi,
    "sparse_point_robot": SparsePointRobot,
}
FAMILIES: dict[str, Callable[..., TaskFamily]] = {
    "bandit": BernoulliBandit,
    "tabular_mdp": TabularMDP,
    "particle": Particle,
    "mountain_car": MountainCar,
    "cart_pole": CartPole,
    "half_cheetah_body": HalfCheetah,
    "diabetes": Diabetes,
    "diabetes_relative": partial(Diabetes, dose="relative"),
    "diabetes_reading": partial(Diabetes, observation="reading"),
    "diabetes_pump": partial(Diabetes, observation="pump"),
    "diabetes_discrete": partial(Diabetes, dose="relative", discrete=True),
    **SUITE_FAMILIES,
    **SHARED_FAMILIES,
}
DISCRETE_FAMILIES = {"bandit", "tabular_mdp", "particle", "mountain_car", "cart_pole"}  # by their actions
DISCRETE_FAMILIES |= {"diabetes_discrete", "resource_gathering", "grid_navi"}


def note_of(name: str) -> str:
    """What the family called `name` wants said beside its numbers; "" for nothing, or a name that is none."""
    made = FAMILIES.get(name)
    return getattr(getattr(made, "func", made), "note", "")


def make_family(name: str | Callable[..., Any], **sizes: Any) -> TaskFamily:
    """The task family called `name`, or made by a callable `name(**sizes)` (see `envs.gym_family`).

    Raises `EnvError` for an unknown name, an unknown size, a size below 1 and a broken user family.
    """
    if callable(name):
        return GymFamily(name, **sizes)
    if name not in FAMILIES:
        names = ", ".join(FAMILIES)
        raise EnvError(f"unknown environment {name!r}; known are {names}, or give a factory")
    known = inspect.signature(FAMILIES[name]).parameters
    for size in sizes:
        if size not in known:
            raise EnvError(f"{name} has no setting {size!r}; it has {', '.join(known)}")
    return FAMILIES[name](**sizes)
