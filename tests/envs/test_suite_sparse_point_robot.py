import numpy as np
import pytest

from envs.sparse_point_robot import NEAR, STEP, SparsePointRobot

FAMILY = SparsePointRobot()
ANGLES = (np.arange(150) + 0.5) * np.pi / 150
GOALS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)


def step_to(point, place):
    """The action that moves towards a place as far as one step can, coordinate by coordinate."""
    return ((place - point) / STEP).clip(-1, 1)


def returns_of(act, episodes=1):
    """Returns [episodes, 150] of `act(point, reward)`, whose first reward of an episode is None."""
    env = FAMILY.make_vec({"angle": ANGLES})
    point, reward, total = env.reset()[0], None, np.zeros((episodes, len(ANGLES)))
    for episode in total:
        for t in range(FAMILY.max_episode_len):
            point, reward, terminated, truncated, _ = env.step(act(point, reward))
            episode += reward
            assert not terminated.any() and truncated.all() == truncated.any() == (t == 99)
        reward = None
    return total


def test_a_policy_that_knows_the_goal_returns_what_the_family_says():
    (returns,) = returns_of(lambda point, reward: step_to(point, GOALS))
    assert returns.mean() == pytest.approx(93.38, abs=0.02)


def arc(angle):
    return 0.92 * np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def test_an_explicit_search_finds_every_goal_in_the_first_episode():
    """It sweeps an arc of radius 0.92 from angle 0.19; each reward tells which goals are still possible."""
    possible, heading, found = np.ones((150, 150), bool), np.full(150, 0.19), np.zeros(150, bool)
    ahead = np.arange(0, 0.2, 0.002)

    def act(point, reward):
        if reward is not None:
            distance = np.linalg.norm(point[:, None] - GOALS, axis=2)  # [environment, possible goal]
            told = np.where(distance <= NEAR, 1 - distance, 0)
            possible[:] &= abs(told - reward[:, None]) < 1e-4
            found[:] |= reward > 0
        near = abs(arc(heading[:, None] + ahead) - point[:, None]).max(axis=2) <= STEP
        near = np.logical_and.accumulate(near, axis=1)
        heading[:] += (near * ahead).max(axis=1)  # as far along the arc as one step reaches
        return step_to(point, np.where(found[:, None], GOALS[possible.argmax(axis=1)], arc(heading)))

    (returns,) = returns_of(act)
    assert found.all() and (possible.sum(axis=1) == 1).all()
    assert returns.mean() == pytest.approx(81.5, abs=0.2)


def test_rewards_and_clipping_by_hand():
    env = FAMILY.make_vec({"angle": np.array([0.0, np.pi / 2])})
    assert env.reset()[0].tolist() == [[0, 0], [0, 0]]
    walk = [  # moves, points and rewards; the first move is clipped to 1
        ([[5, 0], [0, 0.8]], [[0.1, 0], [0, 0.08]], [0, 0]),
        *[([[1, 0], [0, 1]], [[0.1 * t, 0], [0, 0.1 * t - 0.02]], [0, 0]) for t in range(2, 8)],
        ([[0.5, 0], [0, 1]], [[0.75, 0], [0, 0.78]], [0, 0]),
        ([[1, 0], [0, 1]], [[0.85, 0], [0, 0.88]], [0.85, 0.88]),
        ([[1, 1], [-0.3, 1]], [[0.95, 0.1], [-0.03, 0.98]], [1 - 0.0125**0.5, 1 - 0.0013**0.5]),
        ([[0, 1], [-9, 1]], [[0.95, 0.2], [-0.13, 1.08]], [0, 1 - (0.13**2 + 0.08**2) ** 0.5]),
    ]
    for moves, points, rewards in walk:
        point, reward, *_ = env.step(np.array(moves, np.float32))
        np.testing.assert_allclose(point, points, atol=1e-6)
        np.testing.assert_allclose(reward, rewards, atol=1e-6)


def test_angles_are_uniform_on_the_half_circle():
    angle = FAMILY.sample(np.random.default_rng(0), 4000)["angle"]
    assert 0 <= angle.min() < 0.01 and np.pi - 0.01 < angle.max() < np.pi
    assert abs(np.sort(angle) / np.pi - np.arange(4000) / 4000).max() < 0.03
