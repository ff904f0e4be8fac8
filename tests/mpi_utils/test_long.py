"""A long run holds no more memory, files and threads at its end than after a tenth of it."""

import json

import pytest

from tests.helpers.launch import mpirun

pytestmark = pytest.mark.mpi


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_ten_thousand_iterations_hold_no_more(tmp_path, promise):
    result = mpirun(2, "tests/helpers/long.py", tmp_path, 10_000, limit=800)
    assert result.code == 0, result.output
    lines = [json.loads(line) for line in result.output.splitlines() if line.startswith("{")]
    assert {line["rank"] for line in lines} == {0, 1}
    ends = [(line["held"][0], line["held"][-1]) for line in lines]
    grown = max(last["memory"] / first["memory"] - 1 for first, last in ends)
    with promise(f"G1 iterations, grown {grown:.2%}", 10_000) as trial:
        trial.seconds = result.seconds
        for first, last in ends:
            assert last["memory"] - first["memory"] < 5e6 and grown < 0.01, (first, last)
            assert (first["files"], first["threads"]) == (last["files"], last["threads"]), (first, last)
