"""Networks as files that run without this project, each with a card for whoever has to judge it."""

import dataclasses
import hashlib
import importlib.util
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
from gymnasium.spaces import Discrete
from torch import nn

from common.errors import UserError
from common.evaluation import Row
from common.rollout import bounded, stretch, whole
from common.runs import files

PACKAGES = ("torch", "numpy", "gymnasium", "mujoco")
FORMAT = 2  # of index.json
OPSET = 17  # of ONNX
Section = tuple[str, str]  # heading and text of a card


@dataclasses.dataclass(frozen=True)
class Port:
    """One input or output: an example of two rows along `axis`, and in words what it is."""

    example: torch.Tensor
    meaning: str
    axis: int = 0

    @property
    def shape(self) -> list[int | str]:
        """Its shape, "B" where rows are counted."""
        return ["B" if i == self.axis else size for i, size in enumerate(self.example.shape)]

    @property
    def description(self) -> dict[str, Any]:
        """Type and shape."""
        return {"dtype": str(self.example.dtype).removeprefix("torch."), "shape": self.shape}


@dataclasses.dataclass(frozen=True)
class Network:
    """What becomes a file: a module that maps the inputs, in their order, to the outputs.

    `entry` are its facts in index.json; `card` has sections on what it is for, `notes` follow its inputs and
    outputs.
    """

    name: str  # of the file, without its suffix
    title: str
    module: nn.Module
    inputs: dict[str, Port]
    outputs: dict[str, Port]
    card: list[Section]
    entry: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: str = ""


def check(folder: str, onnx: bool) -> None:
    """Refuse, before any work, a folder that holds anything, and ONNX where its package is missing."""
    if onnx and not folder:
        raise UserError("--onnx: adds files to those of --export; give --export FOLDER too")
    if onnx and importlib.util.find_spec("onnx") is None:
        raise UserError("--onnx: needs the package onnx; pip install -e '.[onnx]'")
    path = Path(folder)
    if folder and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"--export {folder}: is there and not an empty folder; choose a new one")


def export(folder: str, networks: list[Network], index: dict[str, Any], onnx: bool = False) -> None:
    """Write NAME.pt, NAME.md and, with `onnx`, NAME.onnx for each network, and index.json; all or nothing.

    `index` are facts about all of them. Call it on one rank only. Raises UserError for a folder that holds
    anything, OSError if the disk refuses.
    """
    check(folder, onnx)
    writers = {"pt": torchscript, "onnx": onnx_model} if onnx else {"pt": torchscript}
    contents: dict[str, bytes] = {}
    entries = []
    for network in networks:
        made = {f"{network.name}.{suffix}": write(network) for suffix, write in writers.items()}
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in made.items()}
        name, text = f"{network.name}.md", card(network, made, digests).encode()
        entry = {**network.entry, "file": f"{network.name}.pt", "sha256": digests[f"{network.name}.pt"]}
        if onnx:
            entry |= {"onnx": f"{network.name}.onnx", "onnx_sha256": digests[f"{network.name}.onnx"]}
        entry |= {"card": name, "card_sha256": hashlib.sha256(text).hexdigest()}
        for side in ("inputs", "outputs"):
            entry[side] = {port: value.description for port, value in getattr(network, side).items()}
        entries.append(entry)
        contents |= {**made, name: text}
    contents["index.json"] = json.dumps({"format": FORMAT, **index, "files": entries}).encode() + b"\n"
    write_folder(Path(folder), contents)


