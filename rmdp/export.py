"""Policies as files that run without this project, each with a card of the agents it serves."""

from typing import Any

import numpy as np
import torch
from torch import nn

from common import export as shared
from common.errors import UserError
from common.export import Network
from rmdp.cards import Served, meanings, sections
from rmdp.policy import Policies


def check_assigned(assignment: dict[str, Any]) -> None:
    """Refuse, before any work, a save whose policies have no agents yet."""
    if not assignment:
        raise UserError("--export: no agent is assigned yet (cluster assigns halfway); use a later save")


class Exported(nn.Module):
    """One policy: raw observations `[B, D]` to the most likely actions."""

    def __init__(self, policy: Policies, action_space: Any):
        super().__init__()
        self.policy, self.to_space = policy, shared.ToSpace(action_space, policy.scaled)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Actions `[B, ...]`."""
        return self.to_space(self.policy.most_likely(x[None])[0])


def export(policies: Policies, served: Served, settings: Any, iteration: int | None, env_steps: int) -> None:
    """Write each policy with its card to the folder `settings.export`; on one rank only."""
    family = served.family
    observation, action = meanings(family)
    networks = [
        Network(
            name=f"policy_{row['policy']}",
            title=f"Policy {row['policy']} of {served.config.num_policies}: {served.config.environment}",
            module=Exported(policies.only(row["policy"]), family.action_space),
            inputs={"observation": observation},
            outputs={"action": action},
            card=sections(row, served, settings, iteration, env_steps),
            entry={"policy": row["policy"], "agents": row["agents"], "return": row["mean"]},
        )
        for row in served.rows
    ]
    index = {
        "system": "rmdp",
        "environment": served.config.environment,
        "algorithm": served.config.algorithm,
        "policy_of_agent": np.asarray(served.policy_of).tolist(),
    }
    shared.export(settings.export, networks, index, settings.onnx)
