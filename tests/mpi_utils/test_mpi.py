"""Real ranks under a real mpirun: they agree, end together, and continue exactly where they were killed."""

import re
import signal
import time
from collections import Counter

import pytest

from tests.helpers.launch import Job, mpirun

pytestmark = pytest.mark.mpi
LAUNCHER = r"Abort\(\d+\) on node .*\n|-{60,}\n(.|\n)*?-{60,}\n|\0"  # what MPICH and Open MPI add
WORKER = "tests/helpers/worker.py"
PROMISE = "A1 killed (a learner of two parameters)"


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_collectives(num_ranks):
    result = mpirun(num_ranks, WORKER, "collectives")
    assert result.code == 0, result.output
    assert result.output.count(" passed") == num_ranks


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_learning(num_ranks, tmp_path, promise):
    result = mpirun(num_ranks, WORKER, "learning", tmp_path)
    kept = Counter(re.findall(r"^kept: (.*)$", result.output, re.M))
    wanted = {"C1 resumed bit for bit": 5, "B2 grace saves": 2, "D1 flipped bits between ranks": 50}
    for name, trials in wanted.items():
        with promise(name, trials) as trial:
            trial.failures = trials - kept[name]
            assert not trial.failures, result.output
    assert result.code == 0 and result.output.count(" passed") == 7, result.output


@pytest.mark.promise("A2 one rank ends all")
@pytest.mark.parametrize(
    "scenario, code, lines",
    [
        ("fail", 1, r"rank 2 of 3 on \S+ failed:\nTraceback(.|\n)*KeyError: \"the last rank's own mistake\""),
        ("fail_everywhere", 1, r"rank 0 of 3 on \S+ failed:\nTraceback(.|\n)*the same on all 3 ranks"),
        ("leave_early", 1, r"rank 0 of 3 on \S+ left while others were still at work:\nTraceback(.|\n)*"),
        ("leave_together", 7, ""),
        ("input_error", 2, r"settings.json: no such file; name another"),
        ("agreed", 2, r"/no/such/file: No such file or directory"),
        ("disk_full", 75, r"step_00000001: cannot be saved"),
        ("late_rank", 0, r"the late rank is done"),
    ],
)
def test_ranks_end_together(scenario, code, lines):
    result = mpirun(3, WORKER, scenario, limit=20)
    said = re.sub(LAUNCHER, "", result.output)
    assert result.code == code, result.output
    assert re.match(lines, said), said
    assert said.count("Traceback") == lines.count("Traceback"), said
    if "Traceback" not in lines:
        assert len(said.splitlines()) == bool(lines), said


def test_killed_runs_continue_exactly(tmp_path, promise):
    undisturbed = mpirun(2, WORKER, "train", tmp_path / "a")
    assert undisturbed.code == 0, undisturbed.output
    for kill in ("1:8", "0:20"):
        with promise(PROMISE):
            killed = mpirun(2, WORKER, "train", tmp_path / "b", kill, limit=30)
            assert killed.code != 0 and "finished" not in killed.output
    last = Job(2, WORKER, "train", tmp_path / "b", "", "0.05")
    while not (tmp_path / "b" / "step_00000021").exists():  # lasts until the save after its start
        assert last.process.poll() is None, last.wait().output
        time.sleep(0.02)
    last.signal(signal.SIGTERM)
    with promise(PROMISE):
        stopped = last.wait(30)
        assert stopped.code != 0 and "finished" not in stopped.output
        resumed = mpirun(2, WORKER, "train", tmp_path / "b")
        assert resumed.code == 0, resumed.output
        digests = [re.findall(r"finished True (\w+)", result.output) for result in (resumed, undisturbed)]
        assert len(set(sum(digests, []))) == 1 and len(sum(digests, [])) == 4
    assert len((tmp_path / "b" / "metrics.csv").read_text().splitlines()) == 31
    assert len(list((tmp_path / "b").glob("step_*"))) == 5 and not list((tmp_path / "b").glob(".*.tmp"))
