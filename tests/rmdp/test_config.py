"""Settings: defaults by environment, and those that earlier versions stored."""

import dataclasses
import json
from pathlib import Path

import pytest

from common.config import from_stored, parse_flags
from common.errors import UserError
from rmdp.config import Config, check_config
from rmdp.evaluation import stored_config

EXAMPLES = sorted(Path(__file__).parents[2].glob("checkpoints/examples/rmdp_*/config.json"))


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ("half_cheetah", {"target_low": 0.0, "target_high": 4.0, "gamma": 0.99, "utility_decay": 0.95}),
        ("ant", {"target_high": 3.0, "learning_rate": 3e-4, "normalise_observations": True}),
        ("resource_gathering", {"target_high": None, "gamma": 1.0, "learning_rate": 5e-4, "adam_eps": 1e-8}),
        ("cart_pole", {"target_low": None, "gamma": 0.99, "utility_decay": 0.5, "learning_rate": 1e-3}),
        ("diabetes", {"envs_per_start": 8, "initial_action": -0.5, "final_log_std": -3.0, "gae_lambda": 1.0}),
    ],
)
def test_defaults_are_those_of_the_environment(environment, expected):
    config = check_config(Config.defaults({"environment": environment}))
    assert config.environment == environment
    assert {name: getattr(config, name) for name in expected} == expected
    optional = {"target_low", "target_high", "final_log_std"}
    assert {name for name, value in dataclasses.asdict(config).items() if value is None} <= optional


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_shipped_runs_mean_what_they_meant(path):
    stored = json.loads(path.read_text())
    config = stored_config(stored)
    assert config.utility_decay == stored.get("utility_averaging", stored.get("utility_decay"))
    for name, value in stored.items():
        if name in {field.name for field in dataclasses.fields(Config)} and value is not None:
            assert getattr(config, name) == value, name


def test_old_names_of_settings():
    stored = {"environment": "ant", "utility_averaging": 0.25, "target_high": None}
    config = check_config(from_stored(Config, stored))
    assert (config.utility_decay, config.target_high) == (0.25, 3.0)


@pytest.mark.parametrize("settings", [{"initial_log_std": 900.0}, {"utility_decay": 1.5}, {"num_epochs": 0}])
def test_what_cannot_be_meant_is_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        check_config(dataclasses.replace(Config(), **settings))


def test_no_flags_at_all_are_the_defaults():
    assert parse_flags(Config, [], "prog") == Config.defaults({}) == Config()
