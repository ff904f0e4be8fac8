"""What the heterogeneous families have in common."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from envs import EnvError, Population, make_family
from envs.validate_env import check_repeats, play_env, play_vector_env
from tests.helpers.shared_stream import SlicedStream

LENGTHS = {"mountain_car": 500, "cart_pole": 200, "half_cheetah_body": 1000}
NAMES = list(LENGTHS)
IDS = [f"Heterogeneous{name}-v0" for name in ("MountainCar", "CartPole", "HalfCheetah")]


def random_actions(family, shape, seed=0):
    rng, space = np.random.default_rng(seed), family.action_space
    if isinstance(space, gymnasium.spaces.Discrete):
        return rng.integers(space.n, size=shape)
    return rng.uniform(space.low, space.high, (*shape, *space.shape)).astype(np.float32)


def make(name, n, **sizes):
    family = make_family(name, **sizes)
    env = family.make_vec(family.sample(np.random.default_rng(0), n), np.random.default_rng(1))
    env.reset()
    return family, env


def play(env, actions):
    """Each step's arrays, with final observations where there are any, as bytes."""
    steps = []
    for row in actions:
        *arrays, infos = env.step(row)
        arrays += [infos[key] for key in ("final_obs", "_final_obs") if key in infos]
        steps.append([array.tobytes() for array in arrays])
    return steps


@pytest.mark.parametrize("name", NAMES)
def test_the_contract_of_users_environments_holds(name):
    family = make_family(name, max_episode_len=10)
    parameters = family.check(family.sample(np.random.default_rng(0), 3))
    rng = np.random.default_rng
    check_repeats(name, lambda: play_vector_env(name, family.make_vec(parameters, rng(0)), 3))


@pytest.mark.filterwarnings("ignore:.*infinity. This is probably too")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("id", IDS)
def test_gymnasium_is_content(id):
    check_env(gymnasium.make(id).unwrapped, skip_render_check=True)
    play_env(id, gymnasium.make(id, max_episode_len=10).unwrapped)
    vector = gymnasium.make_vec(id, num_envs=2, max_episode_len=10)
    assert vector.reset(seed=0)[0] in vector.observation_space


@pytest.mark.parametrize("name", NAMES)
def test_agents_and_covariates_of_the_paper(name):
    family = make_family(name)
    assert family.max_episode_len == LENGTHS[name]
    for n, agents in ((5, family.test_agents), (None, family.behaviour_agents)):
        agents = family.check(agents)
        assert list(agents) == list(family.covariates) and n in (None, *map(len, agents.values()))
        for column, (low, high) in zip(agents.values(), family.covariates.values(), strict=True):
            assert (low <= column).all() and (column <= high).all()
    tested = set(zip(*family.test_agents.values(), strict=True))
    assert tuple(family.default.values()) in tested and len(tested) == 5
    drawn = family.sample(np.random.default_rng(0), 4000)
    for key, (low, high) in family.covariates.items():
        share = (drawn[key] - low) / (high - low)
        assert share.min() >= 0 and share.max() <= 1 and np.diff(np.sort(share)).max() < 0.01
    assert Population(name, family.test_agents)[1:3].parameters.keys() == family.covariates.keys()


@pytest.mark.parametrize("name", NAMES)
def test_starts_are_those_of_the_paper(name):
    start = make_family(name).start(np.random.default_rng(0), 4000)
    if name == "mountain_car":
        assert -0.6 <= start[:, 0].min() < -0.599 and -0.401 < start[:, 0].max() <= -0.4
        assert (start[:, 1] == 0).all()
    elif name == "cart_pole":
        assert abs(start).max() <= 0.05 and (start.min(0) < -0.049).all() and (start.max(0) > 0.049).all()
    else:
        assert (start[:, 0] == 0).all()
        np.testing.assert_allclose(start[:, 1:].std(0), 0.001, rtol=0.1)
        assert abs(start[:, 1:].mean(0)).max() < 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_any_leading_axes_are_rows_of_one_batch(name):
    family = make_family(name)
    state = family.start(np.random.default_rng(0), 24)
    actions, agents = random_actions(family, (24,)), family.sample(np.random.default_rng(1), 3)
    kept = state.copy()
    rows = family.advance(state, actions, {key: column.repeat(8) for key, column in agents.items()})
    shape = (2, 3, 4)
    state, actions = state.reshape(3, 2, 4, -1), actions.reshape(3, 2, 4, *actions.shape[1:])
    together = family.advance(
        state.swapaxes(0, 1), actions.swapaxes(0, 1), {key: column[:, None] for key, column in agents.items()}
    )
    assert together.shape == (*shape, rows.shape[1])
    assert np.array_equal(together.swapaxes(0, 1).reshape(rows.shape), rows)
    assert np.array_equal(state.reshape(kept.shape), kept)  # what was given is left alone
    one = {key: column[0] for key, column in agents.items()}
    assert np.array_equal(family.advance(kept[0], actions[0, 0, 0], one), rows[0])


