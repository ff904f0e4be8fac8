import gymnasium
import numpy as np
import pytest

from envs import make_family

FAMILY = make_family("mountain_car")


@pytest.mark.parametrize("seed", range(3))
def test_the_default_agent_is_gymnasiums_car(seed):
    """Pushing the way it moves, with some random pushes, it meets the wall, top speeds and the goal."""
    rng, single = np.random.default_rng(seed), gymnasium.make("MountainCar-v0").unwrapped
    single.reset(seed=seed)
    env = FAMILY.make_vec({"gravity": np.array([FAMILY.default["gravity"]])})
    env.reset(seed=0)
    single.state = np.array([-0.5, -0.01])
    env.set_state({"state": single.state[None], "elapsed": [0]})
    at_the_wall = False
    for _ in range(499):
        action = rng.integers(3) if rng.random() < 0.2 else (2 if single.state[1] >= 0 else 0)
        observation, _, terminated, *_ = single.step(action)
        _, reward, ended, truncated, infos = env.step(np.array([action]))
        at_the_wall |= single.state[0] == -1.2
        if terminated:
            np.testing.assert_allclose(infos["final_obs"][0], observation, atol=1e-7)
            break
        np.testing.assert_allclose(env.state[0], single.state, atol=1e-12)
        assert not ended[0] and reward[0] == -1
    assert terminated and ended[0] and not truncated[0] and reward[0] == 0 and at_the_wall


def test_a_step_of_another_agent_by_hand():
    state = np.array([[-0.5, 0.01], [-1.19, -0.05], [0.48, 0.069]])
    gravity = np.array([0.0005, 0.001, 0.0001])
    found = FAMILY.advance(state, np.array([2, 0, 1]), {"gravity": gravity})
    velocity = 0.01 + 0.001 - 0.0005 * 0.0707372016677029  # cos(-1.5)
    np.testing.assert_allclose(found[0], [-0.5 + velocity, velocity], rtol=1e-12)
    assert found[1].tolist() == [-1.2, 0]  # the wall
    velocity = 0.069 - 0.0001 * np.cos(1.44)
    np.testing.assert_allclose(found[2], [0.48 + velocity, velocity], rtol=1e-12)
    assert FAMILY.terminated(found).tolist() == [False, False, True]
    assert FAMILY.reward(state, None, found).tolist() == [-1, -1, 0]


def test_the_goal_needs_a_speed_of_at_least_zero():
    states = np.array([[0.5, 0], [0.5, -1e-9], [0.4999, 0.07], [0.6, 0.01]])
    assert FAMILY.terminated(states).tolist() == [True, False, False, True]


def test_the_heavier_the_gravity_the_less_is_climbed():
    """From rest in the valley with a steady push to the right; the weakest gravity is driven over at once."""
    gravity = np.array([1e-4, 1.5e-3, 2e-3, 2.5e-3, 3e-3, 3.5e-3])
    state, highest = np.tile([-np.pi / 6, 0.0], (6, 1)), np.full(6, -2.0)
    for _ in range(100):
        state = FAMILY.advance(state, np.full(6, 2), {"gravity": gravity})
        highest = np.maximum(highest, state[:, 0])
    assert highest[0] == 0.6 and (np.diff(highest) < 0).all() and highest[-1] < -0.3
