"""Pictures of environments: what is where in them."""

import numpy as np
import pytest

from envs import EnvError, drawing, make_family, robot_drawing
from envs.drawing import drawing_of

ORANGE, GREEN = (255, 127, 14), (161, 217, 155)  # an agent, and the cell of GridNavi's goal
DRAWS = any(map(robot_drawing.find_library, robot_drawing.BACKENDS.values()))
draws_robots = pytest.mark.skipif(not DRAWS, reason="neither EGL nor OSMesa is here")


def begun(name, parameters=None, num=3):
    family = make_family(name)
    tasks = family.sample(np.random.default_rng(0), num) if parameters is None else parameters
    env = family.make_vec(tasks, np.random.default_rng(1))
    env.reset()
    drawn = drawing_of(family, env)
    drawn.note()
    return env, drawn


def middle(frame, colour):
    """The mean x and y of the pixels near a colour, from the lower left corner, as shares."""
    rows, columns = np.nonzero((np.abs(frame.astype(int) - colour) < 12).all(-1))
    assert len(rows), "no such pixel"
    return columns.mean() / frame.shape[1], 1 - rows.mean() / frame.shape[0]


def test_a_grid_shows_the_agent_and_its_goal():
    env, drawn = begun("grid_navi", {"goal": np.array([24, 20])})  # x = y = 4, and x = 4, y = 0
    for action in (2, 2, 1):  # right twice, up once
        env.step(np.array([action, 0]))
        drawn.note()
    first, second = drawn.frames()
    assert middle(first, ORANGE) == pytest.approx((0.5, 0.3), abs=0.02)  # cell (2, 1) of 5 x 5
    assert middle(second, ORANGE) == pytest.approx((0.1, 0.1), abs=0.03)  # it stayed
    assert middle(first, GREEN) == pytest.approx((0.9, 0.9), abs=0.02)
    assert middle(second, GREEN) == pytest.approx((0.9, 0.1), abs=0.02)


def test_a_particle_leaves_a_trail_until_its_episode_ends():
    moves = np.zeros((1, 4, 2), np.float32)
    moves[0, :, 0] = 1  # each action goes right
    env, drawn = begun("particle", {"moves": moves, "group": np.array([0])})
    at = [middle(drawn.frames()[0], ORANGE)]
    for _ in range(99):
        env.step(np.array([0]))
        drawn.note()
    at.append(middle(drawn.frames()[0], ORANGE))
    assert len(drawn.walked[0]) == 100
    assert at[0] == pytest.approx((0.2, 0.2), abs=0.02)  # (0, 0) of -0.3..1.2
    assert at[1] == pytest.approx(((env.position[0, 0] + 0.3) / 1.5, 0.2), abs=0.02)
    env.step(np.array([0]))
    drawn.note()
    assert len(drawn.walked[0]) == 1


@pytest.mark.parametrize("name", drawing.WORLDS)
def test_every_world_is_drawn_at_its_size_and_changes(name):
    env, drawn = begun(name)
    before = drawn.frames()
    number = 0 if name == "resource_gathering" else 1  # its 1 bumps into the wall of home, which ends a walk
    for _ in range(14):
        env.step(np.full(env.action_space.shape, number, env.single_action_space.dtype))
        drawn.note()
    after = drawn.frames()
    assert {frame.shape for frame in before + after} == {(drawn.size[1], drawn.size[0], 3)}
    assert len(drawn.captions()) == 3
    changed = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert all(changed)


@draws_robots
@pytest.mark.parametrize("name", ["half_cheetah", "half_cheetah_body", "ant_goal", "hopper"])
def test_robots_are_drawn_and_their_speeds_told(name):
    env, drawn = begun(name, num=2)
    before = drawn.frames()
    for _ in range(3):
        env.step(np.full(env.action_space.shape, 0.5, np.float32))
        drawn.note()
    after = drawn.frames()
    assert before[0].shape == (drawn.size[1], drawn.size[0], 3) and before[0].std() > 5
    assert not np.array_equal(before[0], after[0])
    places = [positions[0, 0] for positions in drawn.before]
    speed = (places[-1] - places[0]) / (3 * drawn.dt)
    assert drawn.captions()[0] == f"{speed:5.2f} m/s, at {places[-1]:5.1f} m"


def test_what_cannot_be_drawn_is_said_in_one_line(monkeypatch):
    with pytest.raises(EnvError, match="no pictures of tabular_mdp; there are of half_cheetah"):
        drawing.check_drawn(make_family("tabular_mdp", num_states=3, num_actions=2, max_episode_len=5))
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(robot_drawing, "find_library", lambda name: None)
    with pytest.raises(EnvError, match="EGL or OSMesa, and neither is here; install one"):
        begun("half_cheetah")


def test_a_users_own_environment_draws_itself():
    from envs import examples

    family = make_family(examples.cart_pole_family)
    with pytest.raises(EnvError, match="render_mode"):
        begun(examples.cart_pole_family)
    env = family.make_vec(family.sample(np.random.default_rng(0), 2))
    env.render_mode, env.render = "rgb_array", lambda: [np.full((8, 10, 3), i) for i in range(2)]
    drawn = drawing_of(family, env)
    assert drawn.size == (10, 8) and [int(frame.max()) for frame in drawn.frames()] == [0, 1]
