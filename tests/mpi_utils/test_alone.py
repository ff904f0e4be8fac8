"""Everything works without mpirun, with MPI or without, through the same code."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from common.errors import UserError
from mpi_utils.comm import Comm
from mpi_utils.sync import FlatGradients, check_in_sync
from tests.helpers import scenarios
from tests.helpers.launch import ROOT

WITHOUT_MPI = {"MPI4PY_LIBMPI": "/no/such/libmpi.so"}


def start(scenario, **env):
    command = [sys.executable, "tests/helpers/worker.py", scenario]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | env
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("env", [{}, WITHOUT_MPI], ids=["mpi", "no mpi"])
def test_one_rank_without_mpirun(env):
    result = start("collectives", **env)
    assert (result.returncode, result.stdout) == (0, "rank 0 passed\n"), result.stderr


def test_mpirun_without_usable_mpi_is_told_once():
    results = [start("collectives", **WITHOUT_MPI, PMI_SIZE="2", PMI_RANK=rank) for rank in ("0", "1")]
    assert [result.returncode for result in results] == [2, 2]
    assert [len(result.stderr.splitlines()) for result in results] == [1, 0]
    assert "mpirun started 2 ranks but MPI cannot be loaded" in results[0].stderr


@pytest.mark.parametrize(
    "scenario, code", [("fail", 1), ("leave_early", 0), ("leave_together", 7), ("input_error", 2)]
)
def test_exit_codes_alone(scenario, code):
    result = start(scenario, **WITHOUT_MPI)
    assert result.returncode == code
    assert result.stderr.count("Traceback") == (code == 1)


@pytest.mark.promise("C1 resumed bit for bit")
def test_stopped_after_any_iteration(tmp_path):
    scenarios.resume_is_exact(Comm(), tmp_path)


@pytest.mark.promise("B2 grace saves")
def test_signals_save(tmp_path):
    scenarios.signals_save(Comm(), tmp_path)


def test_agree_shares_the_users_and_the_disks_errors_only():
    with pytest.raises(UserError, match="/no/such/file: No such file or directory"), Comm().agree():
        open("/no/such/file").close()
    with pytest.raises(ZeroDivisionError), Comm().agree():
        1 / 0  # noqa: B018


@pytest.mark.parametrize(
    "array, error",
    [
        (np.ones(2, bool), TypeError),
        (np.ones(2, np.float16), TypeError),
        (np.array([None]), TypeError),
        (np.ones(2, ">f8"), TypeError),
        ([1.0], TypeError),
        (1.0, TypeError),
        (np.ones((2, 2)).T[:1], ValueError),
        (np.broadcast_to(1.0, (2,)), ValueError),
        (torch.ones(2, dtype=torch.bfloat16), TypeError),
        (torch.ones(2, dtype=torch.bool), TypeError),
        (torch.ones(2, 3).t(), ValueError),
    ],
)
def test_what_cannot_be_reduced_is_refused_on_one_rank_as_on_many(array, error):
    with pytest.raises(error):
        Comm().allreduce_(array)
    with pytest.raises(ValueError, match="prod"):
        Comm().allreduce_(np.ones(1), "prod")


def test_flat_gradients_survive_a_foreign_zero_grad_and_clip():
    module = torch.nn.Linear(2, 1, bias=False)
    flat = FlatGradients(Comm(), module.parameters(), num_extras=2)
    module.zero_grad(set_to_none=True)
    module(torch.tensor([[3.0, 4.0]])).sum().backward()
    assert module.weight.grad.data_ptr() != flat.flat.data_ptr()
    assert flat.average(7.0, [1.5]).tolist() == [1.5]
    assert module.weight.grad.data_ptr() == flat.flat.data_ptr()
    assert flat.clip(10.0) == 5.0 and module.weight.grad.tolist() == [[3.0, 4.0]]
    assert flat.clip(1.0) == 5.0
    np.testing.assert_allclose(module.weight.grad.tolist(), [[0.6, 0.8]], rtol=1e-6)
    with pytest.raises(ValueError, match="room for 2"):
        flat.average(1.0, [1, 2, 3])
    with pytest.raises(TypeError, match="float32"):
        FlatGradients(Comm(), [torch.zeros(2, dtype=torch.float64)])
    check_in_sync(Comm(), {"weight": module.weight})


THREADS = """
import torch
from threadpoolctl import threadpool_info
from mpi_utils.comm import Comm, set_threads
print(set_threads(Comm()), torch.get_num_threads())
print(*{pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"})
"""


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["", "1000"])
def test_torch_gets_one_thread_or_those_that_are_asked_for_and_numpy_one(asked):
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"OMP_NUM_THREADS": asked} if asked else {}
    cores = len(os.sched_getaffinity(0))
    threads = cores if asked else 1
    command = [sys.executable, "-c", THREADS]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    torchs, numpys = result.stdout.splitlines()
    assert torchs.split() == [str(threads)] * 2 and numpys == "1", result.stderr
