"""Jobs that are started again when they are lost."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpi_utils import keep_running
from tests.helpers.launch import ROOT, Job, find_mpirun
from tests.helpers.runs import ITERATIONS, flags
from tests.test_kills import outcome, ranks_of

KILLS = 5


def attempts(tmp_path, body, *flags):
    """Exit code, what was said and how often `body`, in which $n is the attempt, was run."""
    script = tmp_path / "attempt"
    script.write_text(f"#!/bin/bash\necho x >> {tmp_path}/n\nn=$(wc -l < {tmp_path}/n)\n{body}\n")
    script.chmod(0o755)
    command = [
        sys.executable,
        "-m",
        "mpi_utils.keep_running",
        "--run",
        tmp_path / "run",
        "--pause",
        "0",
        *flags,
    ]
    done = subprocess.run([*command, "--", script], cwd=ROOT, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stderr, (tmp_path / "n").read_text().count("x")


@pytest.mark.promise("A7 restarts end without progress")
@pytest.mark.parametrize(
    ("body", "flags", "code", "times"),
    [
        ("exit 1", [], 1, 3),
        ("exit 75", ["--tries", "2"], 75, 2),
        ("exit 2", [], 2, 1),
        ("kill -9 $$", [], 137, 3),
        ("[ $n -eq 2 ] && exit 0; exit 137", [], 0, 2),
        # progress in the first five attempts, which all fail at step 7 then
        ('s=$((n < 5 ? n : 5)); mkdir -p "$(dirname $0)/run/step_0000000$s"; exit 1', [], 1, 8),
    ],
)
def test_a_job_that_fails_is_started_again_as_long_as_it_gets_on(tmp_path, body, flags, code, times):
    found, said, count = attempts(tmp_path, body, *flags)
    assert (found, count) == (code, times), said
    assert ("failures in a row without progress: stopped" in said) == (code not in (0, 2)), said


def test_a_signal_is_passed_on_and_nothing_is_started_again(tmp_path):
    body = f"trap 'echo got it; exit 143' TERM; touch {tmp_path}/up; for i in {{1..200}}; do sleep 0.05; done"
    command = [sys.executable, "-m", "mpi_utils.keep_running", "--run", tmp_path, "--", "bash", "-c", body]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "up").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=20)[0] == "got it\n" and process.returncode == 143


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("mpirun -np 2 python -m train --model_name a", "checkpoints/a"),
        ("mpirun python -m train --checkpoint-dir=/d --model-name b", "/d/b"),
        ("python -m train --resume runs/c --max_iters 9", "runs/c"),
    ],
)
def test_the_run_folder_is_read_from_the_command(command, expected):
    assert keep_running.folder(keep_running.Settings(), command.split()) == Path(expected)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mpirun"], "--"),
        (["--"], "no command"),
        (["--", "mpirun", "python", "-m", "train"], "give --run FOLDER"),
        (["--tries", "0", "--run", "r", "--", "true"], "--tries 0"),
        (["--run", "r", "--", "/no/such/program"], "/no/such/program: cannot be started"),
        (["--run", "r", "--hostfile", "/no/file", "--", "true"], "/no/file: cannot be read"),
    ],
)
def test_a_mistake_gets_one_line(arguments, said, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(keep_running.UserError, match=said) as error:
        keep_running.main(arguments)
    assert "\n" not in str(error.value)


def test_machines_that_do_not_answer_are_left_out(tmp_path, monkeypatch, capsys):
    hosts = tmp_path / "hosts"
    hosts.write_text("node1 slots=16\nnode2:8\n# node3 slots=4\nlocalhost\n")
    (tmp_path / "ssh").write_text("#!/bin/bash\n[[ $* == *node2* ]]\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    command = keep_running.with_machines(["mpirun", "-f", "{hosts}", "-np", "{ranks}"], str(hosts))
    assert command == ["mpirun", "-f", f"{hosts}.reached", "-np", "9"]
    assert Path(f"{hosts}.reached").read_text() == "node2:8\nlocalhost\n"
    assert "not reached: node1 slots=16" in capsys.readouterr().err


@pytest.mark.nightly
@pytest.mark.mpi
def test_killed_at_random_it_ends_as_if_undisturbed(tmp_path, promise):
    """The real command under mpirun; each start is killed at a random moment after its first new save."""
    rng, run_dir, killed = random.Random(0), tmp_path / "kept", 0
    assert Job(2, "-m", "train", *flags("rmdp", tmp_path, "whole")).wait(120).code == 0
    supervisor = [sys.executable, "-m", "mpi_utils.keep_running", "--run", run_dir, "--pause", "0", "--"]
    job = Job(2, "-m", "train", *flags("rmdp", tmp_path, "kept"), launcher=[*supervisor, find_mpirun()])
    while killed < KILLS:
        before, last = keep_running.newest(run_dir), f"step_{ITERATIONS:08d}"
        while keep_running.newest(run_dir) == before and job.process.poll() is None:
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.1))
        victim = ranks_of(job).get(rng.randrange(2))
        if keep_running.newest(run_dir) == last or victim is None:
            break
        os.kill(victim, signal.SIGKILL)
        killed += 1
    result = job.wait(240)
    with promise("A8 killed jobs started again", killed):
        assert result.code == 0 and result.output.count("keep_running: start") == killed == KILLS, (
            result.output
        )
        assert outcome(run_dir) == outcome(tmp_path / "whole")
