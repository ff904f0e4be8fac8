"""Runs go on without a rank that is killed, as if their number of ranks had been changed by hand.

For Open MPI 5, whose launcher leaves the other ranks alive: `mpirun --with-ft ulfm`.
"""

import csv
import json
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from common.runs import checkpoint
from tests.helpers.by_hand import ITERATIONS, few
from tests.helpers.launch import Job, mpirun, tolerant_launcher
from tests.helpers.runs import TINY, flat

pytestmark = pytest.mark.mpi
RUNS = int(os.environ.get("KILLS", 26)) // 2  # two kills in each
DOUBLES = int(os.environ.get("DOUBLES", 5))
LIKE = 1e-5  # numbers of a run by hand; relative, or of 1


@pytest.fixture(scope="module", autouse=True)
def tolerant():
    if tolerant_launcher() is None:
        pytest.skip("for Open MPI 5, which can do without a rank")


def start(num_ranks, *arguments) -> Job:
    return Job(num_ranks, *arguments, launcher=tolerant_launcher(), env={"STALL_LIMIT_S": "40"})


def killed(system, folder, num_ranks, plan, limit=150.0):
    """A run with victims by `plan` (see `losing.py`): result, the victims' times, what began."""
    telling = folder / "telling"
    shutil.rmtree(telling, ignore_errors=True)
    telling.mkdir(parents=True)
    arguments = ["-m", "tests.helpers.losing", telling, json.dumps(plan), *few(system, folder, "run")]
    result = start(num_ranks, *arguments).wait(limit)
    died = sorted(
        (float(text.split()[1]), text.split()[0]) for text in map(Path.read_text, telling.glob("died_*"))
    )
    began = [line.split() for line in (telling / "began").read_text().splitlines()]
    return result, died, [(int(size), int(i), float(at)) for size, i, at in began]


def changes(began) -> list[list[int]]:
    """The plan for `by_hand.py` of a run that went on: ranks, and until which iteration."""
    sizes = [size for size, _, _ in began]
    firsts = [i for n, (_, i, _) in enumerate(began) if n and sizes[n] != sizes[n - 1]]
    return [list(pair) for pair in zip(dict.fromkeys(sizes), [*firsts, ITERATIONS], strict=True)]


def pauses(died, began) -> list[float]:
    """Seconds from each victim's end until the others, fewer than before, began an iteration."""
    sizes = [size for size, _, _ in began]
    again = [at for n, (_, _, at) in enumerate(began) if n and sizes[n] != sizes[n - 1]]
    return [at - end for at, (end, _) in zip(again, died, strict=True)]


def outcome(run_dir):
    """All numbers of a run but times: of each row, and of the last save."""
    path, skipped = checkpoint.newest_valid(run_dir)
    assert not skipped and path.name == f"step_{ITERATIONS:08d}"
    with open(run_dir / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["iteration"] for row in rows] == [str(i + 1) for i in range(ITERATIONS)]
    numbers = [{k: float(v) for k, v in row.items() if v and not k.startswith("time/")} for row in rows]
    return {"rows": numbers, "state": flat(checkpoint.load(path)[1])}


def difference(a, b) -> float:
    """The largest difference of two outcomes, relative or of 1."""
    one, other = flat(a), flat(b)
    assert one.keys() == other.keys()
    worst = 0.0
    for path, value in one.items():
        x, y = np.asarray(value, np.float64), np.asarray(other[path], np.float64)
        assert (np.isfinite(x) == np.isfinite(y)).all(), path
        apart = np.where(np.isfinite(x), abs(x - y) / np.maximum(1.0, abs(x)), x != y)
        worst = max(worst, float(apart.max(initial=0.0)))
    return worst


def by_hand(system, folder, plans):
    num_ranks = max(size for plan in plans for size, _ in plan)
    result = mpirun(num_ranks, "-m", "tests.helpers.by_hand", system, folder, json.dumps(plans), limit=280)
    assert result.code == 0, result.output
    return [outcome(folder / str(number)) for number in range(len(plans))]


