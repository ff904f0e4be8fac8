"""A task family from a user's own environments."""

import importlib
import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv

from envs.parameters import EnvError, check_parameters, shown, told
from envs.protocols import Draws, Parameters
from envs.user_env import CopiedVectorEnv, SingleEnvs, draw_seeds
from envs.validate_env import Played, attempt, check_repeats, play_env, play_vector_env, require

OURS = {"train", "evaluate", "rl2", "rmdp", "persim", "caml", "envs", "mpi_utils"}
OURS |= {"common", "comparison", "experiments", "benchmarks"}
LONGEST = 1000  # steps after which an episode is cut where a user's environment does not say


def load_factory(environment: str) -> Callable[..., Any]:
    """The user's factory from `module:factory`, the module also sought in the working directory."""
    module_name, _, attribute = environment.partition(":")
    check_clash(environment, module_name.partition(".")[0])
    sys.path.insert(0, os.getcwd())
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise EnvError(f"--environment {environment}: cannot be imported ({error})") from None
    finally:
        sys.path.pop(0)
    if not callable(factory):
        raise EnvError(
            f"--environment {environment}: is not callable; give a function that returns a task family"
        )
    return factory


def check_clash(environment: str, name: str) -> None:
    """Refuse a user's own module in the working directory that is called as one of this project."""
    if name not in OURS or Path.cwd() == Path(__file__).parent.parent:
        return
    for theirs in (Path(f"{name}.py"), Path(name)):
        if theirs.exists():
            raise EnvError(
                f"--environment {environment}: {theirs} here has the name of a module of this project, which "
                "is imported in its place; rename it"
            )


def agreed_factory(environment: str, comm: Any) -> Callable[..., Any] | None:
    """The factory of `module:factory`, imported by rank 0 and sent to all; None for a family's name.

    A collective of `comm`, an `mpi_utils.comm.Comm`.
    """
    factory = None
    with comm.agree():
        if ":" in environment and comm.is_root:
            factory = load_factory(environment)
    return comm.bcast_object(factory)


