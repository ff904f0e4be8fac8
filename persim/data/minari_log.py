"""Minari datasets: each episode is one agent."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from persim.data.checks import check, check_size, fault
from persim.data.transitions import Transitions

MAX_METADATA = 1 << 24  # bytes
ARRAYS = ("observations", "actions", "rewards")


def read_minari(folder: Path, family: Any = None) -> Transitions:
    """The transitions of a Minari dataset kept as HDF5, an agent `episode_0`, `episode_1`, ... an episode.

    `folder` is the dataset's own or its `data`. Minari is not imported: it would make an environment that
    the file names. Faults are placed at `file:episode/array:index`. Raises `UserError`, for: no h5py (extra
    [data]); a damaged dataset, or one with links; observations that are no vectors; actions that are neither
    whole numbers nor vectors; an episode without steps; and what `persim.data.checks.check` refuses.
    """
    folder = folder / "data" if (folder / "data").is_dir() else folder
    described, path = folder / "metadata.json", folder / "main_data.hdf5"
    for file in (described, path):
        if not file.is_file() or file.is_symlink():
            text = "no such file; give the folder of a Minari dataset with data_format hdf5"
            raise fault(str(file), text)
    try:
        import h5py
    except ImportError:
        raise fault(str(path), "Minari needs h5py; pip install 'personalised-meta-rl[data]'") from None
    try:
        start = _first_action(described)
        with h5py.File(path, "r") as file:
            episodes = _check_content(h5py, file, path)
            arrays = [_episode(file[f"episode_{i}"], f"{path}:episode_{i}", start) for i in episodes]
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail in any way, and every way means the same
        kind = f"{type(error).__name__}: {error}"[:200]
        raise fault(str(path), f"cannot be read as Minari ({kind}); write it again") from None
    if not arrays:
        raise fault(str(path), "there are no episodes; give at least one")
    return _join(episodes, arrays, path, family)


def _first_action(described: Path) -> int | None:
    """The number of the first action where actions are whole numbers, None where they are vectors."""
    if described.stat().st_size > MAX_METADATA:
        raise fault(str(described), f"more than {MAX_METADATA} bytes; give Minari's metadata")
    metadata = json.loads(described.read_bytes())
    spaces = []
    for name in ("observation_space", "action_space"):
        if not isinstance(metadata.get(name), str):
            raise fault(f"{described}:{name}", "is missing; write the dataset with both spaces")
        spaces.append(json.loads(metadata[name]))
    observation, action = spaces
    if observation["type"] != "Box" or len(observation["shape"]) != 1:
        raise fault(f"{described}:observation_space", f"is {observation['type']}; give a one-dimensional Box")
    if action["type"] == "Discrete":
        return int(action["start"])
    if action["type"] != "Box" or len(action["shape"]) != 1:
        raise fault(
            f"{described}:action_space", f"is {action['type']}; give Discrete or a one-dimensional Box"
        )
    return None


def _check_content(h5py: Any, file: Any, path: Path) -> list[int]:
    """The episodes' numbers; refuses links, which may lead out of the file, and more than a file can hold."""
    total, episodes = 0, sorted(int(name[8:]) for name in file if re.fullmatch(r"episode_\d{1,9}", name))
    for name in [f"episode_{i}{array}" for i in episodes for array in ("", *(f"/{a}" for a in ARRAYS))]:
        link = file.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise fault(f"{path}:{name}", "is missing or a link; write the data themselves")
        item = file[name]
        if isinstance(item, h5py.Dataset):
            if item.is_virtual or item.external:
                raise fault(f"{path}:{name}", "is kept in another file; write the data themselves")
            total += math.prod(item.shape) * item.dtype.itemsize
    check_size(str(path), total)
    return episodes


def _episode(group: Any, place: str, start: int | None) -> dict[str, np.ndarray]:
    axes_of, arrays = (2, 2 if start is None else 1, 1), {}
    for name, axes in zip(ARRAYS, axes_of, strict=True):
        kinds = "iu" if name == "actions" and start is not None else "fiu"
        if group[name].dtype.kind not in kinds or group[name].ndim != axes:
            found = f"{group[name].dtype} {list(group[name].shape)}"
            raise fault(f"{place}/{name}:0", f"holds {found}; give numbers with {axes} axes")
        arrays[name] = group[name][()]
    steps = len(arrays["rewards"])
    if start is not None:
        arrays["actions"] = arrays["actions"].astype(np.int64) - start
    if not steps:
        raise fault(f"{place}/rewards:0", "the episode has no steps; leave it out")
    if len(arrays["actions"]) != steps or len(arrays["observations"]) != steps + 1:
        lengths = ", ".join(f"{len(array)} {name}" for name, array in arrays.items())
        raise fault(f"{place}/observations:{steps}", f"{lengths}; give one more observation than steps")
    return arrays


def _join(episodes: list[int], arrays: list[dict], path: Path, family: Any) -> Transitions:
    steps = [len(episode["rewards"]) for episode in arrays]
    agent, first = np.repeat(np.arange(len(steps)), steps), np.cumsum([0, *steps])
    time = np.arange(first[-1]) - first[agent]
    for name in ("observations", "actions"):
        if len({episode[name].shape[1:] for episode in arrays}) > 1:
            raise fault(f"{path}:{name}", "episodes have vectors of different lengths; write it again")

    def whole(name: str, part: slice = slice(None), dtype: Any = np.float32) -> np.ndarray:
        with np.errstate(over="ignore"):  # beyond 32 bits becomes infinite, and is refused as that
            return np.concatenate([episode[name][part] for episode in arrays], dtype=dtype)

    def place(array: str, row: int = 0, *column: int) -> str:
        name = {"action": "actions", "reward": "rewards"}.get(array, "observations")
        index = ",".join(map(str, (int(time[row]) + (array == "next_state"), *column)))
        return f"{path}:episode_{episodes[agent[row]]}/{name}:{index}"

    action = whole("actions", dtype=np.int64 if arrays[0]["actions"].ndim == 1 else np.float32)
    data = Transitions(
        names=[f"episode_{i}" for i in episodes],
        agent=agent,
        time=time,
        state=whole("observations", slice(None, -1)),
        action=action,
        reward=whole("rewards"),
        next_state=whole("observations", slice(1, None)),
        state_names=[f"state_{i}" for i in range(arrays[0]["observations"].shape[1])],
        action_names=["action"] if action.ndim == 1 else [f"action_{i}" for i in range(action.shape[1])],
    )
    check(data, place, family)
    return data
