"""One policy for all agents, learnt inside their simulators: what it is given, and what it learns."""

import dataclasses
import functools

import numpy as np
import pytest
import torch

import persim
from common.errors import UserError
from common.runs import checkpoint
from evaluate import load_actor
from mpi_utils.comm import Comm
from persim import evaluation, new_agents
from persim.learned_policy import Latents
from persim.learner import Learner
from persim.policy import make_actor
from persim.problem import make_problem
from tests.helpers.launch import command
from tests.helpers.runs import differing, flags, flat
from tests.persim.runs import configured

SMALL = {
    "policy_rollouts": 12,
    "rollout_len": 5,
    "policy_minibatches": 2,
    "policy_features": 8,
    "num_epochs": 2,
}
TINY = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]


def test_latents_are_what_members_agree_on():
    """Two members hold the same hidden number in factors of their own; the first latent is that number."""
    hidden = torch.linspace(-1, 1, 20)[:, None]
    maps = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -4.0]])
    factors = torch.stack([hidden * own + 5 for own in maps])  # [2, 20, 3]
    latents = Latents(6, 3)
    latents.fit(factors, torch.ones(2, dtype=torch.bool))
    found = latents(factors)
    assert found[:, 1:].abs().max() < 1e-3
    unit = found[:, 0] / hidden[:, 0] * hidden.std(correction=0)
    assert unit.abs().numpy() == pytest.approx(np.ones(20), abs=1e-4)
    middle = torch.stack([0 * own + 5 for own in maps])[:, None]
    assert float(latents(middle)[0, 0]) == pytest.approx(float((found[9, 0] + found[10, 0]) / 2), abs=1e-5)


def test_a_member_that_is_not_active_is_not_seen():
    factors = torch.randn(2, 9, 3, generator=torch.Generator().manual_seed(0))
    latents = Latents(6, 3)
    latents.fit(factors, torch.tensor([True, False]))
    before = latents(factors)
    factors[1] += 7
    assert torch.equal(latents(factors), before) and before.abs().max() > 0.1


def learner(**settings):
    sizes = {"num_agents": 6, "num_models": 2, "state_features": 8, "num_minibatches": 3, "batch_size": 37}
    config = configured(max_iters=2, policy_iters=4, **sizes, **SMALL, **settings)
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


def test_simulators_stay_as_they_are():
    one = learner()
    for i in range(2):
        one.train_iteration(i)
    before = {name: value.clone() for name, value in one.simulator.state_dict().items()}
    metrics = one.train_iteration(2)
    assert not differing(before, dict(one.simulator.state_dict()))
    assert metrics["policy/reward"] == pytest.approx(-1, abs=0.2) and 0 <= metrics["policy/disagreement"]


def test_pessimism_takes_the_disagreement_from_the_reward():
    plain, charged = learner(pessimism=0.0), learner(pessimism=100.0)
    found = []
    for one in (plain, charged):
        one.policy.policy.prepare(one.simulator)
        agents, starts, members = one.policy.draw(0)
        latents = one.policy.policy.latents(one.simulator.factors())[agents]
        found.append(one.policy.collect(0, agents, latents, starts, members))
    assert torch.equal(found[0].state, found[1].state) and found[0].disagreement.min() > 0
    less = (found[0].reward - found[1].reward) / plain.policy.reward_scale
    torch.testing.assert_close(less, 100 * found[0].disagreement, rtol=1e-3, atol=1e-4)


GAINS = {f"a{i}": (-1 if i % 2 else 1) * (0.5 + i / 40) for i in range(20)}


def log_of(gains, seed, steps=40):
    """x moves by an agent's gain times the action, -1..1; a step earns -x². Which way is home is its own."""
    rng, lines = np.random.default_rng(seed), ["agent,time,episode,state_x,action,reward"]
    for name, gain in gains.items():
        for episode in range(2):
            x = rng.normal()
            for t in range(steps):
                action = int(rng.integers(3))
                following = 0.9 * x + 0.3 * gain * (action - 1)
                lines.append(f"{name},{t},{episode},{x:.9g},{action},{-(following**2):.9g}")
                x = following
    return "\n".join([*lines, ""])


