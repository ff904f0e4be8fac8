"""Flags that have no effect beside the others are refused where they are given, in all systems."""

import pytest

import persim.evaluation
from common.errors import UserError
from mpi_utils.comm import Comm
from train import SYSTEMS, parse_arguments


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("rl2 --warm_start_lr=0.1", "warm_start_lr"),
        ("rmdp --algorithm random --assignment_lr 1e-3", "assignment_lr"),
        ("caml --environment cart_pole --maps random", "maps"),
    ],
)
def test_a_flag_of_training_without_effect_is_refused(words, flag):
    with pytest.raises(UserError, match=f"--{flag}: has an effect only with"):
        parse_arguments(words.split(), Comm())


def test_defaults_and_stored_settings_are_not_given():
    _, config = parse_arguments("rl2 --environment bandit".split(), Comm())
    assert config.num_states == 10 and SYSTEMS["rl2"].check(config) is config
    assert parse_arguments("rmdp --assignment_lr 0.1 --algorithm end_to_end".split(), Comm())


@pytest.mark.parametrize(
    ("parse", "words", "flag"),
    [
        (persim.evaluation.parse_settings, "--log later.csv --unseen 5", "unseen"),
    ],
)
def test_a_flag_of_evaluation_without_effect_is_refused(parse, words, flag):
    with pytest.raises(UserError, match=f"--{flag}: has an effect only with"):
        parse(words.split(), False)
