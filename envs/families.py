"""Task families by name."""

import inspect
from functools import partial

from envs.bandit import BernoulliBandit
from envs.cart_pole import CartPole
from envs.gym_family import GymFamily
from envs.half_cheetah import HalfCheetah
from envs.mountain_car import MountainCar
from envs.parameters import EnvError
from envs.particle import Particle
from envs.resource_gathering import ResourceGathering
from envs.tabular_mdp import TabularMDP
from envs.target_speed import ROBOTS, SpeedTask

FAMILIES = {"bandit": BernoulliBandit, "tabular_mdp": TabularMDP, "particle": Particle}
FAMILIES |= {family.name: family for family in (MountainCar, CartPole, HalfCheetah)}
# Agents share the dynamics and differ in rewards only: one step is rewarded for all of them.
SHARED_FAMILIES = {robot: partial(SpeedTask, robot) for robot in ROBOTS}
SHARED_FAMILIES["resource_gathering"] = ResourceGathering
FAMILIES |= SHARED_FAMILIES


def make_family(name, **sizes):
    """The task family called `name`, or made by a callable `name(**sizes)` (see `envs.gym_family`).

    Raises `EnvError` for an unknown name, an unknown size, a size below 1 and a broken user family.
    """
    if callable(name):
        return GymFamily(name, **sizes)
    if name not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise EnvError(f"unknown environment {name!r}; known are {known}, or give a factory")
    known = inspect.signature(FAMILIES[name]).parameters
    for size in sizes:
        if size not in known:
            raise EnvError(f"{name} has no setting {size!r}; it has {', '.join(known)}")
    return FAMILIES[name](**sizes)
