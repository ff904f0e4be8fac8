"""The same task told in other units of its actions is the same task."""

import dataclasses

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

import train
from caml.config import Config as CamlConfig
from caml.learner import Learner as CamlLearner
from common.config import from_stored
from common.export import ToSpace
from common.rollout import stretch, to_space
from common.runs.run_folder import write_config
from envs import Problem, make_family
from envs.examples import Points, PointVectorEnv
from mpi_utils.comm import Comm
from persim.config import Config as PersimConfig
from persim.data.trajectories import Follows, log_episodes
from persim.learner import Learner as PersimLearner
from persim.simulator import Simulator
from rl2.config import Config as RL2Config
from rl2.learner import Learner as RL2Learner
from rmdp.config import Config as RmdpConfig
from rmdp.config import check_config
from rmdp.learner import Learner as RmdpLearner

UNITS = [(-1.0, 1.0), (30.0, 1017.0), (0.0, 0.01)]


class ToldPoints(Points):
    """Points whose moves are told as numbers from low to high."""

    def __init__(self, low, high):
        self.low, self.high = low, high
        self.action_space = Box(low, high, (1,), np.float32)

    def make_vec(self, parameters, rng=None):
        return ToldEnv(self, parameters, rng)


class ToldEnv(PointVectorEnv):
    """Their environments."""

    def __init__(self, told, parameters, rng):
        self.told = told
        super().__init__(told, None, 10, parameters, rng)

    def advance(self, actions, rng):
        low, high = self.told.low, self.told.high
        assert ((actions >= low) & (actions <= high)).all()
        return super().advance((actions.astype(np.float64) - (low + high) / 2) / ((high - low) / 2), rng)


def problem_of(low, high):
    family = make_family(lambda: ToldPoints(low, high))
    return Problem("points", family, {"target": np.linspace(-0.8, 0.8, 6, dtype=np.float32)}, 10)


def curve(learner, num_iterations=4):
    return [learner.train_iteration(i)["train/return"] for i in range(num_iterations)]


def rl2(problem):
    config = RL2Config(
        environment="points",
        num_features=16,
        meta_episode_len=20,
        meta_episodes_per_policy_update=40,
        meta_episodes_per_learner_batch=20,
        precision="float32",
    )
    return RL2Learner(config, Comm(), problem)


def rmdp(problem):
    config = RmdpConfig.defaults({"environment": "mine:points"})
    sizes = {"num_agents": 6, "num_policies": 2, "steps_per_policy": 80, "envs_per_policy": 8}
    config = dataclasses.replace(config, **sizes, num_minibatches=2, max_iters=10, warm_start_iters=0)
    return RmdpLearner(check_config(config), Comm(), problem)


def caml(problem):
    sizes = {"num_groups": 1, "num_variants": 6, "num_support": 3, "split": "random", "num_features": 8}
    config = CamlConfig(
        **sizes, max_episode_len=10, tasks_per_iteration=4, pool_size=8, num_medoids=2, num_rollouts=6
    )
    return CamlLearner(config, Comm(), problem)


@pytest.mark.parametrize("learner_of", [rl2, rmdp, caml])
def test_learning_curves_are_the_same(learner_of):
    first, *others = (curve(learner_of(problem_of(*units))) for units in UNITS)
    assert len(set(first)) == 4
    for other in others:
        np.testing.assert_allclose(other, first, rtol=2e-3)


def test_simulators_are_the_same():
    predicted = []
    for low, high in UNITS:
        problem = problem_of(low, high)
        middle, half = (low + high) / 2, (high - low) / 2

        def policy(state, rng, middle=middle, half=half):
            return (middle + half * rng.uniform(-1, 1, (len(state), 1))).astype(np.float32)

        follows = Follows(policy, np.random.default_rng(0))
        log = log_episodes(problem.family, problem.agents, follows, np.random.default_rng(1), 10)
        config = PersimConfig.defaults({"environment": "unknown"})
        config = dataclasses.replace(config, num_models=2, num_agents=6, max_iters=2, num_minibatches=20)
        learner = PersimLearner(config, Comm(), dataclasses.replace(problem, log=log))
        for i in range(2):
            learner.train_iteration(i)
        state = torch.zeros(2, 6, 1)
        action = torch.full((2, 6, 1), middle + 0.5 * half)
        agent = torch.arange(6).expand(2, 6)
        change = learner.simulator(agent, state, action) * learner.simulator.target_scale
        predicted.append(change.detach().numpy())
    for other in predicted[1:]:
        np.testing.assert_allclose(other, predicted[0], rtol=0.02, atol=2e-3)


