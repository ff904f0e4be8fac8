"""Tiny runs of all systems: the flags that make one, and whether two of them ended alike."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mpi_utils.comm import Comm
from train import parse_arguments

ITERATIONS = 30
TINY = {
    "rl2": "--meta_episode_len 10 --num_features 8 --meta_episodes_per_policy_update 12 "
    "--meta_episodes_per_learner_batch 6 --num_epochs 2 "
    f"--precision float32 --max_iters {ITERATIONS}",
    "rmdp": "--environment resource_gathering --num_agents 7 --num_policies 3 --num_features 8 "
    "--steps_per_policy 64 --envs_per_policy 4 --num_epochs 2 --num_minibatches 4 --warm_start_iters 5 "
    f"--max_iters {ITERATIONS}",
    "persim": "--num_models 2 --state_features 8 --num_minibatches 5 "
    f"--batch_size 37 --max_iters {ITERATIONS}",
    "caml": "--num_groups 3 --num_variants 2 --num_support 3 --max_episode_len 12 --num_features 8 "
    "--tasks_per_iteration 3 --pool_size 6 --num_medoids 2 --num_rollouts 4 --num_states 20 "
    f"--max_iters {ITERATIONS}",
}
# Sizes of the usual environments, which have no effect in others or on a log.
USUAL = {"rl2": "--num_states 3 --num_actions 2 --max_episode_len 5", "persim": "--num_agents 6"}


def tiny(system: str, *more: Any) -> list[str]:
    """Flags of a tiny run, and further ones."""
    usual = "" if {"--environment", "--dataset"} & set(map(str, more)) else USUAL.get(system, "")
    return [*usual.split(), *TINY[system].split(), *map(str, more)]


def flags(system: str, folder: Any, name: str, *more: Any) -> list[str]:
    """What follows `python -m train`."""
    where = ["--checkpoint_dir", str(folder), "--model_name", name, "--checkpoint_interval", "3"]
    return [system, *where, *tiny(system, *more)]


def settings(system: str, *more: str) -> Any:
    """The checked configuration of a tiny run; `more` are further flags."""
    return parse_arguments([system, *tiny(system, *more)], Comm())[1]


def leaves(state: Any, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """The leaves of a nested state by path `policy.weight`, as they are now: a learner goes on in place."""
    if isinstance(state, dict | list | tuple):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, np.array(state.detach().cpu().numpy() if hasattr(state, "detach") else state)


def flat(state: Any) -> dict[str, np.ndarray]:
    """All numbers of a nested state by path."""
    return {path: value for path, value in leaves(state) if value.dtype.kind in "biuf"}


def differing(a: Any, b: Any) -> list[str]:
    """Paths of what is not the same to the last bit in two states; NaN equals itself, and 0.0 is not -0.0."""
    one, other = ({path: plain(value) for path, value in leaves(state)} for state in (a, b))
    assert one and other, "nothing to compare"
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))


def plain(value: np.ndarray) -> Any:
    """What tells an array from all others."""
    return value.dtype.str, value.shape, repr(value) if value.dtype.kind == "O" else value.tobytes()


def same(a: Any, b: Any) -> bool:
    """Whether nothing differs."""
    return not differing(a, b)
