"""CaDM stepped: in given contexts, by particles, and planning with a memory of each episode."""

import dataclasses

import numpy as np
import pytest
import torch

from common.runs.seeding import stream
from envs import make_family
from mpi_utils.comm import Comm
from persim import policy
from persim.baselines.cadm import Settings
from persim.baselines.context_model import Cadm
from persim.data.behaviour import random_policy
from persim.planning import planner
from persim.policy import Actor
from persim.testing import prediction
from tests.persim.baselines.test_cadm import SMALL, Line
from tests.persim.test_policy import Rank


@pytest.fixture(scope="module")
def model():
    """A tiny ensemble for CartPole, whose actions are discrete."""
    model = Cadm(Settings(True, 2, 6, **SMALL), 4, num_actions=2)
    model.draw([stream(0, "weights", member) for member in range(2)])
    model.state_mean += torch.tensor([0.1, -0.2, 0.3, 0.4])
    model.state_scale *= 2.0
    model.change_mean += 0.01
    model.change_scale *= 0.05
    return model


def test_stepping_is_what_the_networks_predict(model):
    rng = np.random.default_rng(1)
    states, actions = rng.normal(size=(3, 5, 8, 4)), rng.integers(0, 2, (3, 5, 7))
    state, action = torch.randn(1, 3, 5, 4, generator=torch.Generator().manual_seed(0)), actions[:, :, 0]
    action = torch.from_numpy(action)
    certain = Cadm(dataclasses.replace(model.settings, probabilistic=False, num_particles=2), 4, 2)
    weights = {name: value for name, value in model.state_dict().items() if name not in ("upper", "lower")}
    weights["forward_net.2"] = weights["forward_net.2"][:, :4]
    certain.load_state_dict(weights)
    predicted = certain.after(states, actions).step(state, action)
    steps = certain.steps(*map(torch.from_numpy, (states[:, :, :-1], actions, states[:, :, 1:])))
    past = torch.cat([torch.zeros(3, 5, 3, 6), steps], dim=2).flatten(0, 1).expand(2, -1, -1, -1)
    entering = certain.in_units(state).flatten(1, 2).expand(2, -1, -1)
    inputs = certain.action_inputs(action).flatten(0, 1).expand(2, -1, -1)
    change, _ = certain.forward_change(entering, inputs, certain.context(past))
    change = change * certain.change_scale + certain.change_mean
    torch.testing.assert_close(predicted - state, change.unflatten(1, (3, 5)), atol=1e-5, rtol=1e-4)


def test_a_memory_is_the_last_ten_steps_of_its_episode(model):
    rng = np.random.default_rng(2)
    states, actions = rng.normal(size=(3, 1, 14, 4)), rng.integers(0, 2, (3, 1, 13))
    memory, state = model.memory(4), torch.zeros(1, 3, 2, 4)
    own, action = np.array([0, 2, 3]), torch.tensor([[0, 1]] * 3)
    before_all = memory.at(own).step(state, action)
    for t in range(13):
        if t == 4:
            few = model.after(states[:, :, :5], actions[:, :, :4])
            assert torch.equal(memory.at(own).start, few.start)
        memory.observe(own, states[:, 0, t], actions[:, 0, t], states[:, 0, t + 1])
    known = model.after(states[:, :, 3:], actions[:, :, 3:])
    assert torch.equal(memory.at(own).start, known.start)
    assert not torch.equal(memory.at(own).start, model.after(states[:, :, 4:], actions[:, :, 4:]).start)
    assert torch.equal(memory.at(np.array([1])).start, model.memory(1).at(np.array([0])).start)
    assert not torch.allclose(memory.at(own).step(state, action), before_all)


