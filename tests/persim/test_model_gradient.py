"""A policy learnt by the derivative of predicted returns: the clone that it begins as, and what it gains."""

import functools

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.runs import checkpoint
from mpi_utils.comm import Comm
from persim.config import check_config
from persim.learner import Learner
from persim.problem import make_problem
from tests.helpers.launch import command
from tests.helpers.runs import differing, flags, flat
from tests.persim.runs import configured

SMALL = {
    "policy_rollouts": 7,
    "rollout_len": 4,
    "policy_minibatches": 3,
    "policy_features": 8,
    "num_agents": 5,
    "log_steps": 30,
    "num_models": 2,
    "num_factors": 3,
    "state_features": 8,
    "state_layers": 2,
    "action_features": 8,
    "num_minibatches": 3,
    "batch_size": 37,
    "max_iters": 2,
    "policy_iters": 4,
    "clone_steps": 20,
    "precision": "float32",
}


def learner(**settings):
    config = configured("half_cheetah_body", dataset="random", **{**SMALL, **settings})
    return Learner(config, Comm(), make_problem(config, Comm()))


def test_it_goes_on_to_the_bit():
    whole, first, second = (learner() for _ in range(3))
    for i in range(6):
        whole.train_iteration(i)
        if i < 4:
            first.train_iteration(i)
    second.load_state_dict(first.state_dict())
    for i in (4, 5):
        second.train_iteration(i)
    assert not differing(whole.state_dict(), second.state_dict())
    assert differing(whole.state_dict()["policy"], first.state_dict()["policy"])


def test_simulators_stay_as_they_are_and_what_acts_is_a_mean_of_what_is_trained():
    one = learner()
    for i in range(2):
        one.train_iteration(i)
    before = {name: value.clone() for name, value in one.simulator.state_dict().items()}
    one.train_iteration(2)
    assert not differing(before, dict(one.simulator.state_dict()))
    assert all(parameter.requires_grad for parameter in one.simulator.parameters())
    networks = one.policy.clone, one.policy.policy.actor, one.policy.trained.actor
    clone, acts, trained = (torch.cat([p.detach().flatten() for p in n.parameters()]) for n in networks)
    assert (acts - clone).norm() > 0  # after three gradient steps, a little of the way
    assert (acts - clone).norm() < 0.1 * (trained - clone).norm()


@pytest.mark.mpi
def test_ranks_learn_the_same_policy(tmp_path):
    words = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    words += ["--environment", "half_cheetah_body", "--dataset", "random", "--policy_iters", "1"]
    states = []
    for ranks in (1, 3):
        done = command(ranks, "train", *flags("persim", tmp_path, f"r{ranks}", *words))
        assert done.code == 0, done.output
        states.append(flat(checkpoint.load(tmp_path / f"r{ranks}" / "step_00000003")[1]["policy"]))
    for path, value in states[0].items():
        np.testing.assert_allclose(states[1][path], value, rtol=2e-2, atol=2e-3, err_msg=path)


# --- agents on a line, whose step is 0.3 times their own gain times the action


GAINS = {f"a{i}": (-1 if i % 2 else 1) * (0.5 + i / 40) for i in range(20)}


def log_of(behaviour, steps=40):
    rng, lines = np.random.default_rng(0), ["agent,time,episode,state_x,action,reward"]
    for name, gain in GAINS.items():
        for episode in range(2):
            x = rng.normal()
            for t in range(steps):
                action = behaviour(x, gain, rng)
                following = 0.9 * x + 0.3 * gain * action
                lines.append(f"{name},{t},{episode},{x:.9g},{action:.9g},{-(following**2):.9g}")
                x = following
    return "\n".join([*lines, ""])


@functools.cache
def trained(path):
    config = configured(
        "unknown", dataset=str(path), action_kind="continuous", learn_reward=True, num_models=2,
        state_features=32, action_layers=0, max_iters=15, policy_iters=4, policy_rollouts=128, rollout_len=6,
        policy_minibatches=15, policy_features=16, gamma=0.9, policy_learning_rate=5e-3,
        policy_gradient="model", clone_steps=300,
    )  # fmt: skip
    one = Learner(config, Comm(), make_problem(config, Comm()))
    for i in range(config.iterations):
        one.train_iteration(i)
    return one


def sent_home(learner):
    """Which share of agents, right and left of home, are sent towards it."""
    actor, gains = learner.actor(policy="learned"), np.array(list(GAINS.values()))
    actor.reset(2 * len(gains))
    x = np.repeat([1.0, -1.0], len(gains))
    action = actor.act(x[:, None])[:, 0]
    return np.mean(np.sign(action) == -np.sign(x * np.tile(gains, 2)))


@pytest.mark.slow
def test_of_random_logs_the_clone_explains_nothing_and_the_derivative_finds_the_way(tmp_path):
    (tmp_path / "random.csv").write_text(log_of(lambda x, gain, rng: rng.uniform(-1, 1)))
    one = trained(tmp_path / "random.csv")
    assert one.policy.explained < 0.1
    assert sent_home(one) > 0.9


@pytest.mark.slow
def test_a_behaviour_that_is_told_by_the_state_is_kept_near_to(tmp_path):
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(log_of(lambda x, gain, rng: np.clip(0.5 * np.sign(gain) * np.sign(x), -1, 1)))
    one = trained(wrong)  # all walk away from home
    assert one.policy.explained > 0.8
    assert sent_home(one) < 0.2


def test_choices_have_no_derivative(tmp_path):
    path = tmp_path / "choices.csv"
    path.write_text(log_of(lambda x, gain, rng: int(rng.integers(3))))
    kinds = {"action_kind": "discrete", "learn_reward": True, "num_models": 2, "state_features": 8}
    config = configured("unknown", dataset=str(path), policy_iters=1, policy_gradient="model", **kinds)
    with pytest.raises(UserError, match="choices.csv are choices; give ppo"):
        Learner(config, Comm(), make_problem(config, Comm()))
    with pytest.raises(
        UserError, match="--policy_gradient model: actions of cart_pole are choices; give ppo"
    ):
        check_config(configured("cart_pole", policy_iters=1, policy_gradient="model"))
    assert configured("half_cheetah_body").policy_gradient == "model"
