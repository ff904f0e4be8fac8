"""The least number of policies: a sweep that stops by itself, goes on where it was, and splits policies."""

import csv

import numpy as np
import pytest

from common.errors import UserError
from experiments.choose_k import choose
from mpi_utils.comm import Comm
from rmdp.start import split

TINY = (
    "--environment cart_pole --num_agents 5 --num_features 4 --steps_per_policy 64 --envs_per_policy 2 "
    "--num_epochs 1 --num_minibatches 2 --warm_start_iters 0 --max_iters 2"
).split()


def test_the_worse_off_half_of_the_worst_off_policy_gets_a_new_one():
    policy_of, utility = np.array([0, 1, 0, 1, 1, 1, 2]), np.array([0.9, 0.3, 0.8, 0.1, 0.9, 0.2, 0.1])
    # Policy 2 has the least mean, but one agent, which cannot be divided.
    assert split(policy_of, utility, 3).tolist() == [0, 1, 0, 3, 1, 3, 2]


@pytest.mark.slow
def test_it_stops_at_the_first_certificate_that_holds_and_goes_on_where_it_was(tmp_path, capsys):
    where = ["--runs", str(tmp_path / "runs"), "--table", str(tmp_path / "table"), "--certify", "8"]
    where += ["--episodes", "1"]
    never = [*where, "--most", "2", "--", *TINY]  # untrained poles do not stand
    assert choose(never, Comm()) == 0
    assert "up to 2 policies are not enough for 90%" in capsys.readouterr().out
    stored = (tmp_path / "runs" / "k2" / "evaluation.json").read_bytes()
    assert choose(never, Comm()) == 0
    assert (tmp_path / "runs" / "k2" / "evaluation.json").read_bytes() == stored
    with open(tmp_path / "table" / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["num_policies"], row["metric"]) for row in rows} >= {
        ("1", "social_welfare"),
        ("2", "worst_decile"),
    }
    assert (tmp_path / "table" / "table.md").read_text().count("\n") == 4
    assert (tmp_path / "table" / "curve.png").exists()
    assert choose([*where, "--share", "0", "--", *TINY], Comm()) == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--least", "3", "--most", "2", "--"], "--least 3: is above --most 2"),
        (["--", "--num_policies", "3"], "--num_policies: this command sets it"),
        (["--share", "2", "--"], "--share 2"),
        (["--", "--environment", "nowhere"], "nowhere: unknown"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, flags, said):
    where = ["--runs", str(tmp_path / "runs"), "--table", str(tmp_path / "table")]
    with pytest.raises(UserError, match=said) as caught:
        choose([*where, *flags], Comm())
    assert "\n" not in str(caught.value)
