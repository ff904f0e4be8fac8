"""CaDM: what it sees of an episode, its loss by hand, and what a context is worth."""

import dataclasses

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.runs.seeding import stream
from persim.baselines.cadm import PE_TS, VANILLA, Settings, loss, train
from persim.baselines.context import Batches, before, pairs
from persim.baselines.context_model import Cadm
from persim.data.transitions import Transitions
from tests.persim.toys import Drift

SMALL = {"layers": (32, 32), "context_layers": (16,), "num_steps": 5}


class Line(Drift):
    """x' = x + a + wind, played for 6 steps; with Drift's actions in -1..3 and its rewards."""

    max_episode_len = 6

    def start(self, rng, num_episodes):
        return rng.uniform(-1, 1, (num_episodes, 1))

    def advance(self, state, action, parameters):
        return state + action + np.asarray(parameters["wind"])[..., None]

    def terminated(self, next_state):
        return next_state[..., 0] > 4


def log(wind, num_episodes: int, num_steps: int, rng) -> Transitions:
    """Random actions on `Line`, in `num_episodes` for each of the agents `wind` [n]."""
    n, E, T = len(wind), num_episodes, num_steps
    action = rng.uniform(-1, 1, (n, E, T))
    moved = np.cumsum(action + wind[:, None, None], axis=2)
    states = rng.uniform(-1, 1, (n, E, 1)) + np.concatenate([np.zeros((n, E, 1)), moved], axis=2)
    time = np.arange(E)[:, None] * (T + 1) + np.arange(T)
    columns = [np.broadcast_to(array, (n, E, T)).reshape(-1) for array in (np.arange(n)[:, None, None], time)]
    state, action, following = (
        array.reshape(-1, 1).astype("f4") for array in (states[..., :-1], action, states[..., 1:])
    )
    names = [str(i) for i in range(n)]
    return Transitions(names, *columns, state, action, np.zeros(n * E * T, "f4"), following, ["x"], ["a"])


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return log(rng.uniform(-0.5, 0.5, 20), 2, 15, rng)


def test_pasts_and_futures_stay_in_their_episode():
    """Rows 0 1 2 are one run; then a time is missing, agents change, and a state is not the one before."""
    agent, time = np.array([0, 0, 0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 4, 5, 6, 7, 8])
    state = np.arange(8.0, dtype="f4")[:, None]
    following = state + 1
    following[6] = 0
    data = Transitions(["a", "b"], agent, time, state, agent, state[:, 0], following, ["x"], ["a"])
    start = data.starts()
    assert start.tolist() == [0, 0, 0, 3, 3, 5, 5, 7]
    assert before(start, np.arange(8), 2).tolist() == [
        *([-1, -1], [-1, 0], [0, 1]),
        *([-1, -1], [-1, 3], [-1, -1], [-1, 5], [-1, -1]),
    ]
    wanted = {(r, r) for r in range(8)} | {(0, 1), (1, 2), (3, 4), (5, 6)}
    assert sorted(map(tuple, pairs(start, 2))) == sorted(wanted)
    assert sorted(map(tuple, pairs(start, 3))) == sorted(wanted | {(0, 2)})


def test_batches_hold_the_past_and_a_later_step_of_one_agent(data):
    """Agents are told apart by their wind, which is every change less its action."""
    model = Cadm(Settings(num_models=2, num_particles=2, batch_size=500), 1, action_size=1)
    batches = Batches(model, data, np.random.default_rng(0))
    past, state, action, following, change = batches.take()
    assert past.shape == (2, 500, 10, 2) and not torch.equal(past[0], past[1])
    torch.testing.assert_close(following - state, change, atol=1e-5, rtol=0)
    wind, known = change - action, past[..., 1] != 0
    assert ((past[..., 0] - past[..., 1] - wind).abs() < 1e-5)[known].all()
    assert (past[~known] == 0).all()
    # Of the pairs of an episode of 15 steps, 10 contexts of the first see none, and most see all ten.
    lengths = known.sum(-1)
    assert (known == (torch.arange(10) >= 10 - lengths[..., None])).all(), "what is known comes last"
    assert 0.05 < (lengths == 0).float().mean() < 0.15 and (lengths == 10).any()


