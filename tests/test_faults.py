"""Faults by the dozen, at night: errors, lost launchers, signals, values that are not finite, stops."""

import json
import os
import random
import re
import signal
import time

import pytest

from common.runs import checkpoint
from tests import test_kills as kills
from tests.helpers.launch import Job, mpirun
from tests.helpers.not_finite import PLACES, VALUES
from tests.helpers.runs import ITERATIONS, TINY

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(1200),
    pytest.mark.mpi,
]
WORKER = "tests/helpers/worker.py"


@pytest.mark.parametrize(("num_ranks", "rank"), [(1, 0), (2, 0), (2, 1), (3, 2)])
@pytest.mark.parametrize(
    ("kind", "code"), [("key", 1), ("memory", 1), ("interrupt", 130), ("exit 0", 1), ("exit 7", 7)]
)
def test_an_error_of_one_rank_ends_all(tmp_path, kind, code, num_ranks, rank, promise):
    result = mpirun(num_ranks, WORKER, "raises", tmp_path, kind, rank, limit=150)
    with promise("A2 one rank ends all") as trial:
        trial.seconds = time.time() - (tmp_path / "fault").stat().st_mtime
        assert trial.seconds <= 5.0
    alone = num_ranks == 1 and kind == "exit 0"  # the only rank may leave when it likes
    # 9: MPICH's launcher killed the others and tells of that, although a rank asked for another code.
    assert result.code in ((0,) if alone else (code, 9) if num_ranks > 1 else (code,)), result.output
    told = {"interrupt": "interrupted in iteration"}.get(kind, f"rank {rank} of {num_ranks} on ")
    silent = num_ranks == 1 and kind.startswith("exit")
    assert silent or result.output.count(told) == 1, result.output
    assert result.output.count("Traceback") == int(not silent and kind != "interrupt"), result.output
    assert checkpoint.newest_valid(tmp_path)[0].name == "step_00000002"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the ranks of an undisturbed run print at the end."""
    return mpirun(2, WORKER, "train", tmp_path_factory.mktemp("whole"), "", 0, 200)


def assert_ends_as(undisturbed, run_dir):
    result = mpirun(2, WORKER, "train", run_dir, "", 0, 200)
    ends = [set(re.findall(r"finished True \w{64}", r.output)) for r in (result, undisturbed)]
    assert result.code == undisturbed.code == 0 and ends[0] == ends[1] and len(ends[0]) == 1, result.output


def started(run_dir, pause=0.03):
    return Job(2, WORKER, "train", run_dir, "", pause, 200)


def wait_for_the_loop(job, run_dir):
    """Until this start's ranks are in the training loop."""
    beat, began = run_dir / ".ranks" / "rank_1", time.time()
    while not beat.exists() or beat.stat().st_mtime < began:
        assert job.process.poll() is None, job.wait().output
        time.sleep(0.005)


def test_a_lost_launcher_leaves_nothing_behind(tmp_path, promise):
    """No process, and after the next start no shared memory; the run ends as if undisturbed."""
    rng, run, shared = random.Random(0), 0, set()
    expected, seconds = kills.undisturbed("rl2", 2, tmp_path / "whole")
    for _ in range(40):
        if len(shared) == 10:
            break
        run_dir = tmp_path / f"run_{run}"
        job = kills.start("rl2", 2, run_dir)
        wait_for_the_loop(job, run_dir)
        names = json.loads((run_dir / ".lock").read_text())["shared_memory"]
        time.sleep(rng.uniform(0.0, 0.3) * seconds)
        job.process.kill()
        began = time.monotonic()
        while job.processes() and time.monotonic() < began + 20:
            time.sleep(0.02)
        gone = time.monotonic() - began
        job.kill()
        if (run_dir / ".lock").stat().st_size:  # else it was done, and had given the folder free
            shared |= set(names)
        run += (run_dir / f"step_{ITERATIONS:08d}").exists()
        with promise("A4 launcher lost") as trial:
            trial.seconds = gone
            assert gone <= 10.0
    for number in range(run + 1):
        kills.finish("rl2", 2, tmp_path / f"run_{number}", expected)
    assert len(shared) == 10
    with promise("G2 nothing left in shared memory", len(shared)) as trial:
        trial.failures = len(shared & set(os.listdir("/dev/shm")))
        assert not trial.failures


