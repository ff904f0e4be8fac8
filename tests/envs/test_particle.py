import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from envs.particle import DIRECTIONS, Particle, ParticleEnv, ParticleVectorEnv
from tests.helpers.shared_stream import SlicedStream

VARIANTS = ["paper", "released"]
LEFT, RIGHT, DOWN, UP = range(4)
# Left leans up, right leans down, down and up lean right; the second entity has all actions exchanged.
LEANING = np.array([[-1, 0.5], [1, -0.25], [0.5, -1], [0.25, 1]], np.float32)
DIAGONAL = np.ones((4, 2), np.float32)


def make(*moves, **sizes):
    parameters = {"moves": np.stack(moves).astype(np.float32), "group": np.arange(len(moves))}
    env = Particle(num_actions=len(moves[0]), **sizes).make_vec(parameters)
    env.reset()
    return env


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_two_steps_of_the_paper_by_hand():
    env = make(LEANING, LEANING[::-1], variant="paper")
    observations, rewards, *_ = env.step(np.array([RIGHT, RIGHT]))  # the second one's action 1 goes down
    close(observations, [[0.05, -0.0125], [0.025, -0.05]])
    close(rewards, [-(0.95**2 + 1.0125**2), -(0.975**2 + 1.05**2)])
    observations, rewards, *_ = env.step(np.array([UP, LEFT]))  # the second one's action 0 goes up
    close(observations, [[0.0625, 0.0375], [0.0375, 0]])
    close(rewards, [-(0.9375**2 + 0.9625**2), -(0.9625**2 + 1)])
    assert observations.dtype == rewards.dtype == np.float32


def test_two_steps_of_the_released_physics_by_hand():
    env = make(LEANING, LEANING[::-1], observe_velocity=True)
    observations, rewards, *_ = env.step(np.array([RIGHT, RIGHT]))
    close(observations[0], [0.0025, -0.000625, 0.025, -0.00625])  # force 0.25, velocity 0.025, 0.0025 on
    close(observations[1], [0.00125, -0.0025, 0.0125, -0.025])
    close(rewards, [-(0.7475**2 + 0.750625**2), -(0.74875**2 + 0.7525**2)])
    observations, rewards, *_ = env.step(np.array([UP, LEFT]))
    close(observations[0], [0.0025 + 0.0025, -0.000625 + 0.00203125, 0.025, 0.0203125])
    close(observations[1], [0.00125 + 0.0015625, -0.0025 + 0.000625, 0.015625, 0.00625])
    close(rewards[0], -(0.745**2 + 0.74859375**2))
    assert observations.dtype == rewards.dtype == np.float32


def test_velocity_is_hidden_by_default():
    shown, hidden = make(LEANING, observe_velocity=True), make(LEANING)
    for action in (RIGHT, UP, UP):
        seen = hidden.step(np.array([action]))[0]
        assert seen.shape == (1, 2) and (seen == shown.step(np.array([action]))[0][:, :2]).all()


def play(env, actions):
    """Returned arrays of each step, time-major, and the final observations of the last one."""
    steps = [env.step(row) for row in actions]
    return *(np.stack(column) for column in list(zip(*steps, strict=True))[:4]), steps[-1][4]


@pytest.mark.parametrize("actions", [[RIGHT, UP], [UP, RIGHT]])
def test_what_can_be_reached_with_the_released_physics(actions):
    env = make(DIRECTIONS)
    _, rewards, terminated, truncated, infos = play(env, np.tile(actions, 50)[:, None])
    assert infos["final_obs"].sum() == pytest.approx(0.97, abs=1e-5)
    close(np.sort(infos["final_obs"][0]), [0.4828571, 0.4871429])  # 0.485 but for whose turn was last
    assert rewards[-1, 0] == pytest.approx(-0.14, abs=1e-3) and rewards.argmax() == 99
    assert truncated[-1].all() and not truncated[:-1].any() and not terminated.any()
    # The largest noise in the best direction still misses the bonus.
    rewards = play(make([[0, 0], [1, 0.5], [0, 0], [0.5, 1]]), np.tile(actions, 50)[:, None])[1]
    assert -0.00105 < rewards[-1, 0] < -0.001


def test_bonus_is_the_share_of_the_episode_that_remains():
    """With both coordinates at full speed x = y = t/100 - 0.03, near 0.75 from step 76 to step 80."""
    _, rewards, terminated, *_ = play(make(DIAGONAL), np.zeros((100, 1), int))
    assert rewards[74, 0] == pytest.approx(-2 * 0.03**2, abs=1e-6)
    assert rewards[75, 0] == pytest.approx(-2 * 0.02**2 + 0.24, abs=1e-6)
    assert rewards[77, 0] == pytest.approx(0.22, abs=1e-6)
    assert rewards[79, 0] == pytest.approx(-2 * 0.02**2 + 0.20, abs=1e-6)
    assert rewards[80, 0] == pytest.approx(-2 * 0.03**2, abs=1e-6)
    assert not terminated.any()


