"""The real command under mpirun: ranks share environments and agents and learn the same."""

import csv
import json
import re

import numpy as np
import pytest

from common.runs import checkpoint
from rmdp.shared_dynamics import WHOLE_CRITIC
from tests.helpers.launch import command, mpirun

TINY = (
    "--num_agents 7 --num_policies 3 --num_features 8 --steps_per_policy 64 --envs_per_policy 4 "
    "--num_epochs 2 --num_minibatches 4 --checkpoint_interval 2"
).split()

MANY = WHOLE_CRITIC + 3  # each rank has the critic's rows of its own agents only


def train(tmp_path, name, ranks, *flags):
    where = ["--checkpoint_dir", str(tmp_path), "--model_name", name]
    warm = [] if {"end_to_end", "cluster"} & set(flags) else ["--warm_start_iters", "1"]
    done = command(ranks, "train", "rmdp", *TINY, *warm, *where, *flags)
    assert done.code == 0, done.output
    path, _ = checkpoint.newest_valid(tmp_path / name)
    return checkpoint.load(path)


def leaves(state, prefix=""):
    for name, value in state.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", np.asarray(value)


@pytest.mark.mpi
@pytest.mark.promise("C2 other number of ranks")
@pytest.mark.parametrize(
    ("environment", "algorithm", "ranks", "num_agents"),
    [
        ("resource_gathering", "em", 2, 7),
        ("half_cheetah", "end_to_end", 3, 7),
        ("half_cheetah", "em", 5, MANY),  # more ranks than environments of a policy
        ("resource_gathering", "end_to_end", 2, MANY),
        ("resource_gathering", "cluster", 3, 7),
    ],
)
def test_any_number_of_ranks_learns_the_same(tmp_path, environment, algorithm, ranks, num_agents):
    flags = ["--environment", environment, "--algorithm", algorithm, "--max_iters", "2"]
    flags += ["--num_agents", str(num_agents)]
    _, alone = train(tmp_path, "alone", 1, *flags)
    _, shared = train(tmp_path, "shared", ranks, *flags)
    alone, shared = dict(leaves(alone)), dict(leaves(shared))
    assert alone.keys() == shared.keys()
    for name, value in alone.items():
        np.testing.assert_allclose(shared[name], value, rtol=2e-3, atol=2e-4, err_msg=name)


@pytest.mark.mpi
@pytest.mark.parametrize("num_agents", [7, pytest.param(MANY, marks=pytest.mark.nightly)])
def test_a_run_continues_at_another_number_of_ranks_and_bit_for_bit_at_the_same(tmp_path, num_agents):
    flags = ["--environment", "half_cheetah", "--num_agents", str(num_agents)]
    _, whole = train(tmp_path, "whole", 2, *flags, "--max_iters", "4")
    train(tmp_path, "parts", 2, *flags, "--max_iters", "4", "--checkpoint_interval", "1")
    for step in (3, 4):  # as if it had been killed after the second save
        for file in (tmp_path / "parts" / f"step_{step:08d}").iterdir():
            file.unlink()
    step, again = train(tmp_path, "parts", 2, *flags, "--max_iters", "4")
    assert step == 4
    whole, again = dict(leaves(whole)), dict(leaves(again))
    assert all(np.array_equal(whole[name], again[name]) for name in whole)
    step, _ = train(tmp_path, "parts", 3, *flags, "--max_iters", "5")
    assert step == 5
    with open(tmp_path / "parts" / "metrics.csv", newline="") as file:
        assert [row["iteration"] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "5"]


SEVERAL = """
import json, sys, train
from mpi_utils.comm import guard
def main(comm):
    for words in json.loads(commands):
        sys.argv = ["train", *words]
        train.main(comm)
commands = sys.argv[1]
guard(main)
"""


@pytest.mark.mpi
@pytest.mark.promise("D3 shares of any size")
def test_extreme_sizes(tmp_path):
    """One agent, k = n, k = 1, fewer agents than ranks, in one launch."""
    sizes, where = ((1, 1), (7, 7), (7, 1), (2, 2)), ["--checkpoint_dir", str(tmp_path)]
    every = ["rmdp", *TINY, *where, "--warm_start_iters", "1", "--max_iters", "3"]
    every += ["--environment", "resource_gathering"]
    names = [["--model_name", f"{n}_{k}"] for n, k in sizes]
    own = [["--num_agents", str(n), "--num_policies", str(k)] for n, k in sizes]
    words = json.dumps([[*every, *name, *flags] for name, flags in zip(names, own, strict=True)])
    done = mpirun(3, "-c", SEVERAL, words)
    assert done.code == 0, done.output
    for n, k in sizes:
        step, state = checkpoint.load(checkpoint.newest_valid(tmp_path / f"{n}_{k}")[0])
        policy_of = state["assignment"]["policy_of"].tolist()
        assert step == 3 and len(policy_of) == n and set(policy_of) <= set(range(k))
        with open(tmp_path / f"{n}_{k}" / "metrics.csv", newline="") as file:
            smallest = [float(row["train/smallest_group"]) for row in csv.DictReader(file)]
        assert smallest[1] >= 1  # until the end nobody's policy is empty


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--num_policies 8", "--num_policies 8: more policies than the 7 agents"),
        ("--target_low -1", "target speeds from -1.0 to 4.0; give finite numbers 0 <= low < high"),
        ("--target_low 3 --target_high 2", "target speeds from 3.0 to 2.0"),
        ("--environment resource_gathering --target_high 2", "resource_gathering has no target speeds"),
        ("--population /nowhere.npz", "no population at /nowhere.npz"),
        ("--envs_per_policy 5", "--steps_per_policy 64: must be a multiple of --envs_per_policy"),
    ],
)
def test_mistakes_end_all_ranks_with_one_line(tmp_path, flags, said):
    ranks = 2 if "policies" in flags else 1
    done = command(ranks, "train", "rmdp", *TINY, "--checkpoint_dir", str(tmp_path), *flags.split())
    assert done.code == 2, done.output
    lines = [line for line in done.output.splitlines() if line.strip()]
    assert len(lines) == 1 and said in re.sub(r"\s+", " ", lines[0]), done.output
    assert not list(tmp_path.glob("*/step_*"))