def torchscript(network: Network) -> bytes:
    """The network as a TorchScript file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # Deprecated, yet the one format that both plain torch and C++ load without the code that made it.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # numbers of networks and layers are fixed
        torch.jit.save(torch.jit.trace(network.module.eval(), examples(network)), buffer)
    return buffer.getvalue()


def onnx_model(network: Network) -> bytes:
    """The network as an ONNX file, of any number of rows."""
    buffer: Any = io.BytesIO()  # its stubs know of paths alone
    ports = {**network.inputs, **network.outputs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, as above, and that another exporter is newer
        torch.onnx.export(
            network.module.eval(),
            examples(network),
            buffer,
            input_names=list(network.inputs),
            output_names=list(network.outputs),
            dynamic_axes={name: {port.axis: "B"} for name, port in ports.items()},
            opset_version=OPSET,
            dynamo=False,  # the newer exporter needs two more packages
        )
    return buffer.getvalue()


def examples(network: Network) -> tuple[torch.Tensor, ...]:
    """Inputs of two rows."""
    return tuple(port.example for port in network.inputs.values())


def card(network: Network, made: dict[str, bytes], digests: dict[str, str]) -> str:
    """The card in Markdown."""
    names, suffix = list(network.inputs), " in Python, or LibTorch in C++; nothing else is needed."
    ports = [
        (name, f"{port.description['dtype']} [{', '.join(map(str, port.shape))}]: {port.meaning}")
        for name, port in (network.inputs | network.outputs).items()
    ]
    use = f'`torch.jit.load("{network.name}.pt")({", ".join(names)})`{suffix}'
    called = f"In: {', '.join(names)}. Out: {', '.join(network.outputs)}."
    made_files = [
        (
            f"`{name}`",
            f"{'ONNX' if name.endswith('onnx') else 'TorchScript'}, {len(data):,} bytes, SHA-256 "
            f"`{digests[name]}`",
        )
        for name, data in made.items()
    ]
    sections = [
        *network.card[:-1],
        ("Input and output", "\n\n".join(filter(None, [use, called, bullets(ports), network.notes]))),
        network.card[-1],
        ("Files", bullets(made_files)),
    ]
    return "\n\n".join([f"# {network.title}", *(f"## {head}\n\n{text}" for head, text in sections)]) + "\n"


def bullets(pairs: list[tuple[str, Any]]) -> str:
    """A list of Markdown."""
    return "\n".join(f"- {name}: {text}" for name, text in pairs)


def figure(row: Row) -> str:
    """A row's mean, and its standard error if it has one."""
    return f"{row['mean']:.2f}" + ("" if row["se"] is None else f" ± {row['se']:.2f}")


def training(config: Any, iteration: int | None, *facts: tuple[str, Any]) -> Section:
    """The section of a card on how a run was trained; `facts` are a system's own."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    lines = [
        ("environment", config.environment),
        ("iterations", "not recorded" if iteration is None else f"{iteration:,}"),
        *facts,
        ("seed", config.seed),
        ("run", config.model_name),
        ("versions at export", ", ".join(f"{package} {number}" for package, number in versions.items())),
    ]
    return "How it was trained", bullets(lines)


def observation_port(space: Any) -> Port:
    """Observations as an environment gives them."""
    if isinstance(space, Discrete):
        return Port(torch.zeros(2, dtype=torch.int64), f"the observation, 0 to {space.n - 1}")
    return Port(torch.zeros(2, *space.shape), "the observation, as the environment gives it")


def action_port(space: Any) -> Port:
    """Actions as an environment takes them."""
    if isinstance(space, Discrete):
        return Port(torch.zeros(2, dtype=torch.int64), f"the most likely action, 0 to {space.n - 1}")
    low, high = (", ".join(f"{value:g}" for value in bound) for bound in (space.low, space.high))
    return Port(
        torch.zeros(2, *space.shape),
        f"the most likely action, in the environment's units, from ({low}) to ({high})",
    )


class ToSpace(nn.Module):
    """Actions `[B, ...]` of a network as environments take them; the same as `common.rollout.to_space`."""

    low: torch.Tensor
    high: torch.Tensor
    centre: torch.Tensor
    width: torch.Tensor
    limit: torch.Tensor

    def __init__(self, space: Any, scaled: bool = True):
        super().__init__()
        self.discrete, self.scaled = isinstance(space, Discrete), scaled
        if not self.discrete:
            self.rounded = scaled and whole(space)
            centre, half = stretch(space)
            limit = np.where(bounded(space), 1.0, np.inf)
            values = {"low": space.low, "high": space.high, "centre": centre, "width": half, "limit": limit}
            for name, value in values.items():
                self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32))

    def forward(self, action: torch.Tensor) -> torch.Tensor:
        """Actions stretched to the bounds of a Box, and clipped there."""
        if self.discrete:
            return action
        if self.scaled:
            action = torch.minimum(torch.maximum(action, -self.limit), self.limit)
            action = self.centre + self.width * action
            action = action.round() if self.rounded else action
        return torch.minimum(torch.maximum(action, self.low), self.high)


def one_hot(index: torch.Tensor, size: int) -> torch.Tensor:
    """Rows `[B, size]` of an index `[B]`; zeros where it is -1."""
    return (index[:, None] == torch.arange(size)).float()


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
