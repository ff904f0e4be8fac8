"""Disks that are full or may not be written, as real mounts in a mount namespace of their own."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from common.runs import checkpoint
from tests.helpers.launch import OPEN_MPI, ROOT, find_mpirun
from tests.helpers.runs import flags

pytestmark = [pytest.mark.nightly, pytest.mark.mpi]


@pytest.fixture
def mounts():
    """A function that runs a shell script where it may mount; skipped where that is not allowed."""
    allowed = shutil.which("unshare") and not os.geteuid()
    if not allowed or subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "x", "/mnt"]).returncode:
        pytest.skip("needs root and mount namespaces")

    def run(script, **variables):
        environment = os.environ | OPEN_MPI | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        environment |= {"RUN": f"{find_mpirun()} -np 2 {sys.executable} -m"} | variables
        command = ["unshare", "-m", "bash", "-c", script]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)

    return run


@pytest.mark.promise("B3 a disk that is really full")
def test_a_full_disk_ends_all_ranks_and_room_lets_them_go_on(mounts, tmp_path):
    """A disk of 1 MB that another file fills while the run is at work."""
    train = " ".join(flags("rl2", tmp_path / "disk", "run"))
    script = f"""
        mkdir -p $D/disk; mount -t tmpfs -o size=1m full $D/disk
        $RUN train {train} --max_iters 6 || exit 1
        cp -r $D/disk/run $D/before
        head -c 2m /dev/zero > $D/disk/filler
        $RUN train {train} --max_iters 30; echo "full: code $?"
        cp -r $D/disk/run $D/full
        rm $D/disk/filler; mount -o remount,size=50m $D/disk
        $RUN train {train} --max_iters 30; echo "room: code $?"
        cp -r $D/disk/run $D/after
    """
    result = mounts(script, D=str(tmp_path))
    said = result.stdout + result.stderr
    assert re.search(r"full: code (75|2)\n", said) and "room: code 0" in said and "Traceback" not in said, (
        said
    )
    assert "No space left on device" in said, said
    newest, skipped = checkpoint.newest_valid(tmp_path / "full")
    assert newest and not skipped and checkpoint.load(newest)[0] >= 6
    assert checkpoint.newest_valid(tmp_path / "after")[0].name == "step_00000030"


def test_a_read_only_disk_is_refused_for_training_and_serves_for_evaluation(mounts, tmp_path, promise):
    train = " ".join(flags("rl2", tmp_path / "disk", "run"))
    script = f"""
        $RUN train {train} --max_iters 1 || exit 1
        mount --bind $D/disk $D/disk; mount -o remount,ro,bind $D/disk
        $RUN train {train}; echo "train: code $?"
        $RUN train {train} --model_name other; echo "other: code $?"
        $RUN evaluate $D/disk/run --instances 4; echo "evaluate: code $?"
    """
    result = mounts(script, D=str(tmp_path))
    said = result.stdout + result.stderr
    for told in ("train: code 2", "other: code 2", "evaluate: code 0"):
        with promise("B8 a read-only disk"):
            assert told in said, said
    assert said.count("Read-only file system") == 2 and "Traceback" not in said, said