def test_the_goal_of_the_paper_ends_an_episode_early_for_that_task_alone():
    worst = [[0, 0], [1, -0.5], [0, 0], [-0.5, 1]]  # noise of 0.5, both times away from the goal
    env = make(DIRECTIONS, worst, DIRECTIONS, variant="paper")
    actions = np.tile([[RIGHT, RIGHT, LEFT], [UP, UP, LEFT]], (50, 1))
    observations, rewards, terminated, truncated, infos = play(env, actions)
    assert np.flatnonzero(terminated[:, 0]).tolist() == [39, 79]  # 40 steps, and once more from the start
    assert np.flatnonzero(terminated[:, 1]).tolist() == [79]
    assert not terminated[:, 2].any() and np.flatnonzero(truncated[:, 2]).tolist() == [99]
    assert not truncated[:, :2].any()
    close(rewards[[39, 79, 79], [0, 0, 1]], 0)
    assert (observations[39, 0] == 0).all() and (observations[79, :2] == 0).all()
    close(observations[40, 0], [0.05, 0])
    close(observations[39, 1], [0.5, 0.5])  # the others go on
    assert infos["_final_obs"].tolist() == [False, False, True]
    close(infos["final_obs"], [[0.5, 0.5], [0.25, 0.25], [-5, 0]])  # 20 steps after the episode before
    assert observations[99, 2].tolist() == [0, 0]


def test_near_is_one_hundredth_and_ending_with_the_last_step_is_no_truncation():
    env = make(DIAGONAL, 0.994 * DIAGONAL, 0.992 * DIAGONAL, variant="paper", max_episode_len=20)
    *_, terminated, truncated, _ = play(env, np.zeros((20, 3), int))  # distances 0, 0.0085 and 0.0113
    assert terminated[-1].tolist() == [True, True, False] == (~truncated[-1]).tolist()
    assert not terminated[:-1].any() and not truncated[:-1].any()


def test_velocity_and_clock_start_anew_with_the_episode():
    env = make(DIAGONAL, max_episode_len=3, observe_velocity=True)
    observations, rewards, _, truncated, _ = play(env, np.zeros((9, 1), int))
    assert truncated[:, 0].tolist() == [False, False, True] * 3
    assert (rewards[:3] == rewards[3:6]).all() and (observations[:3] == observations[3:6]).all()


@given(st.sampled_from(VARIANTS), st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_all_at_once_is_each_alone(variant, n, seed):
    sizes = {"variant": variant, "num_actions": 5, "max_episode_len": 50}
    rng = np.random.default_rng(seed)
    parameters = Particle(**sizes).sample(rng, n)
    parameters["moves"][::2] = parameters["moves"][::2].round()  # without noise, some reach the goal
    good = (parameters["moves"].sum(axis=2) > 0.4).argsort(axis=1)[:, -2:]
    actions = good[:, np.arange(120) % 2].T * (rng.random((120, n)) < 0.98)
    rows = [{key: array[i : i + 1] for key, array in parameters.items()} for i in range(n)]
    together = ParticleVectorEnv(parameters=parameters, **sizes)
    alone = [ParticleEnv(parameters=row, **sizes) for row in rows]
    observations = together.reset()[0]
    assert all((env.reset()[0] == observations[i]).all() for i, env in enumerate(alone))
    for row in actions:
        *results, infos = together.step(row)
        for i, env in enumerate(alone):
            observation, *rest, _ = env.step(row[i])
            over = rest[1] or rest[2]
            assert rest == [column[i] for column in results[1:]]
            assert (observation == (infos["final_obs"] if over else results[0])[i]).all()
            assert not over or (env.reset()[0] == results[0][i]).all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cut", [0, 3, 7])
def test_shares_of_ranks_are_rows_of_the_whole(variant, cut):
    family, n = Particle(variant), 7
    whole = family.sample(SlicedStream(1, n, slice(0, n)), n)
    actions = np.random.default_rng(0).integers(4, size=(120, n))
    env = family.make_vec(whole, SlicedStream(2, n, slice(0, n)))
    env.reset()
    expected = play(env, actions)[:4]
    for share in (slice(0, cut), slice(cut, n)):
        parameters = family.sample(SlicedStream(1, n, share), share.stop - share.start)
        assert all(parameters[key].tobytes() == whole[key][share].tobytes() for key in whole)
        env = family.make_vec(parameters, SlicedStream(2, n, share))
        env.reset()
        for found, column in zip(play(env, actions[:, share])[:4], expected, strict=True):
            assert found.tobytes() == column[:, share].tobytes()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_new_step_leaves_earlier_results_alone(variant):
    env = make(DIRECTIONS, DIAGONAL, variant=variant, max_episode_len=20)
    kept, copies = [], []
    for _ in range(50):
        *results, infos = env.step(np.array([RIGHT, UP]))
        kept += [*results, *(infos[k] for k in ("final_obs", "_final_obs") if k in infos)]
        copies += [array.copy() for array in kept[len(copies) :]]
    assert len(kept) > 200
    assert all(np.array_equal(now, then) for now, then in zip(kept, copies, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_farthest_point_is_in_the_observation_space(variant):
    env = make(DIAGONAL, -DIAGONAL, variant=variant, observe_velocity=variant == "released")
    for _ in range(200):
        observations, *_, infos = env.step(np.zeros(2, int))
        assert observations in env.observation_space
        assert "final_obs" not in infos or infos["final_obs"] in env.observation_space


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sizes", [{"variant": "paper"}, {"num_actions": 5, "observe_velocity": True}])
def test_gymnasium_checker_is_content(sizes):
    check_env(ParticleEnv(**sizes), skip_render_check=True)


def test_the_single_env_waits_for_a_reset():
    env = ParticleEnv(parameters={"moves": DIAGONAL[None], "group": np.arange(1)}, variant="paper")
    env.reset()
    assert [env.step(0)[2] for _ in range(20)] == [False] * 19 + [True]
    with pytest.raises(ResetNeeded):
        env.step(0)
    with pytest.raises(ResetNeeded):
        ParticleVectorEnv(3).step(np.zeros(3, int))
