"""Saves that are all or nothing, verified before use, and never unpickled.

A save is a folder `step_00000120` in the run folder: tensors.safetensors, state.json and, written last,
manifest.json with the size and SHA-256 of both. It is written beside, synced and renamed, so that a folder of
that name is whole. SHA-256 finds accidents, not attackers; against those, no file can run code.
"""

import hashlib
import json
import re
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from common.errors import SaveError, UserError
from common.runs import files
from common.runs.encoding import decode, encode
from common.runs.run_folder import read_config
from common.shipped import EXAMPLES, here_or_shipped, shipped

FORMAT = 1
BEST = "best"  # the folder in a run's folder with the save of the best evaluation
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
STEP_NAME = re.compile(r"step_(\d{8,})(\.old)?")


class CheckpointError(UserError):
    """A save is damaged, or of a format that this program does not read."""


def save(run_dir: Path | str, step: int, state: dict[str, Any]) -> Path:
    """Write `state` as the save of `step` and return its folder; call it on one rank only.

    `state` nests dict, list and tuple of torch tensors, NumPy arrays, numbers, strings, bools and None
    (else TypeError). Raises SaveError if the disk refuses; older saves are then as they were.
    """
    run_dir = Path(run_dir)
    target = run_dir / f"step_{step:08d}"
    temporary = run_dir / f".{target.name}.tmp"
    contents = pack(step, state)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        files.remove_tree(temporary)
        files.make_folder(temporary)
        for name, data in contents.items():
            files.write_file(temporary / name, data)
        files.sync_folder(temporary)
        _replace(temporary, target)
    except OSError as error:
        with suppress(OSError):
            files.remove_tree(temporary)
        room = f"{sum(map(len, contents.values())) / 1e6:.1f} MB needed"
        with suppress(OSError):
            room += f", {shutil.disk_usage(run_dir).free / 1e6:.1f} MB free"
        raise SaveError(
            f"{target}: cannot be saved: {error.strerror} ({room}); make room and start again, "
            "older saves are untouched"
        ) from error
    return target


def _replace(temporary: Path, target: Path) -> None:
    """Put a finished save in its place; one of the same step stays, as `.old`, until that is done."""
    old = target.with_name(f"{target.name}.old")
    if target.exists() and old.exists():  # left by a crash at this very place
        _discard(target if _damage(target) else old)
    if target.exists():
        files.rename(target, old)
    files.rename(temporary, target)
    files.sync_folder(target.parent)
    _discard(old)


def _discard(folder: Path) -> None:
    """Remove a save; renamed first, so that half of one never bears the name of a save."""
    trash = folder.with_name(f".{folder.name}.removed.tmp")
    if folder.exists() or folder.is_symlink():
        files.remove_tree(trash)
        files.rename(folder, trash)
        files.remove_tree(trash)


def pack(step: int, state: dict[str, Any]) -> dict[str, bytes]:
    """Return the files of a save by name, the manifest last."""
    tensors: dict[str, torch.Tensor] = {}
    tree = encode(state, tensors)
    contents = {TENSORS: save_tensors(tensors), STATE: _json({"step": step, "state": tree})}
    described = {n: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in contents.items()}
    return contents | {MANIFEST: _json({"format": FORMAT, "step": step, "files": described})}


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, allow_nan=False).encode()


def read(path: Path | str) -> dict[str, bytes]:
    """Return the files of a save, verified against its manifest; CheckpointError names what is wrong."""
    path = Path(path)
    try:
        return _verified(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        named = f"{Path(error.filename).name}: " if isinstance(error, OSError) and error.filename else ""
        raise CheckpointError(f"{path}: not a valid save: {named}{reason}; use another one") from error


def _verified(path: Path) -> dict[str, bytes]:
    raw = files.read_regular(path / MANIFEST, 4096)
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError(f"{MANIFEST}: broken") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else None
        raise ValueError(f"{MANIFEST}: format {str(found)[:20]}, this program reads {FORMAT}")
    named = STEP_NAME.fullmatch(path.name)
    if named and int(named[1]) != manifest["step"]:
        raise ValueError(f"{MANIFEST}: is of step {str(manifest['step'])[:20]}")
    contents = {}
    for name in (TENSORS, STATE):  # our names, never the manifest's: those could lead out of the folder
        entry = manifest["files"][name]
        contents[name] = files.read_regular(path / name, entry["size"])
        if len(contents[name]) != entry["size"]:
            raise ValueError(f"{name}: {len(contents[name])} bytes instead of {entry['size']}")
        if hashlib.sha256(contents[name]).hexdigest() != entry["sha256"]:
            raise ValueError(f"{name}: contents differ from the manifest's SHA-256")
    described = {name: manifest["files"][name] for name in (TENSORS, STATE)}
    if raw != _json({"format": FORMAT, "step": manifest["step"], "files": described}):
        raise ValueError(f"{MANIFEST}: broken")  # a changed byte that the checks above do not read
    return contents | {MANIFEST: raw}


def unpack(contents: dict[str, bytes]) -> tuple[int, dict[str, Any]]:
    """Return step and state of a save's verified files; CheckpointError if they are not such."""
    try:
        tree = json.loads(contents[STATE])
        state = decode(tree["state"], load_tensors(contents[TENSORS]))
        if not isinstance(state, dict) or tree["step"] != json.loads(contents[MANIFEST])["step"]:
            raise ValueError("step or state of another kind")
        return tree["step"], state
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"not the contents of a save: {type(error).__name__}: {error}") from error


