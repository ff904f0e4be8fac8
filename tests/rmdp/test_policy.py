"""Actors: each agent gets what its policy does, from a learner and from a run folder."""

import dataclasses

import numpy as np
import pytest
import torch

import rmdp
from common.errors import UserError
from common.rollout import play
from common.runs import checkpoint, run_folder
from envs import make_family
from mpi_utils.comm import Comm
from rmdp.config import Config, check_config
from rmdp.learner import Learner
from rmdp.problem import make_problem

SIZES = {"num_agents": 5, "num_policies": 3, "num_features": 8, "steps_per_policy": 64, "envs_per_policy": 4}
SIZES |= {"num_epochs": 2, "num_minibatches": 4, "warm_start_iters": 1, "max_iters": 3}
OWN = np.array([2, 0, 0, 1, 2])


def trained(environment, **settings):
    config = dataclasses.replace(Config.defaults({"environment": environment}), **{**SIZES, **settings})
    learner = Learner(check_config(config), Comm(), make_problem(config, Comm()))
    for i in range(2):
        learner.train_iteration(i)
    with torch.no_grad():  # so that policies differ
        learner.policies.head.bias += torch.randn(learner.policies.head.bias.shape) * 3
    return learner


@pytest.mark.parametrize("environment", ["cart_pole", "half_cheetah"])
def test_row_i_does_what_the_policy_of_agent_i_does(environment):
    torch.manual_seed(0)
    learner = trained(environment)
    space = learner.problem.family.action_space
    observation = np.random.default_rng(0).normal(size=(12, *learner.problem.family.observation_space.shape))
    actor = learner.actor(policy_of=OWN)
    actor.reset(12)
    action = actor.act(observation, None, None)
    with torch.no_grad():
        seen = torch.from_numpy(observation.astype(np.float32)).expand(3, -1, -1)
        every = learner.policies.most_likely(seen).numpy()
    expected = every[OWN[np.arange(12) % 5], np.arange(12)]
    if environment == "half_cheetah":
        assert (np.abs(expected) > 1).any()
        expected = expected.clip(space.low, space.high)
    np.testing.assert_allclose(action, expected, rtol=1e-5, atol=1e-6)
    assert action.dtype == space.dtype and all(space.contains(row) for row in action)


def test_an_actor_of_some_agents():
    learner = trained("cart_pole")
    every, some = learner.population.assignment.everyone(), np.array([3, 1])
    assert learner.actor(some).policy_of.tolist() == every[some].tolist()


@pytest.mark.parametrize("environment", ["cart_pole", "resource_gathering"])
def test_a_run_is_loaded_and_acts_in_a_line(environment, tmp_path):
    learner, rng = trained(environment), np.random.default_rng
    run_folder.write_config(tmp_path / "run", {"system": "rmdp", **dataclasses.asdict(learner.config)})
    checkpoint.save(tmp_path / "run", 2, learner.state_dict())
    family, agents = make_family(environment), learner.problem.agents
    found = [
        play(family.make_vec(agents, rng(1)), actor, 30)
        for actor in (rmdp.load(tmp_path / "run"), learner.actor(), rmdp.load(tmp_path / "run", np.arange(5)))
    ]
    for name in ("returns", "lengths"):
        values = [getattr(episodes, name).tolist() for episodes in found]
        assert values[0] == values[1] == values[2] and len(values[0]) == 5


def test_what_cannot_act_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no such run folder"):
        rmdp.load(tmp_path / "none")
    learner = trained("resource_gathering", algorithm="cluster", max_iters=20)
    run_folder.write_config(tmp_path / "run", {"system": "rmdp", **dataclasses.asdict(learner.config)})
    checkpoint.save(tmp_path / "run", 2, learner.state_dict())
    with pytest.raises(UserError, match="no agent is assigned yet"):
        rmdp.load(tmp_path / "run")