def test_a_simulator_saved_before_takes_actions_as_they_are():
    simulator = Simulator(2, 3, 1, 2, action_size=2)
    saved = {name: value for name, value in simulator.state_dict().items() if "action_" not in name[:7]}
    saved |= {name: value for name, value in simulator.state_dict().items() if "action_net" in name}
    again = Simulator(2, 3, 1, 2, action_size=2)
    again.action_scale.fill_(7)
    again.load_state_dict(saved)
    assert (again.action_scale == 1).all() and (again.action_mean == 0).all()


def test_numbers_of_a_policy_in_the_units_of_a_box():
    space = Box(np.array([30, -np.inf, -1], np.float32), np.array([1017, 5, 1], np.float32))
    action = np.array([[0, 7, 0.3], [-2, -80, 2], [0.5, 1, -0.25]], np.float32)
    expected = [[523.5, 5, 0.3], [30, -80, 1], [770.25, 1, -0.25]]
    np.testing.assert_allclose(to_space(action, space), expected)
    np.testing.assert_allclose(ToSpace(space)(torch.from_numpy(action)), expected)
    as_they_are = [[30, 5, 0.3], [30, -80, 1], [30, 1, -0.25]]
    np.testing.assert_allclose(to_space(action, space, scaled=False), as_they_are)
    np.testing.assert_allclose(ToSpace(space, scaled=False)(torch.from_numpy(action)), as_they_are)
    centre, half = stretch(Box(-1, 1, (2,), np.float32))
    assert not centre.any() and (half == 1).all()  # nothing changes


def test_a_box_of_whole_numbers_is_reached_to_its_ends():
    space = Box(0, 3, (1,), np.int64)
    action = np.array([[-1.2], [-0.9], [-0.4], [0.4], [0.9], [1.2]], np.float32)
    expected = [[0], [0], [1], [2], [3], [3]]
    found = to_space(action, space)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(ToSpace(space)(torch.from_numpy(action)), expected)


def test_the_largest_number_of_a_type_is_no_bound():
    most = np.finfo(np.float32).max
    space, action = Box(-most, most, (1,), np.float32), np.array([[0.5], [-7]], np.float32)
    np.testing.assert_array_equal(to_space(action, space), action)
    np.testing.assert_array_equal(ToSpace(space)(torch.from_numpy(action)), action)


@pytest.mark.parametrize(("config_class", "make"), [(RL2Config, rl2), (RmdpConfig, rmdp)])
def test_runs_from_before_act_as_they_did(config_class, make, tmp_path):
    settings = dataclasses.asdict(make(problem_of(30, 1017)).config)
    settings = {**settings, "environment": "bandit" if config_class is RL2Config else "cart_pole"}
    del settings["action_scaling"]
    assert from_stored(config_class, settings).action_scaling == "none"
    name = "rl2" if config_class is RL2Config else "rmdp"
    write_config(tmp_path / "old", {"system": name, **settings})
    config = config_class(checkpoint_dir=str(tmp_path), model_name="old")
    assert train.as_before(name, config, ["--seed", "1"]).action_scaling == "none"
    assert train.as_before(name, config, ["--action_scaling=box"]).action_scaling == "box"
    fresh = dataclasses.replace(config, model_name="new")
    assert train.as_before(name, fresh, []).action_scaling == "box"


def test_own_dynamics_of_before_keep_their_number_of_environments(tmp_path):
    """Nothing but the command that began the run is needed."""
    words = ["rmdp", "--environment", "cart_pole", "--checkpoint_dir", str(tmp_path), "--model_name", "old"]
    _, config = train.parse_arguments(words, Comm())
    stored = {**dataclasses.asdict(config), "envs_per_policy": 32}
    del stored["action_scaling"]
    write_config(tmp_path / "old", {"system": "rmdp", **stored})
    _, config = train.parse_arguments(words, Comm())
    assert config.envs_per_policy == 32 and train.describe("rmdp", config)
    _, config = train.parse_arguments([*words, "--envs_per_policy", "8"], Comm())
    assert config.envs_per_policy == 8
    _, config = train.parse_arguments([*words[:-1], "new"], Comm())
    assert config.envs_per_policy == 0
