"""The script of docs/slurm, run with a Slurm that is not one: `srun` is mpirun, the rest notes its call."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.runs import checkpoint
from tests.helpers.launch import OPEN_MPI, ROOT, find_mpirun
from tests.helpers.runs import flags

SCRIPTS = ROOT / "docs" / "slurm"
FAKES = {
    "srun": 'while [[ $1 == --* ]]; do shift; done\nexec "$MPIRUN" -np 2 "$@"',
    "scontrol": 'echo "scontrol $*" >> "$CALLS"',
    "scancel": 'echo "scancel $*" >> "$CALLS"; exit 1',
}


@pytest.fixture
def slurm(tmp_path):
    """The environment of a job; `calls` is what was asked of Slurm."""
    (tmp_path / "bin").mkdir()
    for name, body in FAKES.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    job = {"PATH": path, "PYTHONPATH": str(ROOT), "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "1"}
    return os.environ | OPEN_MPI | job | {"MPIRUN": str(find_mpirun()), "CALLS": str(tmp_path / "calls")}


@pytest.mark.mpi
@pytest.mark.promise("the Slurm script saves, requeues, continues")
def test_the_job_saves_at_its_signal_and_goes_back_into_the_queue(slurm, tmp_path):
    command = [SCRIPTS / "train.sh", *flags("rl2", tmp_path, "run")]
    endless = ["--max_iters", "100000"]
    out = open(tmp_path / "out", "w")
    job = subprocess.Popen([*command, *endless], env=slurm, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "run" / "metrics.csv").exists():
            assert time.monotonic() < deadline and job.poll() is None, (tmp_path / "out").read_text()
            time.sleep(0.05)
        job.send_signal(signal.SIGUSR1)
        code = job.wait(60)
    finally:
        job.kill()
        out.close()
    said = (tmp_path / "out").read_text()
    done = re.search(r"stopped by SIGUSR1 and saved after iteration (\d+)", said)
    assert code == 0 and done, said
    assert checkpoint.newest_valid(tmp_path / "run")[0].name == f"step_{int(done[1]):08d}"
    calls = Path(slurm["CALLS"])
    assert calls.read_text().splitlines() == [
        "scancel --signal=USR1 7.0",
        "scontrol requeue 7",
    ]
    more = ["--max_iters", str(int(done[1]) + 1)]  # and the next slot ends it
    again = subprocess.run(
        [*command, *more], env=slurm, cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert checkpoint.newest_valid(tmp_path / "run")[0].name == f"step_{int(done[1]) + 1:08d}"
    assert calls.read_text().count("requeue") == 1, "done: not into the queue again"
