"""What a user's environment must keep to, tried for a few steps before anything is trained."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv

from envs.parameters import EnvError, told

NUM_STEPS = 25
Played = tuple[list[Any], list[Any], list[Any]]  # observations, rewards, episode ends


def require(ok: Any, where: str, text: str) -> None:
    """Raise `EnvError` unless `ok`."""
    if not ok:
        raise EnvError(f"{where}: {text}")


def attempt(where: str, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The result of user code, whose exception becomes one line."""
    try:
        return function(*args, **kwargs)
    except EnvError:
        raise
    except Exception as error:
        raise EnvError(f"{where}: {name} failed: {told(error)}") from error


def check_spaces(where: str, observation_space: Any, action_space: Any) -> None:
    """Raise `EnvError` unless both are Discrete or one-dimensional Box, the actions bounded."""
    for what, space in (("observation", observation_space), ("action", action_space)):
        kind = type(space).__name__
        require(isinstance(space, Discrete | Box), where, f"{what} space is {kind}; use Discrete or Box")
        flat = isinstance(space, Discrete) or len(space.shape) == 1
        require(flat, where, f"{what} Box has shape {space.shape}; flatten it")
    bounded = isinstance(action_space, Discrete) or action_space.is_bounded()
    require(bounded, where, "action Box has an infinite bound; give finite low and high")


def check_repeats(where: str, play: Callable[[], Played]) -> None:
    """Raise `EnvError` unless two calls of `play` give equal (observations, rewards, ends)."""
    for name, first, second in zip(("observations", "rewards", "episode ends"), play(), play(), strict=True):
        text = f"{name} differ for the same seed and actions; draw from the given seed or rng only"
        require(np.array_equal(first, second), where, text)


def play_env(where: str, env: Any) -> Played:
    """Some steps of one `gymnasium.Env`, each checked; returns (observations, rewards, ends)."""
    for name in ("observation_space", "action_space"):
        require(getattr(env, name, None) is not None, where, f"the environment has no {name}; define it")
    check_spaces(where, env.observation_space, env.action_space)
    rng = np.random.default_rng(0)
    observations: list[Any] = []
    rewards: list[Any] = []
    ends = [True]
    for step in range(NUM_STEPS):
        if ends[-1]:
            result = attempt(where, "reset", env.reset, seed=None if step else 0)
            good = isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)
            require(good, where, "reset must return (observation, info dict)")
            observations.append(check_observation(where, "reset", result[0], env.observation_space))
        result = attempt(where, "step", env.step, random_action(env.action_space, rng))
        check_length(where, result)
        observation, reward, terminated, truncated, info = result
        observations.append(check_observation(where, "step", observation, env.observation_space))
        finite = isinstance(reward, int | float | np.number) and np.isfinite(reward)
        require(finite, where, f"step gave the reward {reward!r:.60}; it must be one finite number")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            require(isinstance(flag, bool | np.bool_), where, f"{name} is {flag!r:.60}; it must be a bool")
        require(isinstance(info, dict), where, f"info is a {type(info).__name__}; it must be a dict")
        rewards.append(float(reward))
        ends.append(bool(terminated or truncated))
    return observations, rewards, ends


def play_vector_env(where: str, env: Any, num_tasks: int) -> Played:
    """Some steps of a user's `VectorEnv`, each checked; returns (observations, rewards, ends)."""
    require(env.num_envs == num_tasks, where, f"make_vec has {env.num_envs} envs for {num_tasks} tasks")
    same_step = env.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP
    require(same_step, where, 'metadata["autoreset_mode"] must be AutoresetMode.SAME_STEP')
    check_spaces(where, env.single_observation_space, env.single_action_space)
    result = attempt(where, "reset", env.reset)
    good = isinstance(result, tuple) and len(result) == 2
    require(good, where, "reset must return (observations, infos)")
    returned, observations = [result[0]], [check_rows(where, "reset", result[0], env)]
    rng = np.random.default_rng(0)
    rewards: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    for _ in range(NUM_STEPS):
        actions = np.stack([random_action(env.single_action_space, rng) for _ in range(num_tasks)])
        result = attempt(where, "step", env.step, actions)
        check_length(where, result)
        returned.append(result[0])
        observations.append(check_rows(where, "step", result[0], env))
        rewards.append(np.array(result[1]))
        finite = rewards[-1].shape == (num_tasks,) and np.isfinite(rewards[-1]).all()
        require(finite, where, f"step gave the rewards {result[1]!r:.60}; give one finite number a task")
        for name, flags in (("terminated", result[2]), ("truncated", result[3])):
            flags = np.asarray(flags)
            good = flags.shape == (num_tasks,) and flags.dtype == bool
            require(good, where, f"{name} is {flags.dtype} {flags.shape}; it must be bool ({num_tasks},)")
        ends.append(np.logical_or(result[2], result[3]))
        complete = not ends[-1].any() or "final_obs" in result[4]
        require(
            complete, where, 'an episode ended without infos["final_obs"]; put the last observations there'
        )
    kept = np.array_equal(returned, observations)
    require(kept, where, "step changes observations that it returned before; return new arrays")
    return observations, rewards, ends


def check_length(where: str, result: Any) -> None:
    """Raise `EnvError` unless a step returned five values."""
    found = len(result) if isinstance(result, tuple) else type(result).__name__
    text = f"step returned {found} values, not 5: observation, reward, terminated, truncated, info"
    require(found == 5, where, text)


def random_action(space: Any, rng: np.random.Generator) -> Any:
    """An action of a Discrete or bounded Box space."""
    if isinstance(space, Discrete):
        return space.dtype.type(space.start + rng.integers(space.n))
    return rng.uniform(space.low, space.high).astype(space.dtype)


def check_observation(where: str, name: str, observation: Any, space: Any) -> np.ndarray:
    """A copy of the observation (the environment may reuse its array), if it belongs to the space."""
    if isinstance(space, Box):
        good = isinstance(observation, np.ndarray)
        require(good, where, f"{name} gave a {type(observation).__name__} as observation; return an array")
        found = f"{observation.dtype} {observation.shape}"
        good = observation.shape == space.shape and observation.dtype == space.dtype
        require(good, where, f"{name} gave an observation {found}; the space is {space.dtype} {space.shape}")
        require(np.isfinite(observation).all(), where, f"{name} gave an observation that is not finite")
    text = f"{name} gave the observation {observation!r:.60}, outside {space!r:.100}"
    require(space.contains(observation), where, text)
    return np.array(observation)


def check_rows(where: str, name: str, observations: Any, env: VectorEnv) -> np.ndarray:
    """A copy of the observations `[N, ...]`, if each belongs to the space."""
    shape, dtype = env.observation_space.shape, env.single_observation_space.dtype
    array = np.asarray(observations)
    good = isinstance(observations, np.ndarray) and array.shape == shape and array.dtype == dtype
    text = f"{name} gave observations {array.dtype} {array.shape}; they must be an array {dtype} {shape}"
    require(good, where, text)
    return np.stack([check_observation(where, name, row, env.single_observation_space) for row in array])