def test_a_run_goes_on_without_its_first_rank(tmp_path, promise):
    """r-MDP, of whose agents each rank has its own."""
    result, died, began = killed("rmdp", tmp_path, 3, [[3, 0, 7, 0.5, 0]])
    with promise("H1 ranks lost, the run goes on") as trial:
        assert result.code == 0 and len(died) == 1, result.output
        assert re.search(
            r"^rank 0 \(process \d+ on .*\) is lost; 2 ranks go on from iteration 8$", result.output, re.M
        )
        assert changes(began) == [[3, 7], [2, ITERATIONS]]
        (trial.seconds,) = pauses(died, began)
        (expected,) = by_hand("rmdp", tmp_path / "hand", [changes(began)])
        assert difference(outcome(tmp_path / "run"), expected) <= LIKE


@pytest.mark.parametrize(
    ("scenario", "code", "said"),
    [
        ("fail", 1, "the last rank's own mistake"),
        ("leave_early", 1, "left while others"),
        ("disk_full", 75, "No space"),
    ],
)
def test_what_is_no_loss_ends_all_ranks(scenario, code, said):
    """The launcher would leave them alive."""
    result = start(3, "tests/helpers/worker.py", scenario).wait()
    assert result.code == code and said in result.output and "is lost" not in result.output, result.output


def test_without_a_copy_of_the_state_one_line_ends_the_job(tmp_path):
    """As in programs other than training, and before it."""
    result = start(3, "tests/helpers/worker.py", "train", tmp_path / "run", "1:4").wait(150)
    assert result.code == 75 and "Traceback" not in result.output, result.output
    assert result.output.count("a rank of the job is lost, and with it the job; start it again") == 1


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("system", TINY)
def test_runs_go_on_without_ranks_that_are_killed(tmp_path, system, promise):
    """One rank of four and then one of three, in any iteration and at any of its collectives."""
    rng, plans, ends = random.Random(system), [], []
    for number in range(RUNS):
        first, second = sorted(rng.sample(range(1, ITERATIONS - 1), 2))
        plan = [
            [size, 0 if (2 * number + k) % 4 == 0 else rng.randrange(1, size), i, rng.random(), delay(rng)]
            for k, (size, i) in enumerate([(4, first), (3, second)])
        ]
        result, died, began = killed(system, tmp_path / str(number), 4, plan)
        for k, (_, rank, *_) in enumerate(plan):
            with promise(f"H1 ranks lost, the run goes on ({system})") as trial:
                assert result.code == 0 and len(died) == 2, result.output
                trial.seconds = pauses(died, began)[k]
            with (
                promise(f"H1 lost in {died[k][1]}"),
                promise("H1 rank 0 lost" if rank == 0 else "H1 another lost"),
            ):
                assert "Traceback" not in result.output, result.output
        plans.append(changes(began))
        ends.append(outcome(tmp_path / str(number) / "run"))
    for plan, end, expected in zip(plans, ends, by_hand(system, tmp_path / "hand", plans), strict=True):
        with promise(f"H1 equal to a run by hand ({system})", 2):
            assert difference(end, expected) <= LIKE, plan


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("system", TINY)
def test_two_ranks_are_lost_at_once(tmp_path, system, promise):
    """In one iteration, or the second while the others deal with the first: they go on or end in a line."""
    rng, plans, ends = random.Random(f"double {system}"), [], []
    for number in range(DOUBLES):
        i, (one, other) = rng.randrange(4, ITERATIONS - 1), rng.sample(range(4), 2)
        part = rng.random()  # at the same collective, or while the others are in it
        plan = [[4, one, i, part, 0.0], [4, other, i, part, delay(rng)]]
        if number % 2:
            plan[1] = [3, rng.randrange(3), -1, 0.5 * rng.random(), 0.0]
        result, died, began = killed(system, tmp_path / str(number), 4, plan)
        run_dir = tmp_path / str(number) / "run"
        with promise(f"H3 two lost at once ({system})"):
            assert len(died) == 2 and "Traceback" not in result.output, result.output
            if result.code == 0:
                plans.append(changes(began))
                ends.append(outcome(run_dir))
            else:
                assert result.code == 75 and "which kept a copy" in result.output, result.output
                assert checkpoint.newest_valid(run_dir)[1] == []
    hand = by_hand(system, tmp_path / "hand", plans) if plans else []
    for plan, end, expected in zip(plans, ends, hand, strict=True):
        with promise(f"H3 equal to a run by hand ({system})"):
            assert difference(end, expected) <= LIKE, plan


def delay(rng) -> float:
    """At once, or seconds later, when the rank is within the collective or past it."""
    return rng.choice([0.0, rng.uniform(0.0, 0.003)])
