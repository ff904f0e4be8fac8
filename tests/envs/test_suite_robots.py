"""The robots of the meta-RL suite beside Gymnasium's, and by hand."""

import gymnasium
import mujoco
import numpy as np
import pytest

from envs import make_family
from envs.robots import load_robot

FALLING = ["ant_dir", "ant_forward_backward", "walker_params"]
NAMES = ["half_cheetah_vel", "half_cheetah_dir", "ant_goal", *FALLING]
BODY = {  # of the walker: shapes of the factors, and the fields of MuJoCo's model
    "mass": ((8,), "body_mass"),
    "inertia": ((8, 3), "body_inertia"),
    "friction": ((8, 3), "geom_friction"),
    "damping": ((9,), "dof_damping"),
}


def begun(name, n, seed=0, **parameters):
    """A family, its environment after `reset`, and its tasks: given, or drawn."""
    family = make_family(name)
    tasks = parameters or family.sample(np.random.default_rng(seed), n)
    env = family.make_vec(tasks, np.random.default_rng(seed + 1))
    env.reset()
    return family, env, tasks


def random_actions(env, T, seed=0, size=1.2):
    """Some are outside of -1..1."""
    return np.random.default_rng(seed).uniform(-size, size, (T, *env.action_space.shape)).astype(np.float32)


def gymnasiums(name, task):
    """Gymnasium's environment as the task has it."""
    if name == "walker_params":
        single = gymnasium.make("Walker2d-v5", xml_file="walker2d.xml").unwrapped
        single.model.opt.timestep = 0.004
        for key, factor in task.items():
            getattr(single.model, BODY[key][1])[:] *= factor
        return single
    if name.startswith("half_cheetah"):
        load_robot(make_family(name).robot)  # swallows MuJoCo's warning about the file
        return gymnasium.make("HalfCheetah-v5").unwrapped
    seen = {"include_cfrc_ext_in_observation": False, "healthy_z_range": (0.2, 1.0)}
    seen["exclude_current_positions_from_observation"] = name != "ant_goal"
    return gymnasium.make("Ant-v5", **seen).unwrapped


def reward_of(name, task, velocity, place, squares):
    """The table of docs/suite.md."""
    match name:
        case "half_cheetah_vel":
            return -abs(velocity[0] - task["target"]) - 0.05 * squares
        case "half_cheetah_dir":
            return task["direction"] * velocity[0] - 0.05 * squares
        case "ant_dir" | "ant_forward_backward":
            ahead = velocity[0] * np.cos(task["angle"]) + velocity[1] * np.sin(task["angle"])
            return 1 + ahead - 0.5 * squares
        case "ant_goal":
            return -abs(place[0] - task["x"]) - abs(place[1] - task["y"]) - 0.1 * squares
        case "walker_params":
            return 1 + velocity[0] - 0.001 * squares


@pytest.mark.parametrize("name", NAMES)
def test_every_task_is_gymnasiums_robot_with_the_reward_of_the_suite(name, monkeypatch, tmp_path):
    """An episode of two tasks, bit for bit."""
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warnings to a file there
    n = 2
    family, env, tasks = begun(name, n)
    singles = [gymnasiums(name, {key: values[e] for key, values in tasks.items()}) for e in range(n)]
    for e, single in enumerate(singles):
        single.reset()
        single.set_state(env.copies.position[e], env.copies.velocity[e])
        assert np.isclose(single.dt, family.dt)
    running = np.ones(n, bool)
    for row in random_actions(env, 200):
        *_, infos = step = env.step(row)
        observations = infos.get("final_obs", step[0])
        for e in np.flatnonzero(running):
            single, task = singles[e], {key: values[e] for key, values in tasks.items()}
            before = single.data.qpos[:2].copy()
            observation, _, terminated, _, _ = single.step(row[e].clip(-1, 1))
            after = single.data.qpos[:2]
            velocity, squares = (after - before) / single.dt, np.square(row[e].clip(-1, 1)).sum()
            assert np.array_equal(observations[e], observation.astype(np.float32))
            expected = reward_of(name, task, velocity, after, squares)
            assert step[1][e] == pytest.approx(expected, rel=1e-6, abs=1e-6)
            assert step[2][e] == (terminated and name in FALLING)
        running &= ~step[2]
    assert running.all() or name in FALLING


