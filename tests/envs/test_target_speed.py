import gymnasium
import numpy as np
import pytest
import torch

from envs import EnvError
from envs.robots import ROBOTS, load_robot
from envs.target_speed import SpeedTask

KWARGS = {"ant": {"include_cfrc_ext_in_observation": False, "healthy_z_range": (0.4, 1.0)}}
FALLING = ["hopper", "walker2d", "ant"]


def random_actions(family, T, n, seed=0):
    shape = (T, n, *family.action_space.shape)
    return np.random.default_rng(seed).uniform(family.action_space.low, family.action_space.high, shape)


def play(env, actions):
    """Each step's arrays and the physics after it (float64, unlike observations), as bytes."""
    return [[a.tobytes() for a in (*env.step(row), *env.dynamics_state().values())] for row in actions]


@pytest.mark.parametrize("robot", ROBOTS)
def test_every_copy_is_gymnasiums_environment_bit_for_bit(robot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to a file there
    family, index = SpeedTask(robot), [4, 0, 7]
    actions = random_actions(family, 200, len(index)).astype(np.float32)
    shared = family.make_shared(len(index), seed=3, index=index)
    observations, steps, warm_start = [shared.reset()], [], shared.copies.warm_start.copy()
    for row in actions:
        steps.append(shared.step(row))
        observations.append(steps[-1].observation)
    num_ends = 0
    for e, number in enumerate(index):
        single = gymnasium.make(ROBOTS[robot].id, **KWARGS.get(robot, {})).unwrapped
        single.np_random, episode = np.random.default_rng([3, number, 0]), 0
        assert np.array_equal(single.reset()[0].astype(np.float32), observations[0][e])
        assert np.array_equal(single.data.qacc_warmstart, warm_start[e])
        for t, step in enumerate(steps):
            before = single.data.qpos[0]
            observation, _, terminated, _, info = single.step(actions[t, e])
            velocity = (single.data.qpos[0] - before) / single.dt
            assert robot == "ant" or velocity == info["x_velocity"]
            assert step.outcome[e, 0] == np.float32(velocity)
            assert np.array_equal(observation.astype(np.float32), step.final_observation[e])
            assert terminated == step.terminated[e] and not step.truncated[e]
            if terminated:
                num_ends, episode = num_ends + 1, episode + 1
                single.np_random = np.random.default_rng([3, number, episode])
                observation, _ = single.reset()
            assert np.array_equal(observation.astype(np.float32), observations[t + 1][e])
        assert np.array_equal(single.data.qpos, shared.copies.position[e])
        assert np.array_equal(single.data.qvel, shared.copies.velocity[e])
        assert np.array_equal(single.data.qacc_warmstart, shared.copies.warm_start[e])
    assert (num_ends > 0) == (robot in FALLING)


@pytest.mark.parametrize("robot, size", [("half_cheetah", 17), ("hopper", 11), ("walker2d", 17), ("ant", 27)])
def test_spaces_and_shapes(robot, size):
    family = SpeedTask(robot)
    env = family.make_shared(2, seed=0)
    assert family.observation_space.shape == (size,) and env.reset().shape == (2, size)
    step = env.step(random_actions(family, 1, 2)[0])
    assert all(array in family.observation_space for array in (*step.observation, *step.final_observation))
    assert step.outcome.shape == (2, family.outcome_size) and step.outcome.dtype == np.float32
    assert step.terminated.dtype == step.truncated.dtype == bool


def test_rewards_by_hand():
    family = SpeedTask("half_cheetah")  # U(0, 4): the window is 0.2 wide to each side
    outcome = np.array([[1.0], [1.1], [0.95], [1.1999], [1.2001], [-1.0], [1e30]])
    rewards = family.rewards(outcome, {"target": np.array([1.0, 3.0])})
    assert rewards[:, 0] == pytest.approx([0.1, 0.05, 0.075, 5e-5, 0, 0, 0], abs=1e-12)
    assert (rewards[4:, 0] == 0).all() and (rewards[:, 1] == 0).all()
    assert family.max_return == pytest.approx(100)
    narrow = SpeedTask("half_cheetah", low=1, high=2, max_episode_len=50)
    assert narrow.rewards(np.array([1.025]), {"target": np.array([1.0])}) == pytest.approx([0.05])
    assert narrow.max_return == pytest.approx(5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rewards_of_tensors_are_those_of_arrays(dtype):
    family, rng = SpeedTask("walker2d"), np.random.default_rng(0)
    outcome = rng.uniform(-1, 3, (5, 4, 1)).astype(np.float32)
    target = family.sample(rng, 60)["target"].astype(dtype)
    arrays = family.rewards(outcome, {"target": target})
    tensors = family.rewards(torch.from_numpy(outcome), {"target": torch.from_numpy(target)})
    assert arrays.shape == (5, 4, 60) and arrays.dtype == dtype and (arrays > 0).any()
    assert isinstance(tensors, torch.Tensor) and np.array_equal(tensors.numpy(), arrays)
    part = family.rewards(outcome, {"target": target[20:30]})
    assert np.array_equal(part, arrays[..., 20:30])


def test_targets_fill_the_range_and_order_sorts_them():
    family = SpeedTask("ant", low=0.5, high=2.5)
    parameters = family.check(family.sample(np.random.default_rng(0), 1000))
    target = parameters["target"]
    assert target.min() >= 0.5 and target.max() <= 2.5 and target.mean() == pytest.approx(1.5, abs=0.1)
    assert np.array_equal(target[family.order(parameters)], np.sort(target))
    assert family.order({"target": np.array([2.0, 0.5, 1.0])}).tolist() == [1, 2, 0]
    highest = {robot: SpeedTask(robot).high for robot in ROBOTS}
    assert highest == {"half_cheetah": 4, "hopper": 2.5, "walker2d": 2.5, "ant": 3}


def test_the_time_limit_truncates():
    family = SpeedTask("half_cheetah", max_episode_len=7)
    env = family.make_shared(3, seed=0)
    first = env.reset()
    for t, row in enumerate(random_actions(family, 21, 3), 1):
        step = env.step(row)
        assert not step.terminated.any() and step.truncated.all() == step.truncated.any() == (t % 7 == 0)
        assert np.array_equal(step.observation, step.final_observation) != step.truncated[0]
    assert env.episode.tolist() == [3, 3, 3] and not np.array_equal(step.observation, first)


def test_a_fallen_hopper_is_terminated_not_truncated():
    family = SpeedTask("hopper", max_episode_len=200)
    env = family.make_shared(1, seed=0)
    env.reset()
    for _ in range(200):
        step = env.step(np.ones((1, 3)))
        if step.terminated[0]:
            break
    height, angle = step.final_observation[0, :2]
    assert step.terminated[0] and not step.truncated[0] and (height < 0.7 or abs(angle) > 0.2)
    assert step.observation[0, :2] == pytest.approx([1.25, 0], abs=0.006)  # stands again, with noise
    assert env.elapsed[0] == 0


@pytest.mark.parametrize(
    "robot, column, value, healthy",
    [("hopper", 1, v, ok) for v, ok in ((0.71, True), (0.69, False), (99, True))]
    + [("hopper", 2, v, ok) for v, ok in ((0.19, True), (-0.21, False))]
    + [("hopper", 5, v, ok) for v, ok in ((-99, True), (101, False))]
    + [("hopper", 7, v, ok) for v, ok in ((99, True), (-101, False))]
    + [("walker2d", 1, v, ok) for v, ok in ((0.81, True), (0.79, False), (1.99, True), (2.01, False))]
    + [("walker2d", 2, v, ok) for v, ok in ((0.99, True), (-1.01, False))]
    + [("ant", 2, v, ok) for v, ok in ((0.41, True), (0.39, False), (0.99, True), (1.01, False))]
    + [("half_cheetah", 1, -5, True), ("half_cheetah", 2, 3.1, True), ("walker2d", 11, 500, True)],
)
def test_healthy_ranges(robot, column, value, healthy):
    env = SpeedTask(robot).make_shared(2, seed=0)
    env.reset()
    copies = env.copies
    rows = np.concatenate([copies.position, copies.velocity], axis=1)
    rows[1, column] = value
    copies.position[:], copies.velocity[:] = np.split(rows, [copies.position.shape[1]], axis=1)
    assert copies.healthy().tolist() == [True, healthy]


def test_termination_wins_over_the_time_limit():
    family = SpeedTask("hopper")
    env = family.make_shared(1, seed=0)
    env.reset()
    length = next(t for t in range(1, 200) if env.step(np.ones((1, 3))).terminated[0])
    env = SpeedTask("hopper", max_episode_len=length).make_shared(1, seed=0)
    env.reset()
    steps = [env.step(np.ones((1, 3))) for _ in range(length)]
    assert steps[-1].terminated[0] and not steps[-1].truncated[0]


@pytest.mark.parametrize("robot", ROBOTS)
def test_a_saved_state_continues_bit_for_bit(robot):
    family = SpeedTask(robot, max_episode_len=60)
    actions = random_actions(family, 90, 4)
    env = family.make_shared(4, seed=1, stagger=True)
    env.reset()
    play(env, actions[:35])
    state = env.get_state()
    expected = play(env, actions[35:])
    ends = env.episode - state["episode"]
    assert (ends > 0).all()
    other = family.make_shared(4, seed=1, stagger=True)
    observation = other.set_state(state)
    assert play(other, actions[35:]) == expected
    assert env.set_state(state).tobytes() == observation.tobytes()
    assert play(env, actions[35:]) == expected


@pytest.mark.parametrize("robot", FALLING)
def test_numbers_do_not_depend_on_the_division(robot):
    family = SpeedTask(robot, max_episode_len=40)
    actions = random_actions(family, 50, 8)
    whole = family.make_shared(8, seed=2, stagger=True, num_threads=2)
    parts = [slice(0, 3), slice(3, 8)]
    shares = [
        family.make_shared(part.stop - part.start, seed=2, index=np.arange(8)[part], stagger=True)
        for part in parts
    ]
    first = whole.reset()
    for part, share in zip(parts, shares, strict=True):
        assert np.array_equal(share.reset(), first[part])
    for row in actions:
        step = whole.step(row)
        for part, share in zip(parts, shares, strict=True):
            for all_rows, rows in zip(step, share.step(row[part]), strict=True):
                assert all_rows[part].tobytes() == rows.tobytes()


def test_stagger_spreads_the_first_ends():
    family = SpeedTask("half_cheetah", max_episode_len=20)
    env = family.make_shared(10, seed=0, stagger=True)
    env.reset()
    ends = np.array([env.step(row).truncated for row in random_actions(family, 40, 10)])
    first = ends.argmax(axis=0) + 1
    assert first[0] == 20 and first[1] == 20 - int(0.6180339887 * 20) and first.min() >= 1
    assert len(set(first)) == 10 and np.diff(np.sort(first)).max() <= 4
    assert (ends.sum(axis=0) == 2)[first < 20].all()
    for e in range(10):
        assert np.flatnonzero(ends[:, e]).tolist()[:2] == [first[e] - 1, first[e] + 19]


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("bad", [np.nan, 1e9])
def test_diverged_physics_ends_one_episode_only(robot, bad, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to a file there
    family = SpeedTask(robot)
    sound, env = (family.make_shared(3, seed=0) for _ in range(2))
    sound.reset(), env.reset()
    state = env.get_state()
    state["velocity"][1] = bad
    env.set_state(state)
    for t, row in enumerate(random_actions(family, 6, 3)):
        step, expected = env.step(row), sound.step(row)
        assert all(np.isfinite(array).all() for array in step)
        for array, other in zip(step, expected, strict=True):
            assert np.array_equal(array[[0, 2]], other[[0, 2]])
        assert step.terminated[1] == (t == 0) and (t > 0 or step.outcome[1, 0] == 0)
    assert env.episode.tolist() == [0, 1, 0]


def test_an_empty_share_can_be_played():
    env = SpeedTask("ant").make_shared(0, seed=0)
    assert env.reset().shape == (0, 27)
    assert env.step(np.zeros((0, 8))).outcome.shape == (0, 1)
    assert env.set_state(env.get_state()).shape == (0, 27)


def hopper(n=2, **kwargs):
    env = SpeedTask("hopper").make_shared(n, seed=kwargs.pop("seed", 0), **kwargs)
    env.reset()
    return env


@pytest.mark.parametrize(
    "mistake, text",
    [
        (lambda: SpeedTask("snake"), "unknown robot 'snake'; known are half_cheetah"),
        (lambda: SpeedTask("ant", max_episode_len=0), "max_episode_len is 0; give"),
        (lambda: SpeedTask("ant", low=-1), "from -1 to 3.0; give finite numbers 0 <= low < high"),
        (lambda: SpeedTask("ant", low=2, high=2), "from 2 to 2; give"),
        (lambda: SpeedTask("ant", high=np.inf), "from 0.0 to inf; give"),
        (lambda: SpeedTask("ant", high="3"), "from 0.0 to '3'; give"),
        (lambda: SpeedTask("ant").check({"speed": np.ones(3)}), r"takes \['target'\]"),
        (lambda: SpeedTask("ant").check({"target": np.ones((3, 1))}), r"shape \[3, 1\]; give \[3\]"),
        (lambda: SpeedTask("ant").check({"target": [np.nan]}), "not finite"),
        (lambda: hopper(-1), "num_envs is -1; give"),
        (lambda: hopper(seed=-1), "seed is -1; give"),
        (lambda: hopper(index=[0]), "index must be 2 whole numbers"),
        (lambda: hopper(index=[0, -1]), "index must be 2 whole numbers"),
        (lambda: hopper(num_threads=0), "num_threads is 0; give"),
        (lambda: hopper().step(np.zeros((3, 3))), r"shape \[3, 3\]; give \[2, 3\]"),
        (lambda: hopper().step(np.full((2, 3), np.nan)), "must be finite"),
        (lambda: hopper().set_state(hopper(3).get_state()), "for 2 environments; restore"),
        (lambda: hopper().set_state({"elapsed": np.zeros(2)}), "give what get_state returned"),
        (lambda: SpeedTask("ant").make_shared(2, seed=0).set_state(hopper().get_state()), "another robot"),
    ],
)
def test_mistakes_are_refused_in_one_line(mistake, text):
    with pytest.raises(EnvError, match=text) as caught:
        mistake()
    assert "\n" not in str(caught.value)


def test_loading_a_robot_prints_nothing(capfd):
    load_robot.cache_clear()
    SpeedTask("half_cheetah")
    assert capfd.readouterr() == ("", "")