@pytest.mark.parametrize("name", NAMES)
def test_rewards_and_ends_of_tensors_are_those_of_arrays(name):
    family = make_family(name)
    rng = np.random.default_rng(0)
    state, after = 0.5 * rng.standard_normal((2, 3, 5, 7, len(family.state_names)))
    actions = random_actions(family, (3, 5, 7)).astype(np.float64)
    arrays = family.reward(state, actions, after), family.terminated(after)
    tensors = [torch.from_numpy(array) for array in (state, actions, after)]
    reward, ended = family.reward(*tensors), family.terminated(tensors[2])
    np.testing.assert_allclose(reward.numpy(), arrays[0], rtol=1e-12)
    assert ended.dtype == torch.bool and arrays[1].dtype == bool and reward.shape == (3, 5, 7)
    assert np.array_equal(ended.numpy(), arrays[1])
    assert arrays[1].any() != (name == "half_cheetah_body") and not arrays[1].all()


@pytest.mark.parametrize("name", NAMES)
def test_the_vector_env_follows_the_familys_functions(name):
    family, env = make(name, 6, max_episode_len=15)
    lengths, elapsed = set(), np.zeros(6, int)
    for row in random_actions(family, (40, 6)):
        before = env.state.copy()
        observations, rewards, terminated, truncated, infos = env.step(row)
        after, elapsed = family.advance(before, row, env.parameters), elapsed + 1
        assert np.array_equal(rewards, family.reward(before, row, after).astype(np.float32))
        assert np.array_equal(terminated, family.terminated(after))
        assert np.array_equal(truncated, (elapsed == 15) & ~terminated)
        ended = terminated | truncated
        assert np.array_equal(observations[~ended], after[~ended].astype(np.float32))
        if ended.any():
            assert np.array_equal(infos["final_obs"], after.astype(np.float32))
            lengths |= set(elapsed[ended].tolist())
            assert (abs(observations[ended] - after[ended]) > 0).any(axis=1).all()
        elapsed[ended] = 0
    assert (len(lengths) > 2) == (name == "cart_pole") and (max(lengths) == 15 or name == "cart_pole")


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_state_continues_bit_for_bit(name):
    family, env = make(name, 4, max_episode_len=30)
    actions = random_actions(family, (25, 4))
    play(env, actions[:10])
    state = env.get_state()
    env.rng = np.random.default_rng(5)
    expected = play(env, actions[10:])
    other = family.make_vec(env.parameters, np.random.default_rng(5))
    assert np.array_equal(other.set_state(state), state["state"].astype(np.float32))
    assert play(other, actions[10:]) == expected
    env.rng = np.random.default_rng(5)
    env.set_state(state)
    assert play(env, actions[10:]) == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", [0, 2])
def test_shares_of_ranks_are_rows_of_the_whole(name, cut):
    """Also where the ranks' episodes end at different times."""
    family, n = make_family(name, max_episode_len=40), 6
    whole, actions = family.sample(SlicedStream(1, n, slice(0, n)), n), random_actions(family, (60, n))

    def shown(share):
        size = share.stop - share.start
        parameters = family.sample(SlicedStream(1, n, share), size)
        assert all(parameters[key].tobytes() == whole[key][share].tobytes() for key in whole)
        env = family.make_vec(parameters, SlicedStream(2, n, share))
        observations = [env.reset()[0]] + [env.step(row)[0] for row in actions[:, share]]
        return np.array(observations)

    expected = shown(slice(0, n))
    for share in (slice(0, cut), slice(cut, n)):
        assert np.array_equal(shown(share), expected[:, share])


