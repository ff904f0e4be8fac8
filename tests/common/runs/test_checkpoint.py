"""Saves survive crashes at every file operation, full disks, and are pruned with care."""

import errno
import os
import resource

import numpy as np
import pytest
import torch

from common.errors import SaveError
from common.runs import checkpoint, files
from common.runs.seeding import stream

OPERATIONS = ("make_folder", "create", "write", "sync", "rename", "remove_file", "remove_folder")


def state(number: int) -> dict:
    return {"weights": torch.full((4,), float(number)), "number": number}


def value(path) -> int:
    """Return the number that all of a save agrees on."""
    step, loaded = checkpoint.load(path)
    assert (loaded["weights"] == loaded["number"]).all() and step <= loaded["number"]
    return loaded["number"]


def hook(monkeypatch, act) -> list[str]:
    """Call `act(count, call)` in place of each file operation; returns the growing list of names."""
    calls = []
    for name, operation in [(name, getattr(files, name)) for name in OPERATIONS]:

        def replaced(*arguments, name=name, operation=operation):
            calls.append(name)
            return act(len(calls), lambda: operation(*arguments), *arguments)

        monkeypatch.setattr(files, name, replaced)
    return calls


def first_save(run_dir):
    checkpoint.save(run_dir, 5, state(5))


def next_save(run_dir):
    checkpoint.save(run_dir, 5, state(5))
    checkpoint.prune(run_dir, keep=2)


def same_step_again(run_dir):
    checkpoint.save(run_dir, 3, state(5))
    checkpoint.prune(run_dir, keep=2)


@pytest.mark.parametrize("action, before", [(first_save, []), (next_save, [1, 2, 3]), (same_step_again, [3])])
def test_killed_at_any_file_operation_leaves_the_old_or_the_new_save(tmp_path, action, before, promise):
    with pytest.MonkeyPatch.context() as patch:
        prepare(tmp_path / "dry run", before)
        calls = hook(patch, lambda count, call, *_: call())
        action(tmp_path / "dry run")
    points = [(n, False) for n in range(1, len(calls) + 2)]  # the death after n is the death before n + 1
    points += [(n, True) for n, name in enumerate(calls, 1) if name == "write"]
    outcomes = set()
    for point, halfway in points:
        run_dir = tmp_path / f"{point}-{halfway}"
        prepare(run_dir, before)
        with promise("B1 killed at every file operation"):
            code = _in_child(lambda run_dir=run_dir: action(run_dir), point, halfway)
            assert code == (0 if point > len(calls) else 9)
            found, skipped = checkpoint.newest_valid(run_dir)
            outcomes.add(value(found) if found else None)
            assert not skipped, "no half of a save bears the name of one"
            action(run_dir)  # a second start needs no cleaning by hand
            assert value(checkpoint.newest_valid(run_dir)[0]) == 5
            checkpoint.prune(run_dir, keep=2)
            assert sorted(p.name for p in run_dir.iterdir()) == AFTERWARDS[action]
    assert outcomes == {max(before, default=None), 5} and len(calls) > 12


def prepare(run_dir, numbers):
    for number in numbers:
        checkpoint.save(run_dir, number, state(number))


AFTERWARDS = {
    first_save: ["step_00000005"],
    next_save: ["step_00000003", "step_00000005"],
    same_step_again: ["step_00000003"],
}


