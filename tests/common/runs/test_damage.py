"""Every damage to a save is found, told in one line, and survived; no file can run code."""

import hashlib
import json
import os
import pickle
import shutil
import struct
import sys

import pytest
import torch

from common.runs import checkpoint
from common.runs.checkpoint import MANIFEST, STATE, TENSORS, CheckpointError
from common.runs.seeding import stream

NAMES = (TENSORS, STATE, MANIFEST)
DEEP = b"[" * 100_000 + b"]" * 100_000
unpickled = []
sys.addaudithook(lambda event, _: unpickled.append(event) if event == "pickle.find_class" else None)


@pytest.fixture
def saves(tmp_path):
    """Saves of steps 1 and 2, the second to be damaged."""
    for step in (1, 2):
        weights = torch.from_numpy(stream(step, "weights").standard_normal((5, 3)))
        checkpoint.save(tmp_path, step, {"weights": weights, "best": float("-inf"), "step": step})
    return tmp_path / "step_00000001", tmp_path / "step_00000002"


def assert_found(damaged, hint=""):
    unpickled.clear()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(damaged)
    assert str(damaged) in str(caught.value) and "\n" not in str(caught.value)
    assert hint in str(caught.value)
    found, reasons = checkpoint.newest_valid(damaged.parent)
    assert found == damaged.parent / "step_00000001" and checkpoint.load(found)[0] == 1
    assert len(reasons) == 1 and str(damaged) in reasons[0] and "\n" not in reasons[0]
    assert not unpickled


@pytest.mark.parametrize("name", NAMES)
def test_cut_missing_or_replaced_files(saves, name, promise):
    path = saves[1] / name
    whole = path.read_bytes()

    def found(hint=""):
        with promise("B4 files cut, missing, replaced"):
            assert_found(saves[1], hint)

    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        found(name)
    path.write_bytes(whole + b" ")
    found(name)
    path.unlink()
    found(name)
    path.mkdir()
    found()
    path.rmdir()
    os.mkfifo(path)
    found("not a regular file")
    path.unlink()
    outside = saves[0].parent / "outside"
    outside.write_bytes(whole)
    path.symlink_to(outside)
    found()
    path.unlink()
    shutil.copy(saves[0] / name, path)
    found()


@pytest.mark.parametrize("name", NAMES)
def test_every_flipped_bit(saves, name, promise):
    path = saves[1] / name
    whole = path.read_bytes()
    rng = stream(0, "evaluation")
    for position in rng.integers(len(whole), size=150):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with promise("B4 flipped bits"):
            assert_found(saves[1])
    path.write_bytes(whole)
    assert checkpoint.load(saves[1])[0] == 2


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_every_truncation(saves, name, promise):
    path = saves[1] / name
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with promise("B4 truncations, every length"):
            assert_found(saves[1], name)


def test_swapped_saves_and_links(saves, promise):
    first, second = saves
    (second / TENSORS).rename(second / "x")
    (second / STATE).rename(second / TENSORS)
    (second / "x").rename(second / STATE)
    with promise("B4 files cut, missing, replaced"):
        assert_found(second)
    shutil.rmtree(second)
    shutil.copytree(first, second)
    with promise("B4 files cut, missing, replaced"):
        assert_found(second, "is of step 1")
    shutil.rmtree(second)
    elsewhere = shutil.copytree(first, first.parent / "elsewhere")
    assert checkpoint.load(elsewhere)[0] == 1, "a save that was given another name stays one"
    second.symlink_to(elsewhere)
    with promise("B4 files cut, missing, replaced"):
        found, reasons = checkpoint.newest_valid(first.parent)
        assert found == first and "a link" in reasons[0]


MANIFESTS = {
    "no json": b"{",
    "a list": b"[]",
    "deep": DEEP[:4000],
    "not utf-8": b"\xff\xfe{}",
    "no files": {"files": None},
    "empty files": {"files": {}},
    "newer": {"format": 2},
    "format as text": {"format": "1"},
    "step": {"step": 3},
    "step as text": {"step": "2"},
    "path escape": {"files": {"../step_00000001/state.json": {"size": 1, "sha256": ""}}},
    "size as text": {"files": {TENSORS: {"size": "9", "sha256": ""}}},
    "size below zero": {"files": {TENSORS: {"size": -1, "sha256": ""}}},
    "too long": {"comment": "x" * 5000},
    "one more field": {"comment": ""},
}


@pytest.mark.promise("B4 broken manifests")
@pytest.mark.parametrize("kind", MANIFESTS)
def test_broken_manifests(saves, kind):
    path = saves[1] / MANIFEST
    broken = MANIFESTS[kind]
    if isinstance(broken, dict):
        broken = json.dumps(json.loads(path.read_bytes()) | broken, indent=1).encode()
    path.write_bytes(broken)
    assert_found(saves[1])


@pytest.mark.promise("C5 other settings, formats, data refused")
def test_a_newer_format_says_so(saves):
    path = saves[1] / MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 2'))
    assert_found(saves[1], "format 2, this program reads 1")


class Canary:
    """An object whose unpickling creates a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def hostile(canary):
    """Files an attacker may write, whose manifest is in order."""
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    overlap = json.dumps(header | {"b": header["a"]}).encode()
    beyond = json.dumps({"a": header["a"] | {"data_offsets": [0, 10**12]}}).encode()
    yield TENSORS, pickle.dumps(Canary(canary))
    yield STATE, pickle.dumps(Canary(canary))
    yield TENSORS, struct.pack("<Q", 2**62) + b"{}"
    yield TENSORS, struct.pack("<Q", len(overlap)) + overlap + bytes(8)
    yield TENSORS, struct.pack("<Q", len(beyond)) + beyond + bytes(8)
    yield TENSORS, struct.pack("<Q", len(DEEP)) + DEEP
    yield STATE, DEEP
    yield STATE, b'{"step": 2, "state": ' + b"9" * 10_000 + b"}"
    for state in (
        {"$tensor": "absent"},
        {"$tensor": []},
        {"$float": "1e5"},
        {"$object": "os.system"},
        [],
        None,
        {"$dict": 5},
        {"$dict": [[{"a": []}, 1]]},
        {"$tuple": None},
    ):
        yield STATE, json.dumps({"step": 2, "state": state}).encode()
    yield STATE, json.dumps({"step": 1, "state": {}}).encode()


def test_hostile_files_run_nothing(saves, promise):
    canary = saves[0].parent / "canary"
    original = {name: (saves[1] / name).read_bytes() for name in NAMES}
    for name, data in hostile(canary):
        contents = original | {name: data}
        manifest = json.loads(original[MANIFEST])
        manifest["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        contents[MANIFEST] = json.dumps(manifest, indent=1).encode()
        for each, content in contents.items():
            (saves[1] / each).write_bytes(content)
        checkpoint.read(saves[1])  # the sums agree: what stops it is that nothing of it is ever run
        with promise("F1 hostile saves"):
            assert_found(saves[1])
            assert not canary.exists()
