"""Policies as files that run without this project, each with a card for whoever has to judge it."""

import hashlib
import io
import json
import platform
import warnings
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from common.errors import UserError
from common.runs import files
from rmdp.cards import card
from rmdp.policy import CLIP
from rmdp.report import Report

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco")


def check_folder(folder: Path, assignment: dict) -> None:
    """Refuse, before any work, what cannot be exported."""
    if not assignment:
        raise UserError("--export: nobody is assigned yet (cluster assigns halfway); use a later save")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"--export {folder}: is there and not an empty folder; choose a new one")


class Frozen(nn.Module):
    """Policy j of `Policies` alone: raw observations `[B, D]` to the most likely actions."""

    def __init__(self, policies, j: int):
        super().__init__()
        self.normalise, self.discrete = policies.normaliser.active, policies.discrete
        for name in ("first", "second", "head"):
            layer = getattr(policies, name)
            row = j if len(layer.weight) > 1 else 0  # a shared trunk has one row for all
            self.register_buffer(f"{name}_weight", layer.weight[row].detach().clone())
            self.register_buffer(f"{name}_bias", layer.bias[row, 0].detach().clone())
        self.register_buffer("mean", policies.normaliser.mean[j, 0].float())
        self.register_buffer("scale", (policies.normaliser.variance[j, 0] + 1e-8).rsqrt().float())

    def forward(self, x):
        if self.normalise:
            x = ((x - self.mean) * self.scale).clamp(-CLIP, CLIP)
        x = torch.tanh(torch.addmm(self.first_bias, x, self.first_weight))
        x = torch.tanh(torch.addmm(self.second_bias, x, self.second_weight))
        x = torch.addmm(self.head_bias, x, self.head_weight)
        return x.argmax(-1) if self.discrete else x


def torchscript(policies, j: int) -> bytes:
    """Policy j as a TorchScript file."""
    example = torch.zeros(2, policies.normaliser.mean.shape[-1])
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Deprecated, yet the one format that both plain torch and C++ load without the code that made it.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(Frozen(policies, j).eval(), example), buffer)
    return buffer.getvalue()


def export(folder: Path, policies, report: Report, stored: dict, settings) -> None:
    """Write policy_J.pt and policy_J.md for each policy, and index.json; all of it or nothing.

    Call it on one rank only. Raises UserError for a folder that holds anything, OSError if the disk refuses.
    """
    check_folder(folder, report.state["assignment"])
    versions = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    contents, entries = {}, []
    for row in report.policy_returns():
        j = row["policy"]
        name, data = f"policy_{j}.pt", torchscript(policies, j)
        digest = hashlib.sha256(data).hexdigest()
        text = card(row, report, stored, settings, versions, (name, len(data), digest)).encode()
        contents |= {name: data, f"policy_{j}.md": text}
        entries.append(
            {"policy": j, "file": name, "sha256": digest, "agents": row["agents"], "return": row["mean"]}
            | {"card": f"policy_{j}.md", "card_sha256": hashlib.sha256(text).hexdigest()}
        )
    index = {"format": 1, "environment": report.config.environment, "algorithm": report.config.algorithm}
    index |= {"policies": entries, "policy_of_agent": report.policy_of.tolist()}
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