def _in_child(action, point: int, halfway: bool) -> int:
    """Run `action` in a child that ends itself with 9 before, or halfway in, its operation number `point`."""
    child = os.fork()
    if child == 0:

        def die(count, call, *arguments):
            if count < point:
                return call()
            if halfway:
                os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os._exit(9)

        with pytest.MonkeyPatch.context() as patch:
            hook(patch, die)
            action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_failing_disk_is_one_line_and_keeps_the_old_save(tmp_path, monkeypatch, code, promise):
    def fail(count, call, *_):
        if count == point:
            raise OSError(code, os.strerror(code))
        return call()

    for point in range(1, 30):
        run_dir = tmp_path / str(point)
        checkpoint.save(run_dir, 1, state(1))
        with monkeypatch.context() as patch:
            calls = hook(patch, fail)
            try:
                checkpoint.save(run_dir, 2, state(2))
                break
            except SaveError as error:
                text = str(error)
        with promise("B3 the disk fails in any operation of a save"):
            assert os.strerror(code) in text and str(run_dir) in text
            assert "MB needed" in text and "\n" not in text
            renamed = calls.count("rename") == 1 and calls[-1] == "sync"  # the sync of the parent is left
            newest = 2 if (run_dir / "step_00000002").exists() else 1
            assert value(checkpoint.newest_valid(run_dir)[0]) == newest
            assert renamed or [p.name for p in run_dir.iterdir()] == ["step_00000001"]
    assert 10 < point < 29, "the last one went well"


def test_a_real_limit_of_the_system(tmp_path, promise):
    checkpoint.save(tmp_path, 1, state(1))
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            checkpoint.save(tmp_path, 2, {"weights": torch.zeros(5000)})
        except SaveError:
            os._exit(75)
        os._exit(0)
    with promise("B3 a limit of the system on files"):
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 75
        assert [p.name for p in tmp_path.iterdir()] == ["step_00000001"]
        assert value(checkpoint.newest_valid(tmp_path)[0]) == 1


def test_everything_is_synced_before_the_rename_and_the_parent_after_it(tmp_path, monkeypatch):
    log = []

    def note(count, call, *arguments):
        result = call()
        place = arguments[0]
        name = os.readlink(f"/proc/self/fd/{place}") if isinstance(place, int) else str(place)
        log.append((log_names[-1], os.path.basename(name)))
        return result

    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(fsync(descriptor)))
    log_names = hook(monkeypatch, note)
    checkpoint.save(tmp_path, 7, state(7))
    assert len(synced) == log_names.count("sync") == 5
    save, run = ".step_00000007.tmp", tmp_path.name
    written = [[("create", n), ("write", n), ("sync", n)] for n in checkpoint.pack(7, state(7))]
    assert log == [("make_folder", save), *sum(written, []), ("sync", save), ("rename", save), ("sync", run)]
    assert [name for operation, name in log if operation == "create"][-1] == "manifest.json"


def test_prune_keeps_the_newest_ones_and_always_a_valid_one(tmp_path, promise):
    rng = stream(4, "tasks")
    for trial in range(25):
        run_dir, keep = tmp_path / str(trial), int(rng.integers(1, 4))
        bad = rng.random(6) < (1.0 if trial == 0 else 0.6)
        for step in range(6):
            path = checkpoint.save(run_dir, step, state(step))
            if bad[step]:
                (path / "state.json").unlink()
        valid = np.flatnonzero(~bad)
        with promise("B5 prunings among damaged saves"):
            checkpoint.prune(run_dir, keep)
            expected = {*range(6 - keep, 6), *valid[-1:].tolist()}
            assert {int(p.name[-1]) for p in run_dir.iterdir()} == expected
            newest, skipped = checkpoint.newest_valid(run_dir)
            assert (value(newest) if newest else None) == (valid[-1] if len(valid) else None)
            assert len(skipped) == min(keep, 5 - valid[-1] if len(valid) else keep)


@pytest.mark.promise("B7 clocks do not matter")
def test_newest_goes_by_the_number_and_not_by_clocks(tmp_path):
    for age, step in enumerate((9, 10, 123456789)):
        os.utime(checkpoint.save(tmp_path, step, state(step)), (2e9 - 1e8 * age,) * 2)
    assert value(checkpoint.newest_valid(tmp_path)[0]) == 123456789
    assert checkpoint.newest_valid(tmp_path / "absent") == (None, [])


@pytest.mark.promise("F4 quiet files")
def test_a_save_is_not_writable_by_others(tmp_path):
    before = os.umask(0)
    try:
        path = checkpoint.save(tmp_path, 1, state(1))
    finally:
        os.umask(before)
    assert not any(p.stat().st_mode & 0o022 for p in (path, *path.iterdir()))