def test_particles_stay_with_their_member_and_are_as_far_apart_as_it_says(model):
    def step(state, action, time=0):
        memory = model.memory(1)
        memory.time = time
        return memory.at(np.zeros(len(action), int)).step(state, action)

    state, action = torch.zeros(1, 2, 3, 4), torch.ones(2, 3, dtype=torch.int64)
    first = step(state, action)
    assert first.shape == (6, 2, 3, 4) and len(first[:, 0, 0, 0].unique()) == 6
    # One luck for all: what an episode and a candidate is worth does not depend on the others.
    torch.testing.assert_close(first[:, :1, :1].expand_as(first), first)
    torch.testing.assert_close(step(state[:, :1, :1], action[:1, :1]), first[:, :1, :1])
    torch.testing.assert_close(step(first * 0, action), first)
    assert not torch.allclose(step(state, action, time=1), first)
    many = torch.stack([step(state[:, :1, :1], action[:1, :1], time)[:, 0, 0] for time in range(400)])
    zero = model.in_units(torch.zeros(2, 1, 4))
    context = model.context(torch.zeros(2, 1, 10, 6))
    mean, log_variance = model.forward_change(
        zero, model.action_inputs(action[:1, :1]).expand(2, -1, -1), context
    )
    of_member = many.unflatten(1, (2, 3)).transpose(0, 1).flatten(1, 2)  # [2, 1200, 4]
    deviation = torch.exp(0.5 * log_variance[:, 0]) * model.change_scale
    torch.testing.assert_close(of_member.std(1), deviation, rtol=0.2, atol=0)
    expected = mean[:, 0] * model.change_scale + model.change_mean
    assert ((of_member.mean(1) - expected).abs() < 5 * deviation / np.sqrt(1200)).all()


def test_predictions_begin_in_the_context_of_the_true_first_steps(model):
    family = make_family("cart_pole")
    parameters = {name: values[:2] for name, values in family.test_agents.items()}
    task = prediction.draw_task(
        family, parameters, lambda n: random_policy(family), 3, np.random.default_rng(0)
    )
    states, actions = task.past
    assert states.shape == (2, 3, prediction.KNOWN + 1, 4) and actions.shape == (2, 3, prediction.KNOWN)
    assert np.array_equal(states[:, :, -1], task.states[:, :, 0])
    followed = family.advance(states[:, :, 2], actions[:, :, 2], task.parameters)
    np.testing.assert_allclose(followed, states[:, :, 3])
    predicted = prediction.predict(model.after(*task.past), task)
    assert predicted.shape == (2, 3, prediction.NUM_STEPS, 4)
    other = prediction.predict(model.after(states, 1 - actions), task)
    assert not np.allclose(other[:, :, 0], predicted[:, :, 0])


class Witness:
    """A model with a memory that writes down what it is told; predicts that nothing moves."""

    def __init__(self):
        self.asked, self.told = [], []

    def memory(self, num_episodes):
        self.num_episodes = num_episodes
        return self

    def at(self, episodes):
        self.asked.append(episodes.copy())
        return self

    def step(self, state, action):
        return state

    def observe(self, episodes, *step):
        self.told.append((episodes.copy(), *map(np.copy, step)))


@pytest.mark.parametrize("name", ["line", "mountain_car"])
def test_a_memory_is_told_of_every_step_that_is_followed_by_another(name):
    """By the cross-entropy method, and by shooting."""
    few = planner.Settings(horizon=2, num_candidates=4, num_elites=2, num_rounds=2)
    family = Line(0.0) if name == "line" else type(make_family(name))(max_episode_len=6)
    agents = {"wind": np.array([0.0, 2.0])} if name == "line" else {"gravity": np.array([0.001, 0.002])}
    model = Witness()
    policy.play(family, agents, Actor(family, model, [0, 1], settings=few), 3, 0, Comm())
    assert model.num_episodes == 6 and len(model.asked) == 6 and len(model.told) == 5
    running, state = np.arange(6), None
    for asked, (told, before_it, action, after_it) in zip(model.asked[1:], model.told, strict=True):
        assert np.array_equal(asked, told) and np.isin(told, running).all()
        if state is not None:
            np.testing.assert_array_equal(before_it, state[np.isin(running, told)])
        own = {key: values[told % 2] for key, values in agents.items()}
        np.testing.assert_allclose(family.advance(before_it, action, own), after_it)
        assert not family.terminated(after_it).any()
        running, state = told, after_it
    assert (len(running) < 6) == (name == "line")


def test_ranks_share_the_episodes_of_one_rank(model):
    family = type(make_family("cart_pole"))(max_episode_len=15)
    agents = {name: values[[0, 4]] for name, values in family.test_agents.items()}
    few = planner.Settings(horizon=6, num_candidates=12, mask=True)
    whole, *parts = (
        policy.play(family, agents, Actor(family, model, [0, 1], settings=few), 2, 0, comm)
        for comm in (Comm(), Rank(0, 2), Rank(1, 2))
    )
    assert np.array_equal(sum(parts), whole) and (whole > 3).all()
