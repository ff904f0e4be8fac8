"""Tiny runs of all systems: the flags that make one, and whether two of them ended alike."""

from typing import Any

from mpi_utils.comm import Comm
from train import parse_arguments

ITERATIONS = 30
TINY = {
    "rl2": "--num_states 3 --num_actions 2 --max_episode_len 5 --meta_episode_len 10 --num_features 8 "
    "--meta_episodes_per_policy_update 12 --meta_episodes_per_learner_batch 6 --num_epochs 2 "
    f"--precision float32 --max_iters {ITERATIONS}",
    "rmdp": "--environment resource_gathering --num_agents 7 --num_policies 3 --num_features 8 "
    "--steps_per_policy 64 --envs_per_policy 4 --num_epochs 2 --num_minibatches 4 --warm_start_iters 5 "
    f"--max_iters {ITERATIONS}",
    "persim": "--num_agents 6 --num_models 2 --state_features 8 --action_features 8 --num_minibatches 5 "
    f"--batch_size 37 --max_iters {ITERATIONS}",
    "caml": "--num_groups 3 --num_variants 2 --num_support 3 --max_episode_len 12 --num_features 8 "
    "--tasks_per_iteration 3 --pool_size 6 --num_medoids 2 --num_rollouts 4 --num_states 20 "
    f"--max_iters {ITERATIONS}",
}


def flags(system: str, folder: Any, name: str) -> list[str]:
    """What follows `python -m train`."""
    where = ["--checkpoint_dir", str(folder), "--model_name", name, "--checkpoint_interval", "3"]
    return [system, *TINY[system].split(), *where]


def settings(system: str, *more: str) -> Any:
    """The checked configuration of a tiny run; `more` are further flags."""
    return parse_arguments([system, *TINY[system].split(), *more], Comm())[1]


def frozen(state: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of a nested state by path, as they are now: a learner goes on in place."""
    if isinstance(state, dict | list | tuple):
        items = state.items() if isinstance(state, dict) else enumerate(state)
        return {path: leaf for key, value in items for path, leaf in frozen(value, f"{prefix}/{key}").items()}
    if hasattr(state, "detach"):
        state = state.detach().cpu().contiguous().numpy()
    # Bytes: NaN equals itself, and 0.0 is not -0.0.
    plain = (str(state.dtype), state.shape, state.tobytes()) if hasattr(state, "tobytes") else repr(state)
    return {prefix: plain}


def differing(a: Any, b: Any) -> list[str]:
    """Paths of what is not the same to the last bit in two states, each of which may be frozen already."""
    a, b = frozen(a), frozen(b)
    assert a and b, "nothing to compare"
    return sorted(path for path in a.keys() | b.keys() if a.get(path) != b.get(path))
