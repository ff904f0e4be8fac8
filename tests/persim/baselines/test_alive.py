"""Each baseline is alive: with plenty of good data of CartPole it does what it is made for."""

import dataclasses
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from envs import make_family
from persim.baselines import cadm, morel, offline
from persim.data.trajectories import log_dynamics, trajectories
from persim.testing import prediction

NUM_AGENTS = 100
NEEDS = {"bcq": "d3rlpy", "cql": "d3rlpy", "morel": "stable_baselines3"}


def balance(state, rng):
    """Holds the pole up, and acts at random one time in ten."""
    action = (state @ np.array([0.1, 0.3, 3.0, 1.0]) > 0).astype(np.int64)
    return np.where(rng.random(len(state)) < 0.1, rng.integers(2, size=len(state)), action)


def family_and_agents(spread: float):
    """CartPole, and agents whose force and length differ by up to `spread`, as a part of their usual ones."""
    family, rng = make_family("cart_pole"), np.random.default_rng(3)
    family.name = "cart_pole"
    apart = {name: 1 + spread * rng.uniform(-1, 1, NUM_AGENTS) for name in family.default}
    return family, {name: value * apart[name] for name, value in family.default.items()}


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", NEEDS)
def test_from_good_data_of_one_agent_a_policy_has_nine_tenths_of_their_return(algorithm):
    if find_spec(NEEDS[algorithm]) is None:
        pytest.skip("needs extra [baselines]")
    family, agents = family_and_agents(0.0)
    data = log_dynamics(family, agents, balance, np.random.default_rng(0))

    def reached(effort):
        if algorithm == "morel":
            settings = morel.Settings(model_iters=10, num_steps=40_000 * effort)
            policy = morel.train(data, family, settings, seed=1)
        else:
            policy = offline.train(algorithm, data, family, 300 * effort, seed=1)
        played = trajectories(family, agents, policy, np.random.default_rng(1), family.max_episode_len)
        return played.returns().mean()

    assert len(data) > NUM_AGENTS * 190
    assert reached(1) >= 0.9 * len(data) / NUM_AGENTS
    if algorithm != "morel":
        assert reached(0) < 100, "the test cannot fail"


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.8, 0.0])
def test_cadm_predicts_a_step_as_well_as_a_plain_network_and_better_where_agents_differ(spread):
    family, agents = family_and_agents(spread)
    data = log_dynamics(family, agents, balance, np.random.default_rng(0))
    test = prediction.draw_task(family, agents, lambda num: balance, 5, np.random.default_rng(5))
    made = test.counts[:, :, 0]

    def error(settings):
        """Of one step, in deviations of the velocities' changes."""
        model = cadm.train(data, family, settings, seed=0)
        state = torch.from_numpy(test.states[:, :, 0].astype(np.float32))[None]
        predicted = model.after(*test.past).step(state, torch.from_numpy(test.actions[:, :, 0])).mean(0)
        true, before = test.states[:, :, 1][made], test.states[:, :, 0][made]
        wrong = (predicted.numpy()[made] - true) / (true - before).std(0)
        return np.sqrt(np.mean(wrong[:, [1, 3]] ** 2))

    settings = dataclasses.replace(cadm.VANILLA, num_steps=300)
    with_context, plain = error(settings), error(dataclasses.replace(settings, history=0))
    if spread:
        assert plain > 0.2 and with_context < plain / 2
    else:
        assert max(plain, with_context) < 0.02
