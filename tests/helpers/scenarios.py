"""Scenarios with torch, together in one start of the ranks because importing torch is what takes the time."""

import signal
from contextlib import contextmanager

import numpy as np
import torch

from common.runs.seeding import SharedStream, stream
from mpi_utils.comm import Comm
from mpi_utils.loop import resume
from mpi_utils.loop import run as train
from mpi_utils.sync import FlatGradients, broadcast_parameters, check_in_sync
from tests.helpers.tiny_learner import Learner, digest, send_myself

ITERATIONS, NUM_FLIPS = 6, 50


def run(comm, folder):
    """All scenarios; those that one rank can play too come first."""
    together = (refusals, gradients, shared_stream, broadcast, desync) if comm.size > 1 else ()
    for scenario in (resume_is_exact, signals_save, *together):
        scenario(comm, folder / scenario.__name__)
        comm.barrier()
        if comm.is_root:
            print(f"{scenario.__name__} passed", flush=True)


def kept(comm, promise: str) -> None:
    """Tell of a trial that passed."""
    if comm.is_root:
        print(f"kept: {promise}", flush=True)


@contextmanager
def raises(kind, text):
    try:
        yield
    except kind as error:
        assert text in str(error), error
    else:
        raise AssertionError(f"no {kind.__name__}: {text}")


def settled(comm, learner, folder) -> str:
    """Return the digest once rank 0 has written its rows; equal on all ranks."""
    comm.barrier()
    digests = comm.allgather_object(digest(learner, folder))
    assert len(set(digests)) == 1
    return digests[0]


def resume_is_exact(comm, folder):
    """N iterations equal k and N - k, for every k, with saves that do and do not fall on k."""
    whole = Learner(comm)
    assert train(whole, comm, folder / "whole", iterations=ITERATIONS, checkpoint_interval=2)
    expected = settled(comm, whole, folder / "whole")
    for k in range(1, ITERATIONS):
        first, second = Learner(comm), Learner(comm, seed=0)
        train(first, comm, folder / f"{k}", iterations=k, checkpoint_interval=4)
        with torch.no_grad():
            second.parameter.fill_(9.0)
        second.best = -9.0
        train(second, comm, folder / f"{k}", iterations=ITERATIONS, checkpoint_interval=4, keep=1)
        assert settled(comm, second, folder / f"{k}") == expected, f"k = {k}"
        assert len(list((folder / f"{k}").glob("step_*"))) == 1
        kept(comm, "C1 resumed bit for bit")
    again = Learner(comm)
    assert train(again, comm, folder / "whole", iterations=ITERATIONS, checkpoint_interval=2)
    assert settled(comm, again, folder / "whole") == expected, "a finished run changes nothing"


def signals_save(comm, folder):
    """A signal on the last rank alone stops all ranks after the same iteration, saved."""
    reference = Learner(comm)
    train(reference, comm, folder / "whole", iterations=ITERATIONS, checkpoint_interval=100)
    last = comm.rank == comm.size - 1
    for number in (signal.SIGUSR1, signal.SIGTERM):
        run_dir = folder / str(int(number))
        before = signal.getsignal(number)
        learner = Learner(comm, at={2: lambda number=number: send_myself(number)} if last else {})
        try:
            stopped = train(learner, comm, run_dir, iterations=ITERATIONS, checkpoint_interval=100)
        except SystemExit as error:
            stopped = error.code
        assert stopped == (143 if number == signal.SIGTERM else False)
        assert signal.getsignal(number) is before
        comm.barrier()
        assert [p.name for p in run_dir.glob("step_*")] == ["step_00000003"]
        rest = Learner(comm)
        assert train(rest, comm, run_dir, iterations=ITERATIONS, checkpoint_interval=100)
        assert settled(comm, rest, run_dir) == settled(comm, reference, folder / "whole")
        kept(comm, "B2 grace saves")


def refusals(comm, folder):
    """Types that MPI adds wrongly are refused on all ranks."""
    for dtype in (torch.bfloat16, torch.float16, torch.bool):
        with raises(TypeError, ""):
            comm.allreduce_(torch.ones(3, dtype=dtype))
    received = comm.bcast_(torch.full((3,), comm.rank + 0.5, dtype=torch.bfloat16))
    assert (received == 0.5).all()


