"""A long run holds no more memory, files and threads at its end than after a tenth of it."""

import json

import pytest

from tests.launch import find_mpirun, mpirun

pytestmark = pytest.mark.skipif(find_mpirun() is None, reason="no mpirun: pip install mpich")


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_ten_thousand_iterations_hold_no_more(tmp_path, promise):
    result = mpirun(2, "tests/mpi_utils/long.py", tmp_path, 10_000, limit=800)
    assert result.code == 0, result.output
    lines = [json.loads(line) for line in result.output.splitlines() if line.startswith("{")]
    assert {line["rank"] for line in lines} == {0, 1}
    grown = 0.0
    for line in lines:
        first, *_, last = line["held"]
        grown = max(grown, last["memory"] / first["memory"] - 1)
        assert last["memory"] - first["memory"] < 5e6, line
        assert (first["files"], first["threads"]) == (last["files"], last["threads"]), line
    promise(f"G1 iterations, grown {grown:.2%}", 10_000, int(grown >= 0.01), result.seconds)
    assert grown < 0.01
