"""Flags that have no effect beside the others are refused where they are given, in all systems."""

import dataclasses

import pytest
from gymnasium.spaces import Discrete

import persim.evaluation
import rl2.evaluation
import rmdp.evaluation
import train
from common.errors import UserError
from common.runs import run_folder
from comparison.config import parse_settings as compare
from envs.families import DISCRETE_FAMILIES, FAMILIES, make_family
from evaluate import EVALUATIONS
from experiments import sweep
from mpi_utils.comm import Comm
from train import SYSTEMS, parse_arguments


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("rl2 --warm_start_lr=0.1", "warm_start_lr"),
        ("rl2 --environment bandit --num_states 7", "num_states"),
        ("rl2 --environment envs.examples:point_family --num_actions 3", "num_actions"),
        ("rl2 --environment bandit --max_episode_len 7", "max_episode_len"),
        ("rl2 --architecture transformer --memory_span 7", "memory_span"),
        ("rl2 --architecture none --transition_encoder mlp", "transition_encoder"),
        ("rl2 --readout linear --readout_layers 2", "readout_layers"),
        ("rl2 --action_scaling none", "action_scaling"),
        ("rl2 --eval_tasks 5", "eval_tasks"),
        ("rl2 --normalise_rewards True --reward_scale 0.1", "reward_scale"),
        ("rmdp --algorithm random --assignment_lr 1e-3", "assignment_lr"),
        ("rmdp --environment cart_pole --assignment_lr 1e-3", "assignment_lr"),
        ("rmdp --algorithm cluster --warm_start_iters 5", "warm_start_iters"),
        ("rmdp --environment cart_pole --algorithm random --utility_decay 0.9", "utility_decay"),
        ("rmdp --environment resource_gathering --initial_log_std 0", "initial_log_std"),
        ("persim --decimal ,", "decimal"),
        ("persim --dataset setup.py --num_agents 5", "num_agents"),
        ("persim --action_layers 1", "action_layers"),
        ("caml --environment cart_pole --maps random", "maps"),
        ("caml --environment cart_pole --num_actions 5", "num_actions"),
    ],
)
def test_a_flag_of_training_without_effect_is_refused(words, flag):
    with pytest.raises(UserError, match=f"--{flag}: has an effect only with"):
        parse_arguments(words.split(), Comm())


def test_defaults_and_stored_settings_are_not_refused():
    _, config = parse_arguments("rl2 --environment bandit --num_states 10".split(), Comm())
    assert SYSTEMS["rl2"].check(dataclasses.replace(config, num_states=7))
    assert parse_arguments("rmdp --assignment_lr 0.1 --algorithm end_to_end".split(), Comm())
    usual = "--environment cart_pole --algorithm random --utility_decay 0.5"
    assert parse_arguments(["rmdp", *usual.split()], Comm())


def test_a_run_that_began_with_such_a_flag_continues_without(tmp_path):
    where = f"--environment bandit --checkpoint_dir {tmp_path} --model_name run".split()
    config = parse_arguments(["rl2", *where], Comm())[1]
    before = dataclasses.replace(config, num_states=7)
    run_folder.write_config(tmp_path / "run", {"system": "rl2"} | dataclasses.asdict(before))
    assert train.describe("rl2", config)
    with pytest.raises(UserError, match="num_features: 256 -> 8"):
        train.describe("rl2", dataclasses.replace(config, num_features=8))


def test_environments_with_numbered_actions_are_known():
    boxes = {name for name in FAMILIES if not isinstance(make_family(name).action_space, Discrete)}
    assert boxes == FAMILIES.keys() - DISCRETE_FAMILIES


def test_a_sweep_refuses_only_what_matters_to_none_of_its_runs(tmp_path):
    def configurations(flags):
        settings = sweep.Settings(over=("algorithm=em,random",), runs=str(tmp_path))
        return sweep.configurations("rmdp", settings, flags.split(), Comm())

    assert len(configurations("--warm_start_iters 5")) == 2
    with pytest.raises(UserError, match="--assignment_lr: has an effect only with"):
        configurations("--environment cart_pole --assignment_lr 0.1")


@pytest.mark.parametrize(
    ("parse", "words", "flag"),
    [
        (persim.evaluation.parse_settings, "--log later.csv --unseen 5", "unseen"),
        (persim.evaluation.parse_settings, "--columns agent=who", "columns"),
        (persim.evaluation.parse_settings, "--episodes 0 --horizon 5", "horizon"),
        (persim.evaluation.parse_settings, "--unseen 0 --observed 5", "observed"),
        (rl2.evaluation.parse_settings, "--baselines none --one_policy_share 0.5", "one_policy_share"),
        (rmdp.evaluation.parse_settings, "--baselines none --one_policy_share 0.5", "one_policy_share"),
        (compare, "--methods single --num_policies 3", "num_policies"),
        (compare, "--methods caml --budgets 3", "budgets"),
        (compare, "--methods rmdp --planned 3", "planned"),
        (compare, "--methods rmdp --behaviour random", "behaviour"),
    ],
)
def test_a_flag_of_evaluation_without_effect_is_refused(parse, words, flag):
    with pytest.raises(UserError, match=f"--{flag}: has an effect only with"):
        parse(words.split(), False)


def test_what_depends_on_the_run_is_refused_before_the_work():
    for system, words in (("rl2", "--one_policy_share 0.5"), ("rmdp", "--one_policy_share 0.5")):
        stored = dataclasses.asdict(parse_arguments([system], Comm())[1])
        evaluation = EVALUATIONS[system]
        for flags, text in ((words, "--one_policy_share: has"), ("--environment other", "leave it out")):
            with pytest.raises(UserError, match=text):
                evaluation.evaluate(stored, {}, evaluation.parse_settings(flags.split(), False), Comm())