def test_twenty_grace_saves(tmp_path, undisturbed, promise):
    """To the launcher, to rank 0 only, to the last rank only; all stop after the same iteration, saved."""
    rng = random.Random(1)
    for trial in range(20):
        number, target = (signal.SIGUSR1, signal.SIGTERM)[trial % 2], (None, 0, 1)[trial % 3]
        job = started(tmp_path)
        wait_for_the_loop(job, tmp_path)
        time.sleep(rng.uniform(0.0, 0.2))
        rows = (tmp_path / "metrics.csv").read_text().count("\n") - 1
        job.signal(number) if target is None else os.kill(kills.ranks_of(job)[target], number)
        with promise("B2 grace saves"):
            result = job.wait(150)
            assert (result.code == 0) == (number == signal.SIGUSR1), result.output
            told = re.search(rf"stopped by {number.name} and saved after iteration (\d+)", result.output)
            assert told, result.output
            done = int(told[1])
            assert rows <= done <= rows + 2, result.output  # one may have ended since we looked
            newest, skipped = checkpoint.newest_valid(tmp_path)
            assert newest.name == f"step_{done:08d}" and not skipped
    assert_ends_as(undisturbed, tmp_path)


@pytest.mark.promise("B2 a second SIGTERM")
def test_a_second_sigterm_ends_at_once(tmp_path):
    job = started(tmp_path, pause=20)
    wait_for_the_loop(job, tmp_path)
    time.sleep(1.0)
    for _ in range(2):
        for pid in kills.ranks_of(job).values():
            os.kill(pid, signal.SIGTERM)
        time.sleep(1.3)
    result = job.wait(60)
    assert result.code != 0, result.output


@pytest.mark.parametrize("system", PLACES)
def test_a_value_that_is_not_finite_stops_all_ranks_alike(tmp_path, system, promise):
    result = mpirun(2, "-m", "tests.helpers.not_finite", system, tmp_path, limit=900)
    assert result.code == 0, result.output
    said = re.findall(r"^(\w+ -?\w+ \d): rank (\d) (.*)$", result.output, re.M)
    wanted = len(PLACES[system]) * len(VALUES) * 2
    assert len(said) == 2 * wanted == 2 * len({case for case, *_ in said}), result.output
    with promise(f"D2 not finite on one rank ({system})", wanted) as trial:
        trial.failures = len({case for case, _, text in said if "not finite" not in text or "SAVED" in text})
        assert not trial.failures, result.output


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("system", TINY)
def test_stopped_after_every_iteration(tmp_path, system, num_ranks, promise):
    result = mpirun(num_ranks, "-m", "tests.helpers.exact", system, tmp_path, limit=900)
    assert result.code == 0, result.output
    said = dict(re.findall(r"^(\d) (same|differs)$", result.output, re.M))
    assert len(said) == 10, result.output
    for k, found in said.items():
        with promise("C3 reruns agree" if k == "0" else f"C1 stopped after every iteration ({system})"):
            assert found == "same", f"stopped after {k}"


@pytest.mark.promise("D4 different collectives, in debug mode")
@pytest.mark.parametrize("kind", ["operation", "size", "type", "barrier"])
def test_different_collectives_are_told_in_debug_mode(kind):
    result = mpirun(3, WORKER, "mismatch", kind, env={"CHECK_COLLECTIVES": "1"}, limit=60)
    assert result.code == 1 and result.output.count("Traceback") == 1, result.output
    said = re.search(
        r"different collectives: rank 0: (.*) at worker.py:(\d+); rank 1: (.*) at worker.py:(\d+)",
        result.output,
    )
    assert said and said[1] == "allreduce sum 3 float64" != said[3], result.output