def load(path: Path | str) -> tuple[int, dict[str, Any]]:
    """Return step and state of a save, verified completely before anything is used; else CheckpointError."""
    contents = read(path)
    try:
        return unpack(contents)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}; use another one") from error


def _damage(path: Path) -> str:
    """Return what is wrong with a save in one line, empty if nothing is."""
    try:
        load(path)
    except CheckpointError as error:
        return " ".join(str(error).split())
    return ""


def _saves(run_dir: Path) -> list[Path]:
    """Return the folders that bear the name of a save, newest first, by their number and not by clocks."""
    found = [p for p in run_dir.iterdir() if STEP_NAME.fullmatch(p.name)] if run_dir.is_dir() else []
    return sorted(found, key=lambda p: (int(p.stem[len("step_") :]), p.suffix != ".old"), reverse=True)


def newest_valid(run_dir: Path | str) -> tuple[Path | None, list[str]]:
    """Return the newest whole save (None if there is none) and one line for each newer one skipped."""
    reasons: list[str] = []
    for path in _saves(Path(run_dir)):
        reason = f"{path}: not a valid save: a link" if path.is_symlink() else _damage(path)
        if not reason:
            return path, reasons
        if path.exists() or path.is_symlink():  # else the run, which is at work, has removed it meanwhile
            reasons.append(reason)
    return None, reasons


def prune(run_dir: Path | str, keep: int = 5) -> None:
    """Remove all but the newest `keep` saves and what killed runs left; never the newest valid save."""
    run_dir = Path(run_dir)
    newest, _ = newest_valid(run_dir)
    saves = _saves(run_dir)
    kept = [*[p for p in saves if p.suffix != ".old"][: max(1, keep)], newest]
    try:
        for path in saves:
            if path not in kept:
                _discard(path)
        for debris in run_dir.glob(".*.tmp"):
            files.remove_tree(debris)
    except OSError as error:
        raise SaveError(f"{run_dir}: cannot remove old saves: {error.strerror}; make it writable") from error


def save_best(run_dir: Path | str, step: int, state: dict[str, Any]) -> None:
    """Write `state` as the one save of the folder `best` in a run folder; call it on one rank only."""
    kept = save(Path(run_dir) / BEST, step, state)
    try:
        for path in _saves(kept.parent):
            if path != kept:
                _discard(path)
    except OSError as error:
        raise SaveError(f"{kept}: cannot remove older ones: {error.strerror}; make it writable") from error


def find(path: Path | str) -> tuple[dict[str, Any], Path, dict[str, bytes]]:
    """The settings of a run, the save to use (of a run folder or its folder `best` the newest valid one, or
    the one named) and its files, for `unpack`: a run that is at work may remove them.

    A line on standard error names each damaged newer save. Raises `UserError` where there is nothing to use.
    """
    path = here_or_shipped(Path(path).expanduser())
    named = path.name.startswith("step_")
    folder = path.parent if named else path
    is_best = folder.name == BEST and not (folder / "config.json").exists()  # not a run of that name
    run_dir = folder.parent if is_best else folder
    if not path.is_dir():
        raise UserError(
            f"{path}: no such run folder; `ls checkpoints {shipped(EXAMPLES)}` shows what there is"
        )
    stored = read_config(run_dir)
    if named:
        return stored, path, read(path)
    newest, contents, skipped = _read_newest(folder)
    for reason in skipped:
        print(f"warning: {reason}", file=sys.stderr)
    if newest is None:
        raise UserError(f"{folder}: holds no valid save")
    return stored, newest, contents


def _read_newest(run_dir: Path) -> tuple[Path | None, dict[str, bytes], list[str]]:
    """The newest whole save, its files, and what `newest_valid` says of newer ones.

    One that a run at work removes between two looks is no fault: there are newer ones by then.
    """
    while True:
        newest, skipped = newest_valid(run_dir)
        if newest is None and (skipped or not _saves(run_dir)):
            return None, {}, skipped
        if newest is not None:
            try:
                return newest, read(newest), skipped
            except CheckpointError:
                if newest.exists():
                    raise


def open_run(path: Path | str, system: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings and the state of a run of one system, to act with; raises `UserError`."""
    stored, _, contents = find(path)
    if stored.get("system") != system:
        raise UserError(f"{path}: a run of {stored.get('system')!r}, not of {system}")
    return stored, unpack(contents)[1]