def gradients(comm, folder):
    """Means weighted by counts equal the gradient of the whole batch on one rank; shares may be empty."""
    for total in range(1, comm.size + 3):
        inputs = torch.from_numpy(stream(1, "tasks", total).standard_normal((total, 4), "float32"))
        wanted, module = (torch.nn.Linear(4, 3) for _ in range(2))
        broadcast_parameters(comm, wanted)
        module.load_state_dict(wanted.state_dict())
        wanted(inputs).square().mean().backward()

        flat = FlatGradients(comm, module.parameters())
        mine = inputs[comm.share(total)]
        flat.zero()
        if len(mine):
            module(mine).square().mean().backward()
        extras = flat.average(len(mine), [float(mine.sum(1).mean()), 2.0])  # the mean of no rows is NaN
        for ours, theirs in zip(module.parameters(), wanted.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(extras, [float(inputs.sum(1).mean()), 2.0], rtol=1e-5, atol=1e-6)
        check_in_sync(comm, {"gradient": flat.flat})

    with raises(ValueError, "no rank has a sample"):
        flat.average(0.0)
    for rank in (0, comm.size - 1):
        flat.zero()
        if comm.rank == rank:
            module.weight.grad[0, 0] = float("nan")
        with raises(FloatingPointError, f"not finite on rank {rank}"):
            flat.average(1.0, [1.0])


def shared_stream(comm, folder):
    """The rows of all ranks together are what one generator draws for one rank."""
    total = 7

    def draws(comm):
        shared = SharedStream(stream(3, "acting", 5), total, comm.share(total))
        n, single = shared.num_local, np.float32
        return [shared.random(n), shared.standard_normal((n, 2), single), shared.standard_exponential((n, 1))]

    parts = comm.allgather_object(draws(comm))
    for ours, alone in zip(zip(*parts, strict=True), draws(Comm()), strict=True):
        assert np.array_equal(np.concatenate(ours), alone) and ours[0].dtype == alone.dtype


def broadcast(comm, folder):
    """Parameters and buffers of all kinds follow rank 0, also those that are not contiguous."""
    module = torch.nn.BatchNorm1d(3)
    module.register_parameter("turned", torch.nn.Parameter(torch.zeros(2, 3).t()))
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.fill_(comm.rank + 1)
    broadcast_parameters(comm, module)
    assert all((tensor == 1).all() for tensor in (*module.parameters(), *module.buffers()))


def desync(comm, folder):
    """One flipped bit on one rank is named on all ranks; NaN equals itself."""
    check_in_sync(comm, {"nan": torch.full((2,), float("nan")), "empty": torch.zeros(0)})
    rng = stream(2, "evaluation")
    for _ in range(NUM_FLIPS):
        tensors = {"a": torch.zeros(3), "b": torch.full((2, 2), float("nan")), "c": torch.arange(3)}
        name, rank = rng.choice(list(tensors)), int(rng.integers(comm.size))
        bytes_ = tensors[name].reshape(-1).view(torch.uint8)
        position, bit = int(rng.integers(len(bytes_))), int(rng.integers(8))
        if comm.rank == rank:
            bytes_[position] ^= 1 << bit
        blamed = rank if comm.size > 2 else 1  # of two, rank 0 is taken to be right
        with raises(RuntimeError, f"rank {blamed} deviates, first in {name}"):
            check_in_sync(comm, tensors)
        kept(comm, "D1 flipped bits between ranks")
    with raises(RuntimeError, "rank 1 has tensors of other names"):
        check_in_sync(comm, {"a": torch.zeros(2 if comm.rank == 1 else 3)})

    learner = Learner(comm)  # and the loop itself stops, before it saves what has gone astray
    if comm.rank == 1:
        learner.at = {1: lambda: learner.parameter.data.add_(1.0)}
    with raises(RuntimeError, "rank 1 deviates, first in parameter"):
        train(learner, comm, folder, iterations=4, checkpoint_interval=2)
    comm.barrier()
    assert not list(folder.glob("step_*")) and resume(Learner(comm), comm, folder) == 0
