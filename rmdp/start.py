"""Policies that begin as those of another run, e.g. one for each agent from one for each group."""

from typing import Any

import numpy as np
import torch

from common.errors import UserError
from common.runs import checkpoint
from rmdp.assignment import contiguous
from rmdp.config import Config

ALIKE = ("environment", "num_agents", "num_features", "policy_network", "normalise_observations")
Start = dict[str, Any]


def read_start(config: Config) -> Start:
    """The run `--start_from`; raises `UserError` if its agents or networks are of another kind."""
    try:
        stored, state = checkpoint.open_run(config.start_from, "rmdp")
    except UserError as error:
        raise UserError(f"--start_from {error}") from None
    for name in ALIKE:
        if stored.get(name) != (wanted := getattr(config, name)):
            raise UserError(
                f"--start_from {config.start_from}: has --{name} {stored.get(name)}, not {wanted}"
            )
    if "policy_of" not in state["assignment"]:
        raise UserError(f"--start_from {config.start_from}: its agents have no policy yet; train it further")
    return {
        "policy_of": np.asarray(state["assignment"]["policy_of"]),
        "num_policies": stored["num_policies"],
        "policy": state["policy"],
        "critic": state["critic"],
    }


def assignment_from(start: Start, num_policies: int) -> np.ndarray:
    """An even assignment `[n]` to k policies that keeps agents together who had one policy at the start."""
    return contiguous(start["policy_of"].argsort(kind="stable"), num_policies)


def split(policy_of: np.ndarray, utility: np.ndarray, num_policies: int) -> np.ndarray:
    """The assignment `[n]` with one policy more than `policy_of [n]`, of `num_policies` policies.

    The policy whose agents have the lowest mean `utility [n]` is split: the new one gets the worse-off half.
    """
    count = np.bincount(policy_of, minlength=num_policies)
    mean = np.bincount(policy_of, utility, num_policies) / count.clip(1)
    agents = np.flatnonzero(policy_of == np.where(count > 1, mean, np.inf).argmin())
    divided = policy_of.copy()
    divided[agents[np.argsort(utility[agents], kind="stable")[: len(agents) // 2]]] = num_policies
    return divided


def begin(
    networks: dict[str, torch.nn.Module], start: Start, policy_of: np.ndarray, num_policies: int
) -> None:
    """Give each policy, and the critic's part of it, the weights of the one that most of its agents had.

    One without agents, which only a split leaves so, stays as it was.
    """
    before, source = start["policy_of"], list(range(num_policies))
    for j in np.unique(policy_of):
        source[j] = int(np.bincount(before[policy_of == j]).argmax())
    for part, module in networks.items():
        for name, own in module.state_dict().items():
            value = torch.as_tensor(start[part][name])
            each = len(own) == num_policies and len(value) == start["num_policies"]
            own.copy_(value[source] if each else value)  # a trunk that is shared has one row
