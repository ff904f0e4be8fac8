"""How behaviour policies are trained, for which stable-baselines3 is needed."""

import dataclasses

import numpy as np
import pytest

from envs import make_family
from envs.heterogeneous_dynamics import DynamicsEnv
from experiments.behaviour import RECIPES, Settings, Snapshots, layers_of, make_model, train_all
from persim.data import behaviour
from persim.data.behaviour import Policy


def snapshots_of(returns, low, high, **options):
    """Take snapshots of networks, each of which is just the mean return that it reaches."""
    snapshots = Snapshots(low, high, lambda layers: np.array([layers - 1.0, layers + 1.0]), **options)
    for steps, layers in enumerate(returns):
        if snapshots.take(layers, steps):
            break
    return snapshots


def test_training_stops_in_the_range():
    kept = snapshots_of([20.0, 180.0, 121.0, 120.0], 115.0, 125.0)
    assert kept.layers == 121.0 and kept.steps == 2


def test_without_one_in_the_range_the_nearest_is_kept():
    assert snapshots_of([20.0, 100.0, 138.0, 200.0], 115.0, 125.0).layers == 138.0
    assert snapshots_of([20.0, 101.0, 138.0, 10.0], 115.0, 125.0).layers == 138.0
    assert snapshots_of([20.0, 103.0, 138.0, 10.0], 115.0, 125.0).layers == 103.0


def test_it_may_stop_beyond_the_range_with_the_nearest_one():
    assert snapshots_of([20.0, 100.0, 138.0, 120.0], 115.0, 125.0).layers == 120.0
    assert snapshots_of([20.0, 100.0, 138.0, 120.0], 115.0, 125.0, stop_above=True).layers == 138.0
    assert snapshots_of([20.0, 110.0, 138.0, 120.0], 115.0, 125.0, stop_above=True).layers == 110.0


@pytest.mark.parametrize("name", RECIPES)
def test_a_policy_acts_as_the_network_that_was_trained(name):
    pytest.importorskip("stable_baselines3")
    recipe = RECIPES[name]
    recipe = dataclasses.replace(recipe, settings=recipe.settings | {"buffer_size": 10})
    family = make_family(name)
    model = make_model(recipe, DynamicsEnv(type(family)), seed=1)
    states = np.random.default_rng(0).normal(0, 20, (100, len(family.state_names))).astype(np.float32)
    wanted, _ = model.predict(states, deterministic=True)
    policy = Policy(family, layers_of(model), np.zeros(100, np.int64))
    np.testing.assert_allclose(policy.greedy(states), wanted, atol=1e-5)
    assert len(np.unique(wanted)) > 1


def test_the_command_trains_what_is_missing(tmp_path, capsys):
    pytest.importorskip("stable_baselines3")
    family = make_family("cart_pole")
    settings = Settings("cart_pole", max_steps=40, folder=str(tmp_path))
    train_all(settings)
    first = behaviour.load(family, tmp_path)
    assert [card["agent"]["force"] for card in first.cards] == [6.0, 14.0, 10.0, 10.0, 10.0, 10.0]
    assert [card["role"] for card in first.cards] == ["behaviour"] * 5 + ["test"]
    assert first.layers[0][0].shape == (6, 4, 64)
    assert len(capsys.readouterr().out.splitlines()) == 6
    train_all(settings)  # nothing is missing
    np.testing.assert_array_equal(behaviour.load(family, tmp_path).layers[0][0], first.layers[0][0])
    assert capsys.readouterr().out == ""
