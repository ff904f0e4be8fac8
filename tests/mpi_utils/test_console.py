"""Whoever reads what a training says may leave: it goes on, and saves."""

import io
import os
import pty
import shlex
import signal
import subprocess
import sys
import time

import pytest

from common.runs import checkpoint
from mpi_utils.console import Console
from tests.helpers.launch import OPEN_MPI, ROOT, find_mpirun
from tests.helpers.runs import flags

ENVIRONMENT = os.environ | OPEN_MPI | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
ITERATIONS = 20


def words(tmp_path, ranks):
    launcher = [find_mpirun(), "-np", str(ranks)] if ranks > 1 else []
    train = flags("rl2", tmp_path, "run")
    return [*launcher, sys.executable, "-m", "train", *train, "--max_iters", str(ITERATIONS)]


def finished(tmp_path):
    path, _ = checkpoint.newest_valid(tmp_path / "run")
    return path is not None and path.name == f"step_{ITERATIONS:08d}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lost", "ranks"),
    [
        pytest.param("2>&1 | head -1", 2, marks=pytest.mark.mpi),
        pytest.param("> /dev/full 2>&1", 2, marks=pytest.mark.mpi),
        (">&- 2>&-", 1),
    ],
)
def test_a_training_goes_on_without_its_console(tmp_path, lost, ranks):
    script = f"set -o pipefail; {shlex.join(words(tmp_path, ranks))} {lost}"
    result = subprocess.run(
        ["bash", "-c", script], env=ENVIRONMENT, cwd=ROOT, capture_output=True, timeout=90
    )
    assert result.returncode == 0, result.stderr
    assert finished(tmp_path)


@pytest.mark.slow
def test_a_training_goes_on_when_its_terminal_is_closed(tmp_path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        words(tmp_path, 1),
        env=ENVIRONMENT,
        cwd=ROOT,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        end = time.monotonic() + 60
        while not (tmp_path / "run" / "metrics.csv").exists():
            assert time.monotonic() < end, "it did not start"
            time.sleep(0.02)
        os.close(ours)
        process.send_signal(signal.SIGHUP)  # as of a shell whose terminal goes
        assert process.wait(60) == 0
    finally:
        process.kill()
    assert finished(tmp_path)


def test_a_lost_console_keeps_the_reason_and_is_silent():
    class Full(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

    console = Console(Full())
    assert console.write("a line\n") == 7 and console.lost is None
    console.flush()
    assert console.lost.errno == 28 and console.write("more") == 4
    assert console.stream.getvalue() == "a line\n"
