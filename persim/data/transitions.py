"""The logged transitions of a population as arrays, and the file that keeps them."""

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from common.runs.files import write_atomic
from persim.data.checks import Place, check, fault
from persim.data.npz import read_arrays

FORMAT = 1
# Kinds of numbers and number of axes of each array of the file; covariates are `covariate.NAME`.
LAYOUT = {
    "format": ("i", 0),
    "names": ("U", 1),
    "state_names": ("U", 1),
    "action_names": ("U", 1),
    "agent": ("iu", 1),
    "time": ("iu", 1),
    "state": ("f", 2),
    "action": ("iuf", (1, 2)),
    "reward": ("f", 1),
    "next_state": ("f", 2),
}
COVARIATE, LABELS = "covariate.", "action_labels"
OPTIONAL = {COVARIATE: ("f", 1), LABELS: ("U", 1)}


@dataclasses.dataclass(frozen=True, eq=False)
class Transitions:
    """N transitions of n agents, ordered by agent, then by time.

    `agent` [N] int64 indexes `names` (n strings, all different); `time` [N] int64 grows within an agent, and
    two rows of an agent follow one another where it grows by 1. `state` and `next_state` are [N, d] float32;
    `action` is [N] int64 (discrete) or [N, a] float32; `reward` is [N] float32. `covariates` maps names to
    [n] float64, one value an agent; None where they are not known. `action_labels` are what categories of
    actions are called, by number; None where they are numbered. `step` (size, unit "s" or "") is the time
    between two rows that follow one another; it is no part of what is stored or compared.
    """

    names: list[str]
    agent: np.ndarray
    time: np.ndarray
    state: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_state: np.ndarray
    state_names: list[str]
    action_names: list[str]
    covariates: dict[str, np.ndarray] | None = None
    action_labels: list[str] | None = None
    step: tuple[float, str] = (1.0, "")

    def __len__(self) -> int:
        return len(self.agent)

    @property
    def num_agents(self) -> int:
        """n."""
        return len(self.names)

    @property
    def discrete(self) -> bool:
        """Whether actions are whole numbers [N] rather than vectors [N, a]."""
        return self.action.ndim == 1

    def starts(self, seen: int | None = None) -> np.ndarray:
        """The row [N] with which the unbroken run of steps begins that each row belongs to.

        States of which only the first `seen` coordinates count (default: all) go on in one another.
        """
        follows = (np.diff(self.agent) == 0) & (np.diff(self.time) == 1)
        follows &= (self.next_state[:-1, :seen] == self.state[1:, :seen]).all(1)
        rows = np.arange(len(self))
        return np.maximum.accumulate(np.where(np.concatenate([[False], follows]), 0, rows))

    def at(self, rows: np.ndarray) -> "Transitions":
        """The rows [M], numbers or [N] bool, of the same agents, of whom some may have none."""
        names = ("agent", "time", "state", "action", "reward", "next_state")
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in names})

    def of(self, agents: Any) -> "Transitions":
        """What the agents with the numbers `agents` [m] did, who become agents 0..m - 1, in that order."""
        agents = np.asarray(agents)
        rows = np.concatenate([np.flatnonzero(self.agent == agent) for agent in agents])
        arrays = {
            name: getattr(self, name)[rows] for name in ("time", "state", "action", "reward", "next_state")
        }
        counts = [(self.agent == agent).sum() for agent in agents]
        covariates = {name: values[agents] for name, values in (self.covariates or {}).items()}
        return dataclasses.replace(
            self,
            names=[self.names[agent] for agent in agents],
            agent=np.repeat(np.arange(len(agents)), counts),
            covariates=covariates or None,
            **arrays,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """All fields as named arrays, as they are stored."""
        texts = ("names", "state_names", "action_names")
        return {
            **{name: np.array(getattr(self, name), np.str_) for name in texts},
            **{name: getattr(self, name) for name in LAYOUT if name not in (*texts, "format")},
            **{f"{COVARIATE}{name}": value for name, value in (self.covariates or {}).items()},
            **({LABELS: np.array(self.action_labels, np.str_)} if self.action_labels else {}),
        }

    def digest(self) -> str:
        """SHA-256 over names, kinds, shapes and bytes of all arrays, as hexadecimal text."""
        whole = hashlib.sha256()
        for name, array in self.arrays().items():
            # Texts are padded by kind: their width is no part of what they say.
            data = json.dumps(array.tolist()).encode() if array.dtype.kind == "U" else array.tobytes()
            kind = "text" if array.dtype.kind == "U" else array.dtype.str
            whole.update(f"{name} {kind} {array.shape} {len(data)}\n".encode())
            whole.update(data)
        return whole.hexdigest()

    def save(self, path: str | Path) -> None:
        """Write one .npz at `path`, completely or not at all."""
        file = io.BytesIO()
        arrays: dict[str, Any] = self.arrays()
        np.savez(file, format=np.int64(FORMAT), **arrays)
        write_atomic(Path(path), file.getvalue())

    @classmethod
    def load(cls, path: str | Path, family: Any = None) -> "Transitions":
        """Read what `save` wrote; nothing in the file is run.

        Raises `UserError`, one line that starts with `file:array:index`, for anything else and for what
        `persim.data.checks.check` refuses.
        """

        def place(array: str, *index: int) -> str:
            return ":".join([str(path), array, ",".join(map(str, index)) or "0"])

        arrays = read_arrays(Path(path), LAYOUT, OPTIONAL)
        if arrays["format"] != FORMAT:
            raise fault(place("format"), f"is {arrays['format']}, not {FORMAT}; save it with this version")
        _check_lengths(arrays, place)
        fields: dict[str, Any] = {
            key: arrays[key].tolist() for key in ("names", "state_names", "action_names")
        }
        fields |= {key: arrays[key].astype(np.int64) for key in ("agent", "time")}
        action = "f4" if arrays["action"].dtype.kind == "f" else "i8"
        with np.errstate(over="ignore"):  # what is beyond 32 bits becomes infinite, and is refused as that
            fields |= {key: arrays[key].astype(np.float32) for key in ("state", "reward", "next_state")}
            fields["action"] = arrays["action"].astype(action)
        covariates = {k.removeprefix(COVARIATE): v for k, v in arrays.items() if k.startswith(COVARIATE)}
        labels = arrays[LABELS].tolist() if LABELS in arrays else None
        data = cls(**fields, covariates=covariates or None, action_labels=labels)
        check(data, place, family)
        return data


def _check_lengths(arrays: dict[str, np.ndarray], place: Place) -> None:
    """Refuse stored arrays that do not fit one another, and names that are not all different."""
    rows, (n, d) = len(arrays["agent"]), (len(arrays["names"]), len(arrays["state_names"]))
    action = arrays["action"]
    a = [] if action.ndim == 1 else [len(arrays["action_names"])]
    wanted = {
        "time": [rows],
        "state": [rows, d],
        "next_state": [rows, d],
        "reward": [rows],
        "action": [rows, *a],
        "action_names": a or [1],
        **{name: [n] for name in arrays if name.startswith(COVARIATE)},
    }
    for name, shape in wanted.items():
        if list(arrays[name].shape) != shape:
            raise fault(
                place(name), f"has shape {list(arrays[name].shape)}; the other arrays ask for {shape}"
            )
    if (action.ndim == 1) != (action.dtype.kind != "f"):
        raise fault(place("action"), "give whole numbers [N], or real numbers [N, a]")
    for name in ("names", "state_names", "action_names"):
        texts, first = np.unique(arrays[name], return_index=True)
        if len(texts) < len(arrays[name]):
            twice = min(set(range(len(arrays[name]))) - set(first.tolist()))
            raise fault(place(name, twice), f"{str(arrays[name][twice])!r} is there twice; give other names")
