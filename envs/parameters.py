"""Refusing what cannot work: checks of sizes and of stacked task parameters."""

import numbers
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete, Space


class EnvError(ValueError):
    """A user's mistake about environments or populations; its text is one line: where, what, what to do."""

    user_mistake = True  # so that all ranks leave together with this line and exit code 2

    def __init__(self, text: str):
        super().__init__(" ".join(text.split()))


def one_line(error: BaseException) -> str:
    """Kind and text of an exception, at most 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def told(error: BaseException) -> str:
    """An exception of a user's code in one line, with the place in that code."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    own = bool(frames) and Path(frames[-1].filename).parent != Path(__file__).parent
    return one_line(error) + (f" ({frames[-1].filename}, line {frames[-1].lineno})" if own else "")


def shown(task: dict[str, Any]) -> str:
    """A task's parameters in one line; numbers are whole, of arrays the ends are shown."""

    def short(value: Any) -> str:
        value = np.asarray(value)
        return repr(value.item()) if value.ndim == 0 else np.array2string(value, threshold=6, edgeitems=2)

    return "{" + ", ".join(f"{name!r}: {short(value)}" for name, value in task.items()) + "}"


def check_sizes(where: str, **sizes: Any) -> None:
    """Raise `EnvError` unless every size is a whole number of at least 1."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
            raise EnvError(f"{where}: {name} is {value!r}; give a whole number of at least 1")


def check_parameters(where: str, parameters: Any, num_tasks: int | None = None) -> dict[str, np.ndarray]:
    """Task parameters as arrays `[n, ...]` of one length n (`num_tasks` if given), finite numbers only."""
    if not isinstance(parameters, Mapping) or not parameters:
        kind = type(parameters).__name__
        raise EnvError(f"{where}: parameters are an empty or wrong {kind}; give a dict of arrays [n, ...]")
    arrays = {}
    for name, value in parameters.items():
        if not isinstance(name, str):
            raise EnvError(f"{where}: a parameter is named {name!r}; names must be strings")
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise EnvError(f"{where}: parameter {name!r} is ragged; give one array [n, ...]") from error
        if array.dtype.kind not in "fiub":
            raise EnvError(f"{where}: parameter {name!r} has dtype {array.dtype}; give real numbers")
        if array.ndim == 0:
            raise EnvError(f"{where}: parameter {name!r} is one number; its first axis must be the tasks")
        if num_tasks is None:
            num_tasks = len(array)
        if len(array) != num_tasks:
            text = f"parameter {name!r} has {len(array)} rows for {num_tasks} tasks; give one row a task"
            raise EnvError(f"{where}: {text}")
        finite = np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
        if not finite.all():
            text = f"parameter {name!r} of task {finite.argmin()} is not finite; give finite numbers"
            raise EnvError(f"{where}: {text}")
        arrays[name] = array
    return arrays


def check_shapes(where: str, arrays: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise `EnvError` unless `arrays` has exactly the named parameters, each `[n, *shape]`."""
    if set(arrays) != set(shapes):
        raise EnvError(f"{where}: parameters are {sorted(arrays)}; it takes {sorted(shapes)}")
    for name, shape in shapes.items():
        if arrays[name].shape[1:] != shape:
            found = list(arrays[name].shape)
            text = f"parameter {name!r} has shape {found}; give {[len(arrays[name]), *shape]}"
            raise EnvError(f"{where}: {text}")


def check_actions(actions: Any, space: Space[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Actions of N environments as an array of `shape`, each in a Discrete `space` or finite for a Box."""
    actions = np.asarray(actions)
    if actions.shape != shape:
        raise EnvError(f"actions have shape {list(actions.shape)}; give {list(shape)}")
    if isinstance(space, Discrete):
        # Out of range would silently read another task's row of flat tables.
        inside = actions.size == 0 or (actions.min() >= 0 and actions.max() < space.n)
        if actions.dtype.kind not in "iu" or not inside:
            raise EnvError(f"actions must be whole numbers in 0..{space.n - 1}")
    elif actions.dtype.kind not in "fiu" or not np.isfinite(actions).all():
        raise EnvError("actions must be finite numbers")
    return actions
