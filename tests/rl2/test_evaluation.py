"""What a run on tasks without classical algorithms is shown beside."""

import dataclasses

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from common.errors import UserError
from common.memory import NoMemory
from mpi_utils.comm import Comm
from rl2 import evaluation
from rl2.learner import Learner
from rl2.policy import Last, RecurrentPolicy
from rl2.problem import make_problem
from tests.helpers import runs

POINTS = "envs.examples:point_family"


def test_random_actions_and_one_policy_where_no_classical_algorithm_is_known(capsys):
    config = runs.settings("rl2", "--environment", POINTS, "--meta_episode_len", "20")
    learner = Learner(config, Comm(), make_problem(config, Comm()))
    stored = dataclasses.asdict(config) | {"iteration": 20}

    def rows(*flags):
        flags = ["--instances", "150", "--environment", POINTS, *flags]
        settings = evaluation.parse_settings(flags, show=False)
        return evaluation.evaluate(stored, learner.state_dict(), settings, Comm())

    alone, whole = rows("--baselines", "none"), rows("--one_policy_share", "0.15")
    assert whole[: len(alone)] == alone and {r["method"] for r in alone} == {"rl2"}
    returns = {r["method"]: r for r in whole if r["metric"] == "return"}
    assert set(returns) == {"rl2", "random", "one_policy"}
    # Two walks of uniform steps in -.2 to .2 from 0, beside targets uniform in -1 to 1.
    rng = np.random.default_rng(5)
    place = rng.uniform(-0.2, 0.2, (20000, 10)).cumsum(1)
    expected = -2 * np.abs(place - rng.uniform(-1, 1, (20000, 1))).sum(1).mean()
    assert abs(returns["random"]["mean"] - expected) < 4 * returns["random"]["se"]
    steps = [r for r in whole if r["metric"] == "env_steps"]
    assert [(r["method"], r["mean"], r["share_of_steps"]) for r in steps] == [
        ("one_policy", 3 * 12 * 20, 0.15)
    ]
    evaluation.show(whole)
    assert "one_policy: no memory, trained for 720 steps, 15% of the run's" in capsys.readouterr().out


def test_one_policy_sees_the_observation_alone():
    config = dataclasses.replace(runs.settings("rl2"), architecture="none")
    space = Box(-1, 1, (2,), np.float32)
    policy = RecurrentPolicy(config, space, space)
    assert isinstance(policy.actor.memory, NoMemory)
    seen = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    last = Last(seen + 1, seen - 1, torch.ones(3), torch.ones(3))
    assert torch.equal(policy.features(seen, last), seen)
    one, _, state = policy.step(seen, seen, policy.initial_state(3))
    again, _, _ = policy.step(seen, seen, state)
    assert torch.equal(one.mode(), again.mode()) and state == ()
    together, _ = policy.unroll(seen.expand(4, 3, 2), seen.expand(4, 3, 2))
    torch.testing.assert_close(together.mode()[3], one.mode())


def test_more_episodes_than_trained_and_episodes_that_end_early():
    config = runs.settings("rl2", "--environment", POINTS, "--meta_episode_len", "20")
    state = Learner(config, Comm(), make_problem(config, Comm())).state_dict()

    def curve(config, *flags):
        flags = ["--instances", "9", "--baselines", "none", *flags]
        settings = evaluation.parse_settings(flags, show=False)
        found = evaluation.evaluate(dataclasses.asdict(config), state, settings, Comm())
        total, *episodes = (r["mean"] for r in found)
        assert [r.get("episode") for r in found[1:]] == list(range(1, 1 + len(episodes)))
        assert total == pytest.approx(sum(episodes))
        return episodes

    own = ("--environment", POINTS)
    assert len(curve(config, *own)) == 2 and len(curve(config, "--episodes", "1", *own)) == 1
    longer = curve(config, "--episodes", "5", *own)
    assert len(longer) == 5 and longer[:2] == curve(config, *own)
    attentive = dataclasses.replace(config, architecture="snail")
    state = Learner(attentive, Comm(), make_problem(config, Comm())).state_dict()
    with pytest.raises(UserError, match="--episodes 5: they may last 50 steps, and this snail remembers 20"):
        curve(attentive, "--episodes", "5", *own)
    config = runs.settings(
        "rl2", "--environment", "cart_pole", "--episodes", "2", "--meta_episode_len", "400"
    )
    state = Learner(config, Comm(), make_problem(config, Comm())).state_dict()
    assert len(curve(config)) == 2 and len(curve(config, "--episodes", "3")) == 3