@pytest.mark.parametrize("name", NAMES)
def test_time_steps_and_health(name):
    family, ant = make_family(name), {"ant_dir": (0.2, 1.0), "ant_forward_backward": (0.2, 1.0)}
    assert family.dt == pytest.approx(0.016 if name == "walker_params" else 0.05)
    heights = {"walker_params": (0.8, 2.0), **ant}
    assert family.robot.height == heights.get(name, (-np.inf, np.inf))


def test_rewards_by_hand():
    before, after = np.zeros((2, 9)), np.zeros((2, 9))
    after[:, :2] = [[0.1, 0.05], [-0.1, 0.0]]  # 2 and 1 m/s of a cheetah or ant
    squares = np.array([0.0, 2.0])

    def reward(name, **tasks):
        values = {key: np.array(value) for key, value in tasks.items()}
        return make_family(name).reward(before, after, squares, values)

    np.testing.assert_allclose(reward("half_cheetah_vel", target=[3.0, 1.0]), [-1, -3 - 0.1])
    np.testing.assert_allclose(reward("half_cheetah_dir", direction=[1.0, -1.0]), [2, 2 - 0.1])
    found = reward("ant_dir", angle=[1.0, -1.0])
    np.testing.assert_allclose(found, [1 + 2 * 0.5403023 + 0.8414710, 1 - 2 * 0.5403023 - 1])
    np.testing.assert_allclose(reward("ant_forward_backward", angle=[0.0, np.pi]), [3, 2])
    np.testing.assert_allclose(reward("ant_goal", x=[1.0, -1.1], y=[-0.95, 2.0]), [-1.9, -3 - 0.2])
    np.testing.assert_allclose(reward("walker_params"), [1 + 0.1 / 0.016, 1 - 0.1 / 0.016 - 0.002])


def test_tasks_are_drawn_as_published():
    n = 20_000

    def drawn(name):
        return make_family(name).sample(np.random.default_rng(0), n)

    target = drawn("half_cheetah_vel")["target"]
    assert abs(np.sort(target) / 3 - np.arange(n) / n).max() < 0.02
    for name, key, values in (
        ("half_cheetah_dir", "direction", [-1, 1]),
        ("ant_dir", "angle", [-1, 1]),
        ("ant_forward_backward", "angle", [0, np.pi]),
    ):
        found, counts = np.unique(drawn(name)[key], return_counts=True)
        assert found.tolist() == values and abs(counts / n - 0.5).max() < 0.02
    goal = drawn("ant_goal")
    distance, angle = np.hypot(goal["x"], goal["y"]), np.arctan2(goal["y"], goal["x"])
    assert abs(np.sort(distance / 3) ** 2 - np.arange(n) / n).max() < 0.02  # uniform in the disc
    assert abs(np.sort(angle) / (2 * np.pi) + 0.5 - np.arange(n) / n).max() < 0.02
    body = drawn("walker_params")
    assert sum(factor[0].size for factor in body.values()) == 65
    for name, factor in body.items():
        exponent = np.log(factor) / np.log(1.3 if name == "damping" else 1.5)
        assert abs(np.sort(exponent.reshape(n, -1), axis=0).T / 6 + 0.5 - np.arange(n) / n).max() < 0.02
        between = np.corrcoef(exponent.reshape(n, -1).T) - np.eye(factor[0].size)
        assert abs(between).max() < 0.05, "each factor is drawn on its own"


