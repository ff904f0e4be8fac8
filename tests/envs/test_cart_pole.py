import gymnasium
import numpy as np
import pytest

from envs import make_family

FAMILY = make_family("cart_pole")
DEFAULT = {name: np.array([value]) for name, value in FAMILY.default.items()}


@pytest.mark.parametrize("seed", range(3))
def test_the_default_agent_is_gymnasiums_cart_pole(seed):
    rng, single = np.random.default_rng(seed), gymnasium.make("CartPole-v1").unwrapped
    env = FAMILY.make_vec(DEFAULT)
    env.reset(seed=0)
    lengths = []
    for _ in range(10):
        single.reset(seed=int(rng.integers(2**31)))
        env.set_state({"state": single.state[None], "elapsed": [0]})
        for t in range(199):
            leaning = single.state[2] + single.state[3] > 0
            action = int(leaning) if rng.random() < 0.7 else int(rng.integers(2))
            observation, reward, terminated, *_ = single.step(action)
            _, paid, ended, truncated, infos = env.step(np.array([action]))
            assert paid[0] == reward == 1 and ended[0] == terminated and not truncated[0]
            if terminated:
                np.testing.assert_allclose(infos["final_obs"][0], observation, atol=1e-6)
                lengths.append(t)
                break
            np.testing.assert_allclose(env.state[0], single.state, atol=1e-10)
    assert len(lengths) >= 3 and max(lengths) > 60


def test_a_step_of_other_agents_by_hand():
    """From the upright pole at rest: forces alone, T = push / 1.1, turn = -T / (length * (4/3 - 1/11))."""
    parameters = {"force": np.array([2.0, 18.0]), "length": np.array([0.5, 0.15])}
    state = np.array([[0.1, 1.0, 0, 0], [0, 0, 0, 3.0]])
    found = FAMILY.advance(state, np.array([1, 0]), parameters)
    turn = -(2 / 1.1) / (0.5 * (4 / 3 - 1 / 11))
    np.testing.assert_allclose(found[0], [0.12, 1 + 0.02 * (2 - 0.05 * turn) / 1.1, 0, 0.02 * turn])
    turn = (18 / 1.1) / (0.15 * (4 / 3 - 1 / 11))
    np.testing.assert_allclose(found[1], [0, -0.02 * (18 + 0.015 * turn) / 1.1, 0.06, 3 + 0.02 * turn])


def test_a_leaning_pole_by_hand():
    """At 0.1 rad, spinning: the full equations of Barto, Sutton & Anderson without friction."""
    found = FAMILY.advance(np.array([0, 0, 0.1, 2.0]), 0, {"force": 5.0, "length": 0.25})
    T = (-5 + 0.025 * 4 * 0.0998334166) / 1.1
    turn = (9.8 * 0.0998334166 - 0.9950041653 * T) / (0.25 * (4 / 3 - 0.1 * 0.9950041653**2 / 1.1))
    speed_up = T - 0.025 * turn * 0.9950041653 / 1.1
    np.testing.assert_allclose(found, [0, 0.02 * speed_up, 0.14, 2 + 0.02 * turn], rtol=1e-8)


def test_terminated_beyond_either_limit():
    degree = np.pi / 180
    rows = [[2.41, 0], [-2.41, 0], [2.39, 0], [0, 12.01 * degree], [0, -12.01 * degree], [0, 11.99 * degree]]
    states = np.zeros((6, 4))
    states[:, ::2] = rows
    assert FAMILY.terminated(states).tolist() == [True, True, False, True, True, False]
    assert (FAMILY.reward(states, None, states) == 1).all()


def test_stronger_pushes_move_more_and_longer_poles_turn_less():
    state = np.zeros((9, 4))
    force, length = np.linspace(2, 18, 9), np.linspace(0.15, 0.85, 9)
    pushed = FAMILY.advance(state, np.ones(9, int), {"force": force, "length": 0.5})
    assert (np.diff(pushed[:, 1]) > 0).all() and (np.diff(pushed[:, 3]) < 0).all()
    turned = FAMILY.advance(state, np.ones(9, int), {"force": 10.0, "length": length})
    assert (turned[:, 3] < 0).all() and (np.diff(turned[:, 3]) > 0).all()
    state[:, 2] = 0.1  # and fall more slowly
    fallen = sum(FAMILY.advance(state, np.full(9, a), {"force": 10.0, "length": length}) for a in (0, 1))
    assert (fallen[:, 3] > 0).all() and (np.diff(fallen[:, 3]) < 0).all()
