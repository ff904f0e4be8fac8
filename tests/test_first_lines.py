"""What a training says before its first iteration."""

import pytest

import train
from mpi_utils.comm import Comm
from tests.helpers import runs


def lines(system, *flags):
    config = runs.settings(system, *flags)
    problem = train.SYSTEMS[system].make_problem(config, Comm())
    return train.first_lines(system, config, problem)


@pytest.mark.parametrize(
    "system, flags, scale",
    [
        ("rl2", (), "random actions return 10"),  # ten steps of 1 on average
        ("rl2", ("--environment", "bandit"), "random actions return 5"),  # ten pulls of .5
        # Of the cells 0 to 6 the nearest walks have 12, 10, 8, 10, 12, 10 and 8 steps: 90 % on average.
        ("rmdp", (), "0 is nothing, 90 the best for each agent"),
        ("rmdp", ("--environment", "half_cheetah"), "0 is nothing, 100 the best for each agent"),
    ],
)
def test_returns_get_a_scale(system, flags, scale):
    told = lines(system, *flags)
    assert told[-1].startswith(f"scale: {scale}"), told
    assert told[0].startswith("30 iterations, a save ")


def test_nothing_is_said_of_a_scale_that_is_not_known():
    assert not any(line.startswith("scale") for line in lines("rl2", "--environment", "half_cheetah_vel"))
    assert not any(line.startswith("scale") for line in lines("persim"))
