"""Promises of the real command that need no second rank: flags, settings, files of a run, the page itself."""

import ast
import dataclasses
import json
import os
import random
import re
import stat
import subprocess
import sys

import pytest

from common.errors import is_user_mistake
from mpi_utils.comm import Comm
from tests.helpers.launch import ROOT, command
from tests.helpers.runs import flags, settings
from tests.helpers.source import called, functions, parsed
from train import SYSTEMS, make_learner, parse_arguments

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


@pytest.mark.slow
@pytest.mark.parametrize("trials", [30, pytest.param(150, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("system", SYSTEMS)
def test_hostile_flags_get_one_line_or_are_taken_as_they_are(system, trials, tmp_path, monkeypatch, promise):
    """Each refused in one line; what is accepted is a checked setting, and no file is made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stderr", open(os.devnull, "w"))
    fields = [f.name for f in dataclasses.fields(SYSTEMS[system].config)]
    rng, refused = random.Random(system), 0
    for _ in range(trials):
        name, value = rng.choice(fields), rng.choice(BAD)
        with promise("E3 hostile flags"):
            try:
                parse_arguments([system, f"--{name}", value], Comm())
            except Exception as error:
                assert is_user_mistake(error) and "\n" not in str(error), (name, value[:20])
                refused += 1
    assert refused > trials / 2 and not list(tmp_path.iterdir())


def run(folder, *more):
    return command(1, "train", *flags("rl2", folder, "run", "--max_iters", "1", *more))


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_other_settings_are_refused(tmp_path, promise):
    assert run(tmp_path).code == 0
    before = contents(tmp_path)
    other = "--num_features 9 --environment bandit --seed 5 --architecture gru".split()
    result = run(tmp_path, *other)
    assert result.code == 2 and "Traceback" not in result.output, result.output
    for told in ("num_features: 8 -> 9", "environment: tabular_mdp -> bandit", "seed: 0 -> 5", "lstm -> gru"):
        with promise("C5 other settings, formats, data refused"):
            assert told in result.output, result.output
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
        with promise("F4 quiet files"):
            assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH), path
            assert b"very-secret-4711" not in path.read_bytes(), path


class Noted(Comm):
    """Counts the pickled messages between ranks."""

    messages = 0

    def bcast_object(self, obj=None):
        self.messages += 1
        return super().bcast_object(obj)

    def allgather_object(self, obj):
        self.messages += 1
        return super().allgather_object(obj)


@pytest.mark.parametrize("system", SYSTEMS)
def test_ranks_send_objects_only_when_they_start(system, promise):
    comm = Noted()
    learner = make_learner(system, settings(system), comm)
    for i in range(3):
        before = comm.messages
        with promise("F5 iterations without a pickled message"):
            learner.train_iteration(i)
            learner.tensors_in_sync()
            assert comm.messages == before


PAGE = (ROOT / "docs" / "promises.md").read_text()
ROWS = dict(re.findall(r"^\| ([A-Z]\d+) \| (.*)$", PAGE, re.M))  # what is promised and by which test, by id


def test_every_promise_names_tests_that_exist():
    for promise, row in ROWS.items():
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, f"{promise} names no test"
        for path, name in named:
            assert name in functions(ROOT / path), f"{promise}: {path}::{name}"


def counted() -> set[str]:
    """The beginnings of the names under which tests count trials, by fixture or by marker."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and called(node) in ("promise", "pytest.mark.promise"):
                name = node.args[0]
                parts = name.values if isinstance(name, ast.JoinedStr) else [name]
                found |= {part.value for part in parts[:1] if isinstance(part, ast.Constant)}
    return found


def test_ids_of_promises_are_complete():
    """Those of the page go on from A1 without a gap, and what tests count has its promise there."""
    groups = {}
    for name in ROWS:
        groups.setdefault(name[0], []).append(int(name[1:]))
    assert list(groups) == [chr(ord("A") + i) for i in range(len(groups))] and len(groups) > 1
    for group, numbers in groups.items():
        assert numbers == list(range(1, len(numbers) + 1)), group
    ids = {name.split(" ")[0] for name in counted() if re.match(r"[A-Z]\d+ ", name)}
    assert len(ids) > 20 and ids <= ROWS.keys()


@pytest.mark.nightly
@pytest.mark.timeout(400)
def test_the_checks_cost_at_most_two_percent(promise):
    result = json.loads(subprocess.check_output([sys.executable, "-m", "benchmarks.safety"], cwd=ROOT))
    with promise(f"G4 hot loop, checked over unchecked {result['checked_over_unchecked']}"):
        assert result["checked_over_unchecked"] <= 1.02
    with promise("G4 save of 10 MB", 5) as trial:
        trial.seconds = result["save_of_10_MB_s"]
        assert trial.seconds <= 0.3