@pytest.mark.parametrize("name", NAMES)
def test_starts_are_the_first_pose_with_noise(name):
    n = 2000
    _, env, _ = begun(name, n)
    pose = load_robot(env.family.robot)
    position, velocity = env.copies.position - pose.init_qpos, env.copies.velocity - pose.init_qvel
    walks = name == "walker_params"
    noise = 0.005 if walks else 0.1
    assert abs(position).max() < noise and (abs(velocity).max() < noise) == walks
    np.testing.assert_allclose(position.std(axis=0), noise / 3**0.5, rtol=0.06)
    np.testing.assert_allclose(velocity.std(axis=0), noise / 3**0.5 if walks else noise, rtol=0.1)
    both = np.hstack([position, velocity])
    assert abs(np.corrcoef(both.T) - np.eye(both.shape[1])).max() < 0.1, "each number is drawn on its own"


@pytest.mark.parametrize("name", FALLING)
def test_falls_end_an_episode_and_begin_one_from_fresh_noise(name):
    _, env, _ = begun(name, 6)
    copies, height = env.copies, env.family.robot.hidden
    starts, actions = [copies.position.copy()], np.zeros(env.action_space.shape, np.float32)
    for turn in range(5):
        env.step(actions)
        up = np.arange(6) % 2 == turn % 2
        copies.position[up, height] = 2.5
        *_, terminated, truncated, infos = env.step(actions)
        assert np.array_equal(terminated, up) and not truncated.any()
        assert np.array_equal(infos["_final_obs"], up) and (infos["final_obs"][up, 0] > 2).all()
        assert (env.elapsed[up] == 0).all() and (env.elapsed[~up] > 0).all()
        starts.append(copies.position[up].copy())
    starts = np.concatenate(starts)
    assert len(np.unique(starts, axis=0)) == len(starts) == 6 + 15
    assert abs(starts - copies.first_position).max() <= env.family.robot.noise


def test_physics_that_diverges_ends_one_episode_only(capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # MuJoCo would write its warnings to a file there
    runs = []
    for bad in (0.0, 1e9):
        _, env, _ = begun("half_cheetah_vel", 3)
        if bad:
            env.copies.velocity[1] = bad
        runs.append([env.step(row) for row in random_actions(env, 4)])
    for t, (sound, found) in enumerate(zip(*runs, strict=True)):
        assert all(np.isfinite(array).all() for array in found[:2])
        assert found[2].tolist() == [False, t == 0, False] and not sound[2].any()
        assert all(np.array_equal(a[[0, 2]], b[[0, 2]]) for a, b in zip(found[:4], sound[:4], strict=True))
    assert capfd.readouterr() == ("", "") and not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", BODY)
def test_a_walkers_body_changes_how_it_moves(part):
    """The usual body first, then half and twice of one kind of parameter, all pushed alike."""
    tasks = {name: np.ones((3, *shape)) for name, (shape, _) in BODY.items()}
    tasks[part][1], tasks[part][2] = 0.5, 2.0
    _, env, _ = begun("walker_params", 3, **tasks)
    copies = env.copies
    copies.position[:], copies.velocity[:] = copies.first_position, 0
    copies.position[:, 1] += -0.04 if part == "friction" else 0.5  # its feet slide, or it is in the air
    copies.velocity[:, 0] = part == "friction"
    copies.velocity[:, 3:] = part == "damping"
    action = np.full((3, 6), 0.5 * (part in ("mass", "inertia")), np.float32)
    for _ in range(3):
        env.step(action)
    speed = abs(copies.velocity[:, 0] if part == "friction" else copies.velocity[:, 3])
    assert speed[1] > speed[0] > speed[2] > 0, speed


def test_the_usual_walker_has_the_feet_of_version_4():
    model = load_robot(make_family("walker_params").robot).model
    name = lambda i: mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_GEOM, i)  # noqa: E731
    friction = {name(i): model.geom_friction[i, 0] for i in range(model.ngeom)}
    assert friction["foot_geom"] == 0.9 and friction["foot_left_geom"] == 1.9 and len(friction) == 8
    assert load_robot(make_family("walker2d").make_shared(1, seed=0).copies.robot).model.opt.timestep == 0.002
