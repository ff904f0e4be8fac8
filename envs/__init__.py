"""Task families sample tasks, populations hold them, vector environments play them all at once."""

import gymnasium

from envs.families import FAMILIES, SHARED_FAMILIES, make_family, note_of
from envs.gym_family import agreed_factory, load_factory
from envs.parameters import EnvError
from envs.population import Population
from envs.problem import Problem

__all__ = ["FAMILIES", "SHARED_FAMILIES", "EnvError", "Population", "Problem"]
__all__ += ["agreed_factory", "load_factory", "make_family", "note_of"]

for _id, _module, _class in (
    ("BernoulliBandit-v0", "bandit", "BernoulliBandit"),
    ("TabularMDP-v0", "tabular_mdp", "TabularMDP"),
    ("Particle-v0", "particle", "Particle"),
    ("HeterogeneousMountainCar-v0", "mountain_car", "MountainCar"),
    ("HeterogeneousCartPole-v0", "cart_pole", "CartPole"),
    ("HeterogeneousHalfCheetah-v0", "half_cheetah", "HalfCheetah"),
    ("Diabetes-v0", "diabetes", "Diabetes"),
    ("HalfCheetahVel-v0", "cheetah_tasks", "HalfCheetahVel"),
    ("HalfCheetahDir-v0", "cheetah_tasks", "HalfCheetahDir"),
    ("AntDir-v0", "ant_tasks", "AntDir"),
    ("AntForwardBackward-v0", "ant_tasks", "AntForwardBackward"),
    ("AntGoal-v0", "ant_tasks", "AntGoal"),
    ("WalkerParams-v0", "walker_params", "WalkerParams"),
    ("GridNavi-v0", "grid_navi", "GridNavi"),
    ("SparsePointRobot-v0", "sparse_point_robot", "SparsePointRobot"),
):
    gymnasium.register(
        id=_id,
        entry_point=f"envs.{_module}:{_class}Env",
        vector_entry_point=f"envs.{_module}:{_class}VectorEnv",
    )
