"""One writer in a run folder, and the settings it was started with."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from common.errors import UserError
from common.runs import run_folder
from common.runs.run_folder import config_differences, lock, read_config, write_config
from tests.helpers.launch import ROOT


def in_child(action) -> int:
    child = os.fork()
    if child == 0:
        action()
        os._exit(0)
    return child


def test_the_second_writer_is_told_who_holds_the_folder(tmp_path):
    with lock(tmp_path / "new" / "run") as held:
        holder = f"process {os.getpid()} on host {socket.gethostname()}"
        with pytest.raises(UserError, match=re.escape(holder)):
            lock(tmp_path / "new" / "run")
        held.release()
        lock(tmp_path / "new" / "run").release()


@pytest.mark.parametrize("races", [5, pytest.param(20, marks=pytest.mark.nightly)])
def test_of_many_starts_at_once_one_wins(tmp_path, races, promise):
    def run(race, starts):
        def compete():
            try:
                held = lock(tmp_path)
            except UserError as error:
                (tmp_path / f"{race}-lost-{os.getpid()}").write_text(str(error))
                os._exit(2)
            (tmp_path / f"{race}-won").write_text(str(os.getpid()))
            end = time.monotonic() + 20
            while len(list(tmp_path.glob(f"{race}-lost-*"))) < starts - 1 and time.monotonic() < end:
                time.sleep(0.01)
            held.release()

        children = [in_child(compete) for _ in range(starts)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert sorted(codes) == [0] + [2] * (starts - 1)
        winner = (tmp_path / f"{race}-won").read_text()
        assert all(f"process {winner} on" in p.read_text() for p in tmp_path.glob(f"{race}-lost-*"))

    for race in range(races):
        with promise("B6 races for a folder"):
            run(race, 2 + race % 3)


def test_the_lock_of_a_killed_process_is_taken_over_and_told(tmp_path, capsys, promise):
    def hold():
        lock(tmp_path)
        (tmp_path / "ready").touch()
        time.sleep(30)

    child = in_child(hold)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with promise("B6 locks of the killed taken over"):
        lock(tmp_path).release()
        assert f"taken over from process {child} on host" in capsys.readouterr().err
    command = (
        "import sys; from common.runs.run_folder import lock; held = lock(sys.argv[1]); raise SystemExit(3)"
    )
    assert subprocess.run([sys.executable, "-c", command, tmp_path], cwd=ROOT).returncode == 3
    lock(tmp_path).release()
    assert not capsys.readouterr().err, "an error is no kill"
    (tmp_path / ".lock").write_text('{"host": "elsewhere", "pid": 5}')
    with promise("B6 locks of the killed taken over"):
        lock(tmp_path).release()
        assert "taken over from process 5 on host elsewhere" in capsys.readouterr().err


@pytest.mark.promise("B8 folders that cannot be written")
@pytest.mark.parametrize("place", ["file", "file/below", "/proc/run"])
def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose another") as caught:
        lock(tmp_path / place)
    assert "\n" not in str(caught.value)


def test_a_planted_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("keep me")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(UserError):
        lock(tmp_path)
    assert (tmp_path / "precious").read_text() == "keep me"


def test_settings_come_back_and_differences_are_named(tmp_path):
    old = {"algorithm": "rl2", "lr": 0.1, "sizes": [1, 2], "env": {"name": "bandit", "arms": 5}, "log": True}
    write_config(tmp_path / "run", old)
    assert read_config(tmp_path / "run") == old
    assert os.listdir(tmp_path / "run") == ["config.json"]
    new = {
        "algorithm": "rl2",
        "lr": 0.2,
        "sizes": (1, 2),
        "env": {"name": "bandit", "arms": 10},
        "seed": 1,
        "log": 1,
    }
    expected = ["lr: 0.1 -> 0.2", "env.arms: 5 -> 10", "log: True -> 1", "seed: absent -> 1"]
    assert config_differences(old, new) == expected
    assert config_differences(old, new, ignore=["lr", "env", "seed", "log"]) == []


@pytest.mark.parametrize("content", [None, b"{", b"[]", b"[" * 100_000, b"\xff", b"1" * 5000])
def test_an_unreadable_config_is_an_input_error(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json") as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)


def test_shared_memory_of_a_killed_run_is_removed_and_nothing_else(tmp_path, monkeypatch):
    """Whatever names the file of the lock holds."""
    shared = tmp_path / "shm"
    shared.mkdir()
    monkeypatch.setattr(run_folder, "SHARED_MEMORY", shared)
    kept = [shared / "other", tmp_path / "precious", tmp_path / "mpich_shm_2"]
    for path in (*kept, shared / "mpich_shm_1"):
        path.touch()
    names = [
        "other",
        "../precious",
        str(tmp_path / "precious"),
        "../mpich_shm_2",
        "mpich_shm_1",
        "mpich_shm_3",
    ]
    for host, left in (("elsewhere", True), (socket.gethostname(), False)):
        content = {"host": host, "pid": 5, "shared_memory": names}
        (tmp_path / ".lock").write_text(json.dumps(content))
        lock(tmp_path).release()
        assert (shared / "mpich_shm_1").exists() == left and all(path.exists() for path in kept)
