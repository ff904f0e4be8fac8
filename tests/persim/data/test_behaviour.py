"""Policies that act for many agents, how they are kept, and what the shipped ones reach."""

import dataclasses
import types

import numpy as np
import pytest
from gymnasium.spaces import Box

from common.errors import UserError
from common.runs import checkpoint
from envs import make_family
from persim.data import behaviour
from persim.data.behaviour import Policy, Trained
from persim.data.trajectories import trajectories

SHIPPED = [("mountain_car", 3), ("cart_pole", 2)]


def family_and_constant_policies(num_policies=6):
    """MountainCar with policies whose number modulo 3 is their action, whatever the state."""
    family = make_family("mountain_car")
    bias = np.eye(3, dtype=np.float32)[np.arange(num_policies) % 3][:, None]
    layers = [(np.zeros((num_policies, 2, 3), np.float32), bias)]
    agents = {"gravity": np.append(family.behaviour_agents["gravity"], family.default["gravity"])}
    return family, Trained(family, layers, agents, [{"number": j} for j in range(num_policies)])


def random_layers(rng, k, *sizes):
    pairs = zip(sizes[:-1], sizes[1:], strict=True)
    shapes = [((k, i, o), (k, 1, o)) for i, o in pairs]
    return [tuple(rng.standard_normal(shape).astype(np.float32) for shape in pair) for pair in shapes]


def test_each_agent_is_served_by_its_own_network():
    rng = np.random.default_rng(0)
    layers, policy_of = random_layers(rng, 3, 2, 5, 3), np.array([2, 0, 2, 2, 0])  # policy 1 serves nobody
    states = rng.standard_normal((5, 2)).astype(np.float32)
    chosen = Policy(make_family("mountain_car"), layers, policy_of).greedy(states)
    for e, j in enumerate(policy_of):
        (first, b), (second, c) = layers
        hidden = np.maximum(states[e] @ first[j] + b[j, 0], 0)
        assert chosen[e] == (hidden @ second[j] + c[j, 0]).argmax()


def test_continuous_actions_are_tanh_and_random_ones_fill_the_box():
    family, rng = make_family("half_cheetah_body"), np.random.default_rng(1)
    states = rng.standard_normal((4000, 18)).astype(np.float32)
    ((weight, bias),) = layers = random_layers(rng, 1, 18, 6)
    policy = Policy(family, layers, np.zeros(4000, np.int64), epsilon=0.5)
    best = np.tanh(states @ weight[0] + bias[0])
    np.testing.assert_allclose(policy.greedy(states), best, atol=1e-5)
    wide = types.SimpleNamespace(action_space=Box(30, 1017, (6,), np.float32))
    told = Policy(wide, layers, np.zeros(4000, np.int64)).greedy(states)
    np.testing.assert_allclose(told, 523.5 + 493.5 * best, atol=0.01)
    actions = policy(states, rng)
    explored = ~np.isclose(actions, best, atol=1e-5).all(1)
    assert explored.mean() == pytest.approx(0.5, abs=0.04)
    random = actions[explored]
    assert random.min(0).max() < -0.98 and random.max(0).min() > 0.98
    assert abs(random.mean(0)).max() < 0.06


@pytest.mark.parametrize("epsilon", [0.0, 0.2, 0.4])
def test_actions_are_random_as_often_as_asked(epsilon):
    family, trained = family_and_constant_policies()
    policy = trained.behaviour({"gravity": np.full(20_000, 0.0003)}, epsilon)  # policy 0 always pushes left
    actions = policy(np.zeros((20_000, 2), np.float32), np.random.default_rng(2))
    shares = np.bincount(actions, minlength=3) / 20_000
    # A random action is the policy's own one time in three.
    np.testing.assert_allclose(shares, [1 - 2 / 3 * epsilon, epsilon / 3, epsilon / 3], atol=0.015)
    assert epsilon or (actions == 0).all()


def test_the_nearest_behaviour_agent_serves_in_units_of_the_ranges():
    _, trained = family_and_constant_policies()
    test_agents = {"gravity": np.array([0.0001, 0.0005, 0.001, 0.0025, 0.0035, 0.00275001])}
    assert trained.nearest(test_agents).tolist() == [0, 0, 1, 3, 4, 4]
    family = make_family("cart_pole")
    agents = {
        name: np.append(values, family.default[name]) for name, values in family.behaviour_agents.items()
    }
    trained = Trained(family, [], agents, [])
    # Ranges are 16 N and 0.7 m: force 12.2 is 0.1375 from the third and 0.1125 from the second agent, while
    # a length of 0.6 is nearer to the fourth than to the third.
    drawn = {"force": np.array([2.0, 18.0, 10.0, 12.2, 10.0]), "length": np.array([0.5, 0.5, 0.15, 0.5, 0.6])}
    assert trained.nearest(drawn).tolist() == [0, 1, 4, 1, 3]


def test_the_test_policy_is_the_last_and_keeps_exploring_a_little():
    _, trained = family_and_constant_policies()
    actions = trained.test(50_000)(np.zeros((50_000, 2), np.float32), np.random.default_rng(3))
    assert (actions != 2).mean() == pytest.approx(0.01 * 2 / 3, abs=0.0015)


