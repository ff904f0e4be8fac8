"""Policies as files that run without this project, each with a card for whoever has to judge it."""

import hashlib
import io
import json
import platform
import warnings
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from common.errors import UserError
from common.runs import files
from rmdp.cards import card
from rmdp.policy import Policies
from rmdp.report import Report

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco")


def check_folder(folder: Path, assignment: dict) -> None:
    """Refuse, before any work, what cannot be exported."""
    if not assignment:
        raise UserError("--export: no agent is assigned yet (cluster assigns halfway); use a later save")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--export {folder}: is there and not an empty folder; choose a new one")


class Exported(nn.Module):
    """One policy: raw observations `[B, D]` to the most likely actions."""

    def __init__(self, policy: Policies):
        super().__init__()
        self.policy = policy

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Actions `[B, ...]`."""
        return self.policy.most_likely(x[None])[0]


def torchscript(policies: Policies, j: int) -> bytes:
    """Policy j as a TorchScript file."""
    example = torch.zeros(2, policies.normaliser.mean.shape[-1])
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Deprecated, yet the one format that both plain torch and C++ load without the code that made it.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # numbers of policies and layers are fixed
        torch.jit.save(torch.jit.trace(Exported(policies.only(j)).eval(), example), buffer)
    return buffer.getvalue()


def export(folder: Path, policies: Policies, report: Report, settings: Any, iteration: int | None) -> None:
    """Write policy_J.pt and policy_J.md for each policy, and index.json; all of it or nothing.

    Call it on one rank only. Raises UserError for a folder that holds anything, OSError if the disk refuses.
    """
    check_folder(folder, report.state["assignment"])
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    contents: dict[str, bytes] = {}
    entries = []
    for row in report.policy_returns():
        j = row["policy"]
        name, data = f"policy_{j}.pt", torchscript(policies, j)
        digest = hashlib.sha256(data).hexdigest()
        text = card(row, report, settings, iteration, versions, (name, len(data), digest)).encode()
        contents[name], contents[f"policy_{j}.md"] = data, text
        entries.append(
            {
                "policy": j,
                "file": name,
                "sha256": digest,
                "agents": row["agents"],
                "return": row["mean"],
                "card": f"policy_{j}.md",
                "card_sha256": hashlib.sha256(text).hexdigest(),
            }
        )
    index = {
        "format": 1,
        "environment": report.config.environment,
        "algorithm": report.config.algorithm,
        "policies": entries,
        "policy_of_agent": np.asarray(report.policy_of).tolist(),
    }
    contents["index.json"] = json.dumps(index).encode() + b"\n"
    write_folder(folder, contents)


def write_folder(folder: Path, contents: dict[str, bytes]) -> None:
    """Write files beside the folder, then rename: a folder of that name is whole."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        files.remove_tree(temporary)
        files.make_folder(temporary)
        for name, data in contents.items():
            files.write_file(temporary / name, data)
        files.sync_folder(temporary)
        files.rename(temporary, folder)
    except OSError:
        with suppress(OSError):
            files.remove_tree(temporary)
        raise
    files.sync_folder(folder.parent)