def tiny(probabilistic: bool) -> Cadm:
    """One linear layer each: c = 2 x change + 1; forward s - a + 3 c, backward c - s."""
    settings = Settings(probabilistic, history=1, context_size=1, context_layers=(), layers=())
    model = Cadm(settings, 1, action_size=1)
    model.context_net[0].data[0] = torch.tensor([[2.0, 0.0, 1.0]])
    model.forward_net[0].data[0, 0] = torch.tensor([1.0, -1.0, 3.0, 0.0])
    model.backward_net[0].data[0] = torch.tensor([[-1.0, 0.0, 1.0, 0.0]])
    return model


def batch(*numbers):
    change, acted, *rest = (torch.tensor([[[float(x)]]]) for x in numbers)
    return torch.cat([change, acted], dim=-1)[:, :, None], *rest


def test_the_loss_by_hand():
    """c = 2 * .5 + 1 = 2. Forward 1 - 4 + 6 = 3, off 2 from 1. Backward 2 - 2 = 0, off 1 from -1."""
    numbers = batch(0.5, 7, 1, 4, 2, 1)
    assert loss(tiny(False), *numbers).item() == pytest.approx(2**2 + 0.5 * 1)
    # The raw log-variance is 0, between the bounds -10 and .5: .5 - log(1 + e^.5), then softly above -10.
    upper = 0.5 - np.log1p(np.exp(0.5))
    log_variance = -10 + np.log1p(np.exp(upper + 10))
    expected = 4 * np.exp(-log_variance) + log_variance + 0.01 * 10.5 + 0.5
    assert loss(tiny(True), *numbers).item() == pytest.approx(expected, rel=1e-5)


def test_gradients_reach_every_context_net(data):
    settings = Settings(True, 3, 3, **SMALL)
    model = Cadm(settings, 1, action_size=1)
    model.draw([stream(0, "weights", member) for member in range(3)]).measure(data)
    loss(model, *Batches(model, data, np.random.default_rng(0)).take()).backward()
    for layer in (*model.context_net, *model.forward_net, *model.backward_net):
        assert (layer.grad.abs().sum((1, 2)) > 0).all()
    assert not torch.equal(model.context_net[0].grad[0], model.context_net[0].grad[1])


def test_a_seed_makes_a_model_and_leaves_global_generators_alone(data):
    settings = Settings(True, 2, 4, **SMALL)
    ours, theirs = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again, other = (train(data, Line(0.0), settings, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), ours) and np.array_equal(np.random.get_state()[1], theirs)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["context_net.0"], other["context_net.0"])
    assert not torch.equal(first["forward_net.0"][0], first["forward_net.0"][1])


def test_particles_that_members_cannot_share_are_refused(data):
    for wrong in ({"num_particles": 7, "num_models": 5, "probabilistic": True}, {"num_particles": 2}):
        with pytest.raises(UserError, match="^num_particles"):
            train(data, Line(0.0), Settings(**wrong), 0)
    assert VANILLA.num_particles == 1 and PE_TS.num_particles == 20


def error(settings, data, unseen) -> float:
    """One-step error on the last steps of unseen episodes, in deviations of the change."""
    model = train(data, Line(0.0), settings, 0)
    episodes = [array.reshape(-1, 15, 1) for array in (unseen.state, unseen.action, unseen.next_state)]
    states = np.concatenate([episodes[0], episodes[2][:, -1:]], axis=1)
    steps = model.after(states[:, None, :-1], episodes[1][:, None, :-1])
    last = torch.from_numpy(states[None, :, None, -2])
    predicted = steps.step(last, torch.from_numpy(episodes[1][:, -1:]))[0, :, 0].numpy()
    return float(
        np.sqrt(np.mean((predicted - states[:, -1]) ** 2)) / np.std(unseen.next_state - unseen.state)
    )


@pytest.mark.parametrize("spread", [0.5, 0.0])
def test_a_context_pays_where_agents_differ_and_costs_nothing_where_not(spread):
    rng = np.random.default_rng(5)
    data, unseen = (log(spread * rng.uniform(-1, 1, n), 2, 15, rng) for n in (300, 100))
    settings = Settings(layers=(64,), context_layers=(32,), num_steps=300, batch_size=128, learning_rate=1e-2)
    with_context = error(settings, data, unseen)
    plain = error(dataclasses.replace(settings, history=0), data, unseen)
    if spread:  # the plain network cannot but predict the mean agent
        assert 0.2 < plain < 0.4 and with_context < plain / 3
    else:
        assert with_context < 0.04 and plain < 0.04
