"""Runs of all systems that are killed over and over, and end as if they had never been."""

import csv
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from common.runs import checkpoint
from tests.helpers import phases
from tests.helpers.launch import Job
from tests.helpers.runs import ITERATIONS, TINY, flags

pytestmark = pytest.mark.mpi
GONE_IN = 5.0  # seconds


def start(system, num_ranks, run_dir, telling=None) -> Job:
    """Start the real command; with `telling`, a folder, its ranks tell there what they do."""
    program = ["-m", "tests.helpers.phases", telling] if telling else ["-m", "train"]
    return Job(num_ranks, *program, *flags(system, run_dir.parent, run_dir.name))


def outcome(run_dir):
    """All that a finished run left but times: digests of the last save's files, and the table."""
    path, skipped = checkpoint.newest_valid(run_dir)
    assert not skipped and path.name == f"step_{ITERATIONS:08d}"
    debris = [p.name for p in run_dir.iterdir() if p.name.startswith(".") and p.name != ".lock"]
    assert not debris and len(list(run_dir.glob("step_*"))) == 5
    with open(run_dir / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == [str(i + 1) for i in range(ITERATIONS)]
    rows = [{name: cell for name, cell in row.items() if not name.startswith("time/")} for row in rows]
    return (path / "manifest.json").read_bytes(), rows


def undisturbed(system, num_ranks, run_dir):
    """The outcome of a run that nobody kills, and for how many seconds it trained."""
    job = start(system, num_ranks, run_dir)
    while not (run_dir / ".lock").exists() and job.process.poll() is None:
        time.sleep(0.01)
    began = time.monotonic()
    result = job.wait(120)
    assert result.code == 0, result.output
    return outcome(run_dir), time.monotonic() - began


def ranks_of(job) -> dict[int, int]:
    """The process of each rank that has started."""
    found = {}
    for pid in job.processes():
        try:
            pairs = (text.partition(b"=") for text in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
        except OSError:
            continue
        known = {name: value for name, _, value in pairs}
        rank = known.get(b"PMI_RANK", known.get(b"OMPI_COMM_WORLD_RANK"))
        if rank is not None:
            found[int(rank)] = pid
    return found


def strike(job, victim: int, run_dir) -> float | None:
    """Kill a rank; returns the seconds until all processes were gone, None if the run was done before."""
    pid = ranks_of(job).get(victim)
    began = time.monotonic()
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    result = job.wait(30)
    if result.code == 0:
        assert (run_dir / f"step_{ITERATIONS:08d}").exists(), "killed, yet exit code 0"
        return None
    assert pid is not None and "Traceback" not in result.output, result.output
    return time.monotonic() - began


def wait_for(happened, job, limit=60.0):
    end = time.monotonic() + limit
    while not happened() and job.process.poll() is None:
        assert time.monotonic() < end, "the run does not get on"
        time.sleep(0.0002)


def finish(system, num_ranks, run_dir, expected):
    """Let a run come to its end."""
    result = start(system, num_ranks, run_dir).wait(120)
    assert result.code == 0, result.output
    assert outcome(run_dir) == expected, "not what an undisturbed run gives"


def test_killed_runs_end_as_if_undisturbed(tmp_path, promise):
    """The systems one after the other in one start, which is killed once in each of them."""
    result = Job(2, "-m", "tests.helpers.chain", tmp_path / "whole").wait(120)
    assert result.code == 0, result.output
    rng, killed = random.Random(0), 0
    for number, system in enumerate(TINY):
        run_dir, whole = tmp_path / "killed" / system, tmp_path / "whole" / system
        files = "config.json", f"step_{ITERATIONS:08d}/manifest.json"
        began, ended = ((whole / file).stat().st_mtime for file in files)
        job = Job(2, "-m", "tests.helpers.chain", tmp_path / "killed")
        wait_for((run_dir / "metrics.csv").exists, job)
        time.sleep(rng.uniform(0.0, 0.6) * (ended - began))
        gone = strike(job, number % 2, tmp_path / "killed" / "caml")
        if gone is not None:
            killed += 1
            with promise("A1 killed (all systems in turn)") as trial:
                trial.seconds = gone
                assert gone <= GONE_IN
        for path in run_dir.glob("step_*"):
            checkpoint.load(path)  # whole, each of them
    result = Job(2, "-m", "tests.helpers.chain", tmp_path / "killed").wait(120)
    assert result.code == 0, result.output
    for system in TINY:
        assert outcome(tmp_path / "killed" / system) == outcome(tmp_path / "whole" / system), system
    assert killed >= len(TINY) - 1


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("num_ranks", [2, 3])
@pytest.mark.parametrize("system", TINY)
def test_fifty_kills_in_all_phases(tmp_path, system, num_ranks, promise):
    """25 kills at each number of ranks; the next aims at the phase that was hit least so far."""
    kills = int(os.environ.get("KILLS", 25))
    rng = random.Random(f"{system} {num_ranks}")
    expected, seconds = undisturbed(system, num_ranks, tmp_path / "whole")
    hits, roots, run = dict.fromkeys(phases.PHASES, 0), 0, 0
    for _ in range(4 * kills):
        if sum(hits.values()) >= kills and min(hits.values()) >= kills // 8:
            break
        run_dir, telling = tmp_path / f"run_{run}", tmp_path / "phases"
        telling.mkdir(exist_ok=True)
        for rank in range(num_ranks):
            (telling / str(rank)).unlink(missing_ok=True)
        victim = 0 if 2 * roots <= sum(hits.values()) else rng.randrange(1, num_ranks)
        aim = min(phases.PHASES, key=hits.get)
        job = start(system, num_ranks, run_dir, telling)
        wait_for(lambda: phases.read(telling, victim), job)  # noqa: B023
        if aim != "load":
            wait_for(lambda: phases.read(telling, victim) not in ("", "start", "load"), job)  # noqa: B023
            time.sleep(rng.uniform(0.0, 0.5) * seconds)
        wait_for(lambda: phases.read(telling, victim) == aim, job)  # noqa: B023
        time.sleep(rng.uniform(0.0, 0.01) if aim in ("load", "save") else 0.0)
        gone = strike(job, victim, run_dir)
        if gone is None:  # it was done before
            assert outcome(run_dir) == expected
            run += 1
            continue
        phase = phases.read(telling, victim)
        roots, hits[phase] = roots + (victim == 0), hits.get(phase, 0) + 1
        with promise(f"A1 killed ({system})") as trial, promise(f"A1 killed in {phase}"):
            trial.seconds = gone
            assert gone <= GONE_IN
    with promise(f"A1 killed ({system}) and gone on"):
        finish(system, num_ranks, run_dir, expected)
    assert sum(hits.values()) >= kills and all(hits[phase] >= kills // 8 for phase in phases.PHASES), hits