@functools.cache
def homing(folder):
    (folder / "log.csv").write_text(log_of(GAINS, 0))
    config = configured(
        "unknown", dataset=str(folder / "log.csv"), action_kind="discrete", learn_reward=True, num_models=2,
        state_features=32, max_iters=15, policy_iters=30, policy_rollouts=200, rollout_len=10,
        policy_minibatches=10, policy_features=16, gamma=0.9, policy_learning_rate=5e-3,
    )  # fmt: skip
    one = Learner(config, Comm(), make_problem(config, Comm()))
    for i in range(config.iterations):
        one.train_iteration(i)
    return one


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("homing")


def home(actor, gains):
    """Which share of agents [n], right and left of home, are sent towards it."""
    actor.reset(2 * len(gains))
    x = np.repeat([1.0, -1.0], len(gains))
    action = actor.act(x[:, None])
    return np.mean(np.sign(action - 1.0) == -np.sign(x * np.tile(gains, 2)))


def test_it_learns_what_differs_between_agents_from_a_log_alone(folder):
    one = homing(folder)
    assert home(one.actor(policy="learned"), list(GAINS.values())) > 0.9


def test_it_serves_agents_that_come_new(folder):
    one, gains = homing(folder), {"new": 0.8, "other": -0.8}
    (folder / "new.csv").write_text(log_of(gains, 1))
    config = configured("unknown", dataset=str(folder / "new.csv"), action_kind="discrete", learn_reward=True)
    log = Learner(dataclasses.replace(config, num_factors=2), Comm(), make_problem(config, Comm())).data
    factors = new_agents.from_steps(one.simulator, *new_agents.first_steps(log, 20))
    model = new_agents.NewAgents(one.simulator, factors)
    family, learned = one.policy.family.family, one.policy.policy
    actor = make_actor(one.config, family, model, policy="learned", learned=learned)
    assert home(actor, list(gains.values())) == 1


@pytest.mark.mpi
def test_ranks_learn_the_same_policy_and_it_acts(tmp_path):
    states = []
    for ranks in (1, 2):
        name = f"r{ranks}"
        more = [*TINY, "--max_iters", 2, "--policy_iters", 2]
        done = command(ranks, "train", *flags("persim", tmp_path, name, *more))
        assert done.code == 0, done.output
        states.append(flat(checkpoint.load(tmp_path / name / "step_00000004")[1]["policy"]))
    for path, value in states[0].items():
        np.testing.assert_allclose(states[1][path], value, rtol=1e-3, atol=1e-4, err_msg=path)
    actor = persim.load(tmp_path / "r2", [1, 0], policy="learned")
    actor.reset(4)
    assert actor.act(np.zeros((4, 2))).shape == (4,)
    few = "--trajectories 2 --episodes 1 --unseen 0 --upper_bound False --policy learned"
    done = command(1, "evaluate", tmp_path / "r2", *few.split())
    assert done.code == 0 and "learned: " in done.output and "ms for each action" in done.output, done.output


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match="the run has none; train it with --policy_iters"):
        persim.load("checkpoints/examples/persim_cart_pole_pure", policy="learned")
    with pytest.raises(UserError, match="--policy nobody: only with --log"):
        evaluation.parse_settings(["--policy", "nobody"], show=False)
    with pytest.raises(UserError, match="acts in cart_pole, not in mountain_car"):
        load_actor("checkpoints/examples/persim_cart_pole_pure", "mountain_car", ["0"])
    with pytest.raises(UserError, match="has no agent 'ann'"):
        load_actor("checkpoints/examples/persim_cart_pole_pure", "cart_pole", ["ann"])
    config = configured(max_iters=2, policy_iters=1, num_agents=6, num_models=2, state_features=8, **SMALL)
    one = Learner(config, Comm(), make_problem(config, Comm()))
    state = one.state_dict()
    state["policy"]["simulator_iterations"] = 9
    with pytest.raises(UserError, match="learnt in simulators of 9 iterations"):
        one.load_state_dict(state)