def test_policies_come_back_as_they_were_saved(tmp_path):
    family, trained = family_and_constant_policies()
    for j in (1, 6):  # a later save takes the place of an earlier one
        part = [(w[:j], b[:j]) for w, b in trained.layers]
        agents = {name: values[:j] for name, values in trained.agents.items()}
        behaviour.save(Trained(family, part, agents, trained.cards[:j]), tmp_path)
    loaded = behaviour.load(family, tmp_path)
    assert [p.name for p in (tmp_path / "mountain_car").iterdir()] == ["step_00000006"]
    assert loaded.cards == trained.cards
    np.testing.assert_array_equal(loaded.layers[0][1], trained.layers[0][1])
    np.testing.assert_array_equal(loaded.agents["gravity"], trained.agents["gravity"])


def test_what_is_not_there_is_told_in_one_line(tmp_path):
    family, trained = family_and_constant_policies(2)
    with pytest.raises(UserError, match="0 of 6 policies of mountain_car .* --environment mountain_car"):
        behaviour.load(family, tmp_path)
    agents = {name: values[:2] for name, values in trained.agents.items()}
    behaviour.save(dataclasses.replace(trained, agents=agents), tmp_path)
    with pytest.raises(UserError, match="2 of 6 policies"):
        behaviour.load(family, tmp_path)
    with pytest.raises(
        UserError, match="0 of .* policies of half_cheetah_body .* --environment half_cheetah_body$"
    ):
        behaviour.load(make_family("half_cheetah_body"), tmp_path)


def test_a_damaged_or_hostile_save_is_refused_in_one_line_and_never_run(tmp_path):
    family, trained = family_and_constant_policies()
    behaviour.save(trained, tmp_path)
    canary, folder = tmp_path / "canary", tmp_path / "mountain_car" / "step_00000006"
    whole = (folder / "tensors.safetensors").read_bytes()
    flipped = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]
    for data in (flipped, whole[:50], b"", f"cposix\nsystem\n(S'touch {canary}'\ntR.".encode()):
        (folder / "tensors.safetensors").write_bytes(data)
        with pytest.raises(UserError, match="tensors.safetensors") as caught:
            behaviour.load(family, tmp_path)
        assert "\n" not in str(caught.value)
    assert not canary.exists()


def wrong(change):
    """A valid save whose content is not what a policy needs."""
    family, trained = family_and_constant_policies()
    state = {
        "layers": [list(layer) for layer in trained.layers],
        "agents": trained.agents,
        "cards": trained.cards,
    }
    change(state)
    return state


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("layers"),
        lambda state: state.update(layers=3),
        lambda state: state.update(layers=[]),
        lambda state: state["layers"][0].pop(),
        lambda state: state["layers"].append(state["layers"][0]),
        lambda state: state["layers"][0][0].fill(np.nan),
        lambda state: state["layers"][0].__setitem__(0, np.zeros((6, 4, 3), np.float32)),
        lambda state: state["layers"][0].__setitem__(0, np.zeros((6, 2, 3), np.float64)),
        lambda state: state["layers"][0].__setitem__(1, "bias"),
        lambda state: state.update(agents={"gravity": np.full(6, np.inf)}),
        lambda state: state.update(agents={"gravity": np.ones(5)}),
        lambda state: state.update(agents={"mass": np.ones(6)}),
        lambda state: state.update(cards=None),
        lambda state: state.update(cards=[{}]),
    ],
)
def test_a_save_of_something_else_is_refused_in_one_line(tmp_path, change):
    family, _ = family_and_constant_policies()
    checkpoint.save(tmp_path / "mountain_car", 6, wrong(change))
    with pytest.raises(UserError, match="not policies of mountain_car") as caught:
        behaviour.load(family, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name, _ in SHIPPED])
def test_the_shipped_policies_reach_what_their_cards_say(name):
    family = make_family(name)
    trained = behaviour.load(family)
    for j, card in enumerate(trained.cards):
        assert (card["role"] == "test") == (j == 5)
        own = {key: np.full(200, value) for key, value in card["agent"].items()}
        policy = trained.test(200) if card["role"] == "test" else trained.behaviour(own)
        played = trajectories(family, own, policy, np.random.default_rng(j), family.max_episode_len)
        error = 3 * card["sd"] * np.sqrt(1 / 200 + 1 / card["episodes"])
        assert played.returns().mean() == pytest.approx(card["return"], abs=error + 1)
        low, high = card["wanted"]
        assert low <= card["return"] <= high


@pytest.mark.parametrize("name, num_actions", SHIPPED)
def test_the_shipped_policies_depend_on_the_state(name, num_actions):
    family = make_family(name)
    agents = family.sample(np.random.default_rng(0), 200)
    policy = behaviour.load(family).behaviour(agents)
    played = trajectories(family, agents, policy, np.random.default_rng(1), family.max_episode_len)
    assert (np.bincount(played.actions[played.alive], minlength=num_actions) > 0).sum() >= 2