@pytest.mark.parametrize("name", NAMES)
def test_the_single_env_is_the_vector_env_with_one_task(name):
    family, vector = make(name, 1, max_episode_len=12)
    id = IDS[NAMES.index(name)]
    single = gymnasium.make(id, parameters=vector.parameters, max_episode_len=12).unwrapped
    vector.rng = None
    observation, observations = single.reset(seed=7)[0], vector.reset(seed=7)[0]
    for row in random_actions(family, (20, 1)):
        assert np.array_equal(observation, observations[0])
        observation, reward, *ends, _ = single.step(row[0])
        observations, rewards, *all_ends, infos = vector.step(row)
        assert reward == rewards[0] and ends == [flags[0] for flags in all_ends]
        if any(ends):
            assert np.array_equal(observation, infos["final_obs"][0])
            observation = single.reset()[0]
            break


def test_a_new_step_leaves_earlier_results_alone():
    _, env = make("cart_pole", 5, max_episode_len=20)
    kept = []
    for row in np.random.default_rng(0).integers(2, size=(60, 5)):
        *arrays, infos = env.step(row)
        kept += [*arrays, *(infos[key] for key in ("final_obs", "_final_obs") if key in infos)]
    _, env = make("cart_pole", 5, max_episode_len=20)
    copies = play(env, np.random.default_rng(0).integers(2, size=(60, 5)))
    assert [array.tobytes() for array in kept] == [array for step in copies for array in step]


def poles(n):
    return make("cart_pole", n)[1]


def check(name, **parameters):
    make_family(name).check(parameters)


@pytest.mark.parametrize(
    "mistake, text",
    [
        (lambda: make_family("cart_pole", max_episode_len=0), "max_episode_len is 0; give"),
        (lambda: make_family("mountain_car", gravity=1), "no setting 'gravity'"),
        (lambda: check("cart_pole", force=np.ones(2)), r"takes \['force', 'length'\]"),
        (lambda: check("mountain_car", gravity=np.ones((2, 1))), r"shape \[2, 1\]; give \[2\]"),
        (lambda: check("mountain_car", gravity=[0.1, np.nan]), "task 1 is not finite"),
        (lambda: check("mountain_car", gravity=[0.1, 0]), "gravity of task 1 is 0.0; give a positive"),
        (lambda: poles(2).step(np.array([0, 2])), "whole numbers in 0..1"),
        (lambda: make("half_cheetah_body", 1)[1].step(np.full((1, 6), np.nan)), "must be finite"),
        (lambda: poles(2).set_state(poles(3).get_state()), "3 rows for 2"),
        (lambda: poles(2).set_state(make("mountain_car", 2)[1].get_state()), r"\[2, 2\]; give \[2, 4\]"),
        (lambda: poles(2).set_state({"state": np.zeros((2, 4))}), r"takes \['elapsed', 'state'\]"),
        (lambda: poles(1).set_state({"state": np.zeros((1, 4)), "elapsed": [200]}), "numbers in 0..199"),
    ],
)
def test_mistakes_are_refused_in_one_line(mistake, text):
    with pytest.raises(EnvError, match=text) as caught:
        mistake()
    assert "\n" not in str(caught.value)


def test_order_of_calls_is_enforced():
    family = make_family("cart_pole")
    for env in (family.make_vec(family.test_agents), gymnasium.make_vec(IDS[1], num_envs=2)):
        with pytest.raises(ResetNeeded):
            env.step(np.zeros(env.num_envs, int))
        with pytest.raises(ResetNeeded):
            env.unwrapped.get_state()
    with pytest.raises(ResetNeeded):
        env.unwrapped.set_state({"state": np.zeros((2, 4)), "elapsed": [0, 0]})