class GymFamily:
    """The tasks of a user's `factory(**sizes)`, checked before anything is trained.

    The factory returns an object with `sample(rng, n) -> {name: array [n, ...]}` and one of
    - `make(task) -> gymnasium.Env`, where `task` maps each name to one task's value; or
    - `make_vec(parameters, rng) -> gymnasium.vector.VectorEnv` of all tasks at once, with SAME_STEP
      autoreset, drawing from `rng` (if not None) by `random` or `standard_normal` with first axis n.
    Observations are Discrete or one-dimensional Box, actions Discrete or one-dimensional bounded Box; all
    tasks share both spaces. A Discrete space becomes one from 0. Infos are not read, but for the "final_obs"
    of `make_vec` and the "episode" of both, numbers that an episode reports of itself at its end;
    environments of `make` may return one array again and again. An attribute `max_episode_len` tells how
    long episodes are at most, `steps_per_day` how many steps a day has, and `note` is a sentence that pages
    show. `envs/examples.py` holds one of each. Raises `EnvError`, one line for each fault, also in training:
    it names the task and its seed.
    """

    def __init__(self, factory: Callable[..., Any], **sizes: Any):
        self.name = getattr(factory, "__name__", type(factory).__name__)
        self.tasks = attempt(self.name, "the factory", factory, **sizes)
        self.native = callable(getattr(self.tasks, "make_vec", None))
        self.declares_length = hasattr(self.tasks, "max_episode_len")
        longest = getattr(self.tasks, "max_episode_len", LONGEST)
        whole = isinstance(longest, int | float | np.integer) and longest >= 1 and float(longest).is_integer()
        require(whole, self.name, f"max_episode_len is {longest!r:.60}; give a whole number of at least 1")
        self.max_episode_len = int(longest)
        self.note = str(getattr(self.tasks, "note", ""))
        self.steps_per_day = days = getattr(self.tasks, "steps_per_day", 0)
        known = isinstance(days, int | float | np.number) and days >= 0
        require(known, self.name, f"steps_per_day is {days!r:.60}; give a number above 0")
        kind = type(self.tasks).__name__
        samples = callable(getattr(self.tasks, "sample", None))
        require(samples, self.name, f"{kind} has no sample(rng, n); add it")
        makes = self.native or callable(getattr(self.tasks, "make", None))
        require(makes, self.name, f"{kind} has neither make(task) nor make_vec(parameters, rng); add one")

        parameters, again = (self.sample(np.random.default_rng(0), 3) for _ in range(2))
        for key, array in parameters.items():
            same = key in again and np.array_equal(array, again[key])
            require(same, self.name, f"sample gives another {key!r} for the same rng; draw from rng only")
        check_repeats(self.name, lambda: self._play(parameters))
        with closing(self.make_vec(parameters)) as env:
            self.observation_space, self.action_space = env.single_observation_space, env.single_action_space

    def _play(self, parameters: Parameters) -> Played:
        if self.native:
            with closing(self._native(parameters)) as env:
                if isinstance(env.unwrapped, AsyncVectorEnv):
                    self._check_arrays(env.unwrapped.env_fns[0])
                return play_vector_env(self.name, env, 3)
        with closing(self._make(self._rows(parameters)[0])) as env:
            return play_env(self.name, env)

    def _native(self, parameters: Parameters) -> gymnasium.vector.VectorEnv:
        return attempt(self.name, "make_vec", self._make_native, parameters, np.random.default_rng(0))

    def _check_arrays(self, make: Callable[[], gymnasium.Env]) -> None:
        """Refuse what is seen of an environment in another process only once it is too late."""
        with closing(make()) as env:
            before, _ = env.reset(seed=0)
            env.action_space.seed(0)
            after = env.step(env.action_space.sample())[0]
        text = (
            "an environment reuses the array of its observations, of which AsyncVectorEnv gives the next "
            "episode's first as the final one; return a new array at each step and reset"
        )
        shared = isinstance(before, np.ndarray) and np.shares_memory(before, after)
        require(not shared, self.name, text)

    def sample(self, rng: Any, n: int) -> Parameters:
        """Parameters of n tasks.

        A shared stream (not a NumPy generator) gives each task a generator of its own, so that users may draw
        as they like and tasks still do not depend on how they are divided among ranks.
        """
        if isinstance(rng, np.random.Generator):
            return self._sample(rng, n)
        # A row beyond the last keeps names, dtypes and shapes where n is 0.
        seeds = [*draw_seeds(rng, n), 0]
        rows = [self._sample(np.random.default_rng(seed), 1) for seed in seeds]
        return {key: np.concatenate([row[key] for row in rows])[:n] for key in rows[0]}

    def _sample(self, rng: np.random.Generator, n: int) -> Parameters:
        where = f"sample(rng, {n})"
        parameters = attempt(self.name, where, self.tasks.sample, rng, n)
        return check_parameters(f"{self.name}: {where}", parameters, n)

    def check(self, parameters: Any) -> Parameters:
        """Parameters as arrays, by the user's own `check` too if there is one."""
        parameters = check_parameters(self.name, parameters)
        own = getattr(self.tasks, "check", None)
        return attempt(self.name, "check", own, parameters) if callable(own) else parameters

    def make_vec(self, parameters: Any, rng: Draws | None = None) -> gymnasium.vector.VectorEnv:
        """The n tasks side by side."""
        parameters = self.check(parameters)
        if self.native:
            return CopiedVectorEnv(self.name, self._make_native, parameters, rng)
        tasks = self._rows(parameters)
        return attempt(
            self.name, "stepping all tasks together", SingleEnvs, self.name, self._make, tasks, rng
        )

    def _make_native(self, parameters: Parameters, rng: Draws | None) -> gymnasium.vector.VectorEnv:
        env = self.tasks.make_vec(parameters, rng)
        kind = type(env).__name__
        native = isinstance(env, gymnasium.vector.VectorEnv)
        require(native, self.name, f"make_vec gave {kind}; return a gymnasium VectorEnv")
        return env

    @staticmethod
    def _rows(parameters: Parameters) -> list[dict[str, Any]]:
        return [dict(zip(parameters, row, strict=True)) for row in zip(*parameters.values(), strict=True)]

    def _make(self, task: dict[str, Any]) -> gymnasium.Env:
        try:
            env = self.tasks.make(task)
        except Exception as error:
            text = f"make(task) failed: {told(error)}, in the task {shown(task)}"
            raise EnvError(f"{self.name}: {text}") from error
        kind = type(env).__name__
        require(isinstance(env, gymnasium.Env), self.name, f"make(task) gave {kind}; return a gymnasium.Env")
        return env
