"""Settings from a file and from a run: they hold below the flags, and mistakes in them are one line."""

import json

import pytest

from common import settings_file
from common.errors import UserError
from mpi_utils.comm import Comm
from tests.helpers.launch import mpirun
from train import parse_arguments, settings_of

TINY = (
    "--environment bandit --num_actions 3 --meta_episode_len 5 --num_features 4 "
    "--meta_episodes_per_policy_update 4 --meta_episodes_per_learner_batch 2"
).split()


def parsed(*words):
    arguments, below = settings_of([*map(str, words)])
    return parse_arguments(arguments, Comm(), below=below)


def write(path, text):
    path.write_text(text)
    return path


def test_flags_win_over_a_file_and_a_file_over_defaults(tmp_path):
    file = write(tmp_path / "run.toml", 'environment = "half_cheetah_vel"\nseed = 3\nadam_lr = 0.5\n')
    name, config = parsed("--config", file, "--seed", 4)
    assert (name, config.environment, config.seed, config.learning_rate) == (
        "rl2",
        "half_cheetah_vel",
        4,
        0.5,
    )
    assert config.normalise_observations  # the defaults are those of the file's environment


def test_a_file_names_its_system(tmp_path):
    file = write(tmp_path / "run.toml", 'system = "caml"\nseed = 3\n')
    name, config = parsed(f"--config={file}")
    assert (name, config.seed) == ("caml", 3)
    with pytest.raises(UserError, match="rmdp: the settings that are given are of caml"):
        parsed("rmdp", "--config", file)


def test_the_settings_of_another_run_can_be_taken(tmp_path):
    stored = {"system": "rl2", "final_log_std": None, "bootstrap": False, "population": "", "seed": 7}
    file = write(tmp_path / "config.json", json.dumps(stored))
    name, config = parsed("--config", file, "--model_name", "second")
    assert (config.seed, config.final_log_std, config.population, config.model_name) == (
        7,
        None,
        "",
        "second",
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "sead = 1", "sead=1: no setting has this name"),
        ("a.toml", "seed = 'x'", "seed"),
        ("a.toml", "seed = [1, 2]", "seed is a list"),
        ("a.toml", "[rl2]\nseed = 1", "rl2 is a table"),
        ("a.toml", "seed =", "cannot be read as TOML"),
        ("a.json", "[1]", "holds no settings"),
        ("a.json", "seed = 1", "JSON"),
        ("a.toml", "seed = -1", "--seed"),
        ("a.toml", 'system = "dqn"', "unknown system 'dqn'"),
    ],
)
def test_mistakes_in_a_file(name, text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        parsed("--config", write(tmp_path / name, text))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config"], "--config: give a file"),
        (["--resume", "--seed", "1"], "--resume: give a run folder"),
        (["--config", "a", "--resume", "b"], "give one of the two"),
        (["--resume", "nowhere"], "is this the folder of a run"),
        (["--config", "nowhere.toml"], "No such file"),
    ],
)
def test_mistakes_in_the_flags(words, message):
    with pytest.raises(UserError, match=message):
        parsed(*words)


def test_no_other_word_is_taken():
    assert settings_file.split(["rl2", "--seed", "1"]) == (["rl2", "--seed", "1"], {})


@pytest.mark.mpi
def test_a_run_goes_on_by_its_name_alone(tmp_path):
    start = ["-m", "train", "rl2", *TINY, "--checkpoint_dir", tmp_path, "--model_name", "mine"]
    assert mpirun(2, *start, "--max_iters", 2).code == 0
    again = ["-m", "train", "--resume", tmp_path / "mine"]
    assert mpirun(2, *again, "--max_iters", 3).code == 0
    assert (tmp_path / "mine" / "metrics.csv").read_text().count("\n") == 4  # a title, three iterations
    other = mpirun(2, *again, "--num_features", 8)
    assert other.code == 2
    assert other.output.count("holds another experiment (num_features: 4 -> 8)") == 1
