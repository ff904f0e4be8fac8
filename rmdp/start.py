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


def begin(networks: dict[str, torch.nn.Module], start: Start, policy_of: np.ndarray) -> None:
    """Give each policy, and the critic's part of it, the weights of the one that most of its agents had."""
    num_policies, before = policy_of.max() + 1, start["policy_of"]
    source = [int(np.bincount(before[policy_of == j]).argmax()) for j in range(num_policies)]
    for part, module in networks.items():
        for name, own in module.state_dict().items():
            value = torch.as_tensor(start[part][name])
            each = len(own) == num_policies and len(value) == start["num_policies"]
            own.copy_(value[source] if each else value)  # a trunk that is shared has one row
