"""Promises of the real command that need no second rank: flags, settings, files of a run, the page itself."""

import dataclasses
import importlib
import json
import os
import random
import re
import stat
import subprocess
import sys

import pytest

from mpi_utils.comm import Comm
from tests.launch import ROOT, command
from tests.promises import COUNTED
from tests.test_kills import TINY, flags
from train import SYSTEMS, parse_arguments

BAD = [
    "",
    "-1",
    "0",
    "nan",
    "inf",
    "-inf",
    "1e18",
    "1" + "0" * 30,
    "../x",
    "/tmp/x",
    "a\nb",
    "\0",
    "x" * 10**6,
]
BAD += [
    "!!python/object:os.system",
    "{'a': {'b': 1}}",
    "${HOME}",
    "$(touch canary)",
    "--",
    "None",
    "\u0661",
    "1_0",
]


@pytest.mark.parametrize("system", SYSTEMS)
def test_hostile_flags_get_one_line_or_are_taken_as_they_are(system, tmp_path, monkeypatch, promise):
    """Each refused in one line; what is accepted is a checked setting, and no file is made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stderr", open(os.devnull, "w"))
    fields = [f.name for f in dataclasses.fields(importlib.import_module(f"{system}.config").Config)]
    rng, refused, trials = random.Random(system), 0, 150
    for _ in range(trials):
        name, value = rng.choice(fields), rng.choice(BAD)
        try:
            parse_arguments([system, f"--{name}", value], Comm())
        except Exception as error:
            assert getattr(error, "user_mistake", False) or type(error).__name__ == "UserError", (
                name,
                value,
            )
            assert "\n" not in str(error), (name, value[:20])
            refused += 1
    promise("E3 hostile flags", trials, 0)
    assert refused > trials / 2 and not list(tmp_path.iterdir())


def run(folder, *more):
    return command(1, "train", *flags("rl2", folder, "run"), "--max_iters", "1", *more)


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_other_settings_are_refused(tmp_path, promise):
    assert run(tmp_path).code == 0
    before = contents(tmp_path)
    other = "--num_features 9 --environment bandit --seed 5 --architecture gru".split()
    result = run(tmp_path, *other)
    assert result.code == 2 and "Traceback" not in result.output, result.output
    for told in ("num_features: 8 -> 9", "environment: tabular_mdp -> bandit", "seed: 0 -> 5", "lstm -> gru"):
        assert told in result.output, result.output
        promise("C5 other settings, formats, data refused", 1, 0)
    assert before == contents(tmp_path)


def test_files_of_a_run_are_quiet(tmp_path, monkeypatch, promise):
    """Nothing that others may write, no value of the environment."""
    monkeypatch.setenv("API_TOKEN", "very-secret-4711")
    mask = os.umask(0o022)
    try:
        assert run(tmp_path).code == 0
    finally:
        os.umask(mask)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH), path
        assert b"very-secret-4711" not in path.read_bytes(), path
    promise("F4 quiet files", len(files), 0)


PICKLED = {  # where ranks send each other objects: when they start, and once a save
    "rl2/problem.py", "caml/problem.py", "caml/baselines.py", "rmdp/rollout.py",
    "mpi_utils/watchdog.py", "mpi_utils/comm.py", "mpi_utils/loop.py",
}  # fmt: skip


def test_ranks_send_objects_only_when_they_start(promise):
    files = [p for place in (*SYSTEMS, "common", "mpi_utils") for p in (ROOT / place).rglob("*.py")]
    using = {
        str(p.relative_to(ROOT)) for p in files if re.search(r"(bcast|allgather)_object\(", p.read_text())
    }
    promise("F5 files scanned", len(files), len(using - PICKLED))
    assert using <= PICKLED


def test_every_named_test_exists():
    """Those of which cases are counted, and those that the page of promises names."""
    page = (ROOT / "docs" / "promises.md").read_text()
    named = {test for tests in COUNTED.values() for test in tests}
    named |= set(re.findall(r"`(tests/[\w/]+\.py::\w+)`", page))
    assert len(named) > 50
    for test in named:
        path, _, name = test.partition("::")
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.M), test


def test_the_page_has_every_promise():
    page = (ROOT / "docs" / "promises.md").read_text()
    ids = [
        f"{group}{i}"
        for group, n in zip("ABCDEFG", (7, 8, 6, 5, 3, 5, 4), strict=True)
        for i in range(1, n + 1)
    ]
    assert [i for i in ids if not re.search(rf"^\| {i} \|", page, re.M)] == []
    assert len(TINY) == len(SYSTEMS)


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_the_checks_cost_at_most_two_percent(promise):
    result = json.loads(subprocess.check_output([sys.executable, "-m", "benchmarks.safety"], cwd=ROOT))
    ratio, save = result["checked_over_unchecked"], result["save_of_10_MB_s"]
    promise(f"G4 hot loop, checked over unchecked {ratio}", 1, int(ratio > 1.02))
    promise("G4 save of 10 MB", 5, int(save > 0.3), save)
    assert ratio <= 1.02 and save <= 0.3
