import gymnasium
import mujoco
import numpy as np
import pytest

from envs import make_family
from envs.robots import ROBOTS, load_robot

FAMILY = make_family("half_cheetah_body")
DEFAULT = {name: np.array([value]) for name, value in FAMILY.default.items()}


def actions_of(T, n, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (T, n, 6))


def test_the_default_agent_is_gymnasiums_half_cheetah():
    """State by state; Gymnasium's solver is told to start cold as ours does, and x is far from 0."""
    load_robot(ROBOTS["half_cheetah"])  # swallows MuJoCo's warning about the file
    single = gymnasium.make("HalfCheetah-v5").unwrapped
    single.reset(seed=0)
    for action in actions_of(60, 1):
        data = single.data
        before = np.concatenate([[0.3], data.qpos[1:], data.qvel])[None]  # the last velocity plays no part
        data.qacc_warmstart[:] = 0
        observation, reward, *_, info = single.step(action[0])
        after = FAMILY.advance(before, action, DEFAULT)
        np.testing.assert_allclose(after[0, 1:], observation, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(after[0, 0], info["x_velocity"], atol=1e-9)
        np.testing.assert_allclose(FAMILY.reward(before, action, after), [reward], atol=1e-9)


def test_a_few_steps_on_its_own_stay_near_gymnasiums():
    """A warm start of the solver makes a difference in the last digits only."""
    single = gymnasium.make("HalfCheetah-v5").unwrapped
    single.reset(seed=1)
    env = FAMILY.make_vec(DEFAULT)
    env.reset(seed=0)
    state = np.concatenate([[0], single.data.qpos[1:], single.data.qvel])
    env.set_state({"state": state[None], "elapsed": [0]})
    for action in actions_of(10, 1, seed=1):
        observation, reward, *_ = single.step(action[0])
        observations, rewards, *_ = env.step(action)
        np.testing.assert_allclose(observations[0, 1:], observation, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(rewards[0], reward, rtol=1e-3, atol=1e-3)


def test_each_agent_is_mujocos_model_with_scaled_masses_and_damping():
    """The reference is one model of its own for each agent, edited and stepped by MuJoCo directly."""
    robot, agents = load_robot(ROBOTS["half_cheetah"]), FAMILY.test_agents
    rng = np.random.default_rng(0)
    state = FAMILY.start(rng, 5)
    actions = actions_of(40, 5)
    for row in actions[:-1]:
        state = FAMILY.advance(state, row, agents)
    found = FAMILY.advance(state, actions[-1], agents)
    mass, damping = robot.model.body_mass.copy(), robot.model.dof_damping.copy()
    for i in range(5):
        model = gymnasium.make("HalfCheetah-v5").unwrapped.model
        model.body_mass[:] = mass * agents["mass_scale"][i]
        model.dof_damping[:] = damping * agents["damping_scale"][i]
        data = mujoco.MjData(model)
        mujoco.mj_setConst(model, data)
        data.qpos[1:], data.qvel[:], data.ctrl[:] = state[i, 1:9], state[i, 9:], actions[-1, i]
        data.qacc_warmstart[:] = 0
        mujoco.mj_step(model, data, 5)
        expected = np.concatenate([[data.qpos[0] / 0.05], data.qpos[1:], data.qvel])
        assert np.array_equal(found[i], expected)
    assert len(np.unique(found[:, 0])) == 5


def test_torques_move_less_mass_faster_and_damping_takes_speed():
    scales = np.array([0.2, 0.6, 1.0, 1.4, 1.8])
    pushed = FAMILY.advance(
        np.zeros((5, 18)), np.ones((5, 6)), {"mass_scale": scales, "damping_scale": np.ones(5)}
    )
    assert (pushed[:, 0] > 0).all() and (np.diff(pushed[:, 0]) < 0).all()
    state = np.zeros((5, 18))
    state[:, 1], state[:, 12] = 2.0, 5.0  # two metres up, one thigh turning
    state = FAMILY.advance(state, np.zeros((5, 6)), {"mass_scale": np.ones(5), "damping_scale": scales})
    assert (np.diff(state[:, 12]) < 0).all()


def test_a_step_depends_on_nothing_before_it():
    agents, actions = FAMILY.test_agents, actions_of(3, 5)
    state = FAMILY.start(np.random.default_rng(0), 5)
    first = FAMILY.advance(state, actions[0], agents)
    FAMILY.advance(first, actions[1], agents)
    assert np.array_equal(FAMILY.advance(state, actions[0], agents), first)
    reverse = {name: values[::-1] for name, values in agents.items()}
    assert np.array_equal(FAMILY.advance(state[::-1], actions[0, ::-1], reverse)[::-1], first)


@pytest.mark.parametrize("bad", [np.nan, 1e12])
def test_diverged_physics_stands_at_rest_again_and_leaves_others_alone(bad, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)  # MuJoCo would write its warnings to a file there
    agents, actions = FAMILY.test_agents, actions_of(1, 5)[0]
    state = FAMILY.start(np.random.default_rng(0), 5)
    expected = FAMILY.advance(state, actions, agents)
    state[2, 12] = bad
    found = FAMILY.advance(state, actions, agents)
    assert (found[2] == 0).all() and not FAMILY.terminated(found).any()
    others = [0, 1, 3, 4]
    assert np.array_equal(found[others], expected[others])
    assert (FAMILY.advance(found, actions, agents)[2] != 0).any()  # and it goes on from there
    assert capfd.readouterr() == ("", "") and not list(tmp_path.iterdir())


def test_rewards_by_hand():
    after = np.zeros((2, 3, 18))
    after[..., 0] = [[1, 2, 3], [-1, 0, 0.5]]
    action = np.full((2, 3, 6), 0.5)
    expected = after[..., 0] - 0.1 * 6 * 0.25
    np.testing.assert_allclose(FAMILY.reward(10 * after, action, after), expected)
