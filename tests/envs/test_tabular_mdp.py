import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import EnvError, make_family

# Two states, two actions: action 0 stays, action 1 moves to the other state.
TRANSITION = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]]], np.float32)
REWARD_MEAN = np.array([[1, 2], [3, 4]], np.float32)


def two_tasks(**sizes):
    """The task above, and its mirror image in which the actions are exchanged."""
    parameters = {
        "transition": np.stack([TRANSITION, TRANSITION[:, ::-1]]),
        "reward_mean": np.stack([REWARD_MEAN, REWARD_MEAN[:, ::-1] * 10]),
    }
    return make_family("tabular_mdp", num_states=2, num_actions=2, **sizes).make_vec(parameters)


def test_transitions_and_rewards_by_hand():
    env = two_tasks(max_episode_len=4, noise_scale=0.0)
    assert env.reset(seed=0)[0].tolist() == [0, 0]
    observations, rewards, *_ = env.step(np.array([1, 1]))  # task 0 moves and earns r[0, 1]; task 1 stays
    assert observations.tolist() == [1, 0] and rewards.tolist() == [2, 10]
    observations, rewards, *_ = env.step(np.array([0, 0]))  # task 0 stays and earns r[1, 0]; task 1 moves
    assert observations.tolist() == [1, 1] and rewards.tolist() == [3, 20]
    observations, rewards, *_ = env.step(np.array([1, 1]))  # task 0 returns; task 1 stays in state 1
    assert observations.tolist() == [0, 1] and rewards.tolist() == [4, 30]


def test_the_time_limit_truncates_and_resets_in_the_same_step():
    env = two_tasks(max_episode_len=2, noise_scale=0.0)
    env.reset(seed=0)
    for _ in range(3):
        *_, terminated, truncated, infos = env.step(np.array([1, 0]))
        assert not terminated.any() and not truncated.any() and infos == {}
        observations, _, terminated, truncated, infos = env.step(np.array([0, 1]))
        assert truncated.all() and not terminated.any()
        assert infos["final_obs"].tolist() == [1, 1] and infos["_final_obs"].all()
        assert observations.tolist() == [0, 0]  # the next episode has begun in state 0
        assert observations.dtype == np.int64


def test_a_new_step_leaves_earlier_results_alone():
    env = two_tasks()
    kept = [env.reset(seed=0)[0], *env.step(np.array([1, 0]))[:4]]
    copies = [array.copy() for array in kept]
    for _ in range(25):
        env.step(np.array([1, 1]))
    assert all(np.array_equal(now, then) for now, then in zip(kept, copies, strict=True))


def test_sampled_tasks_follow_the_paper():
    n, S, A = 400, 10, 5
    parameters = make_family("tabular_mdp").sample(np.random.default_rng(1), n)
    transition, reward_mean = parameters["transition"], parameters["reward_mean"]
    assert transition.shape == (n, S, A, S) and reward_mean.shape == (n, S, A)
    assert transition.dtype == reward_mean.dtype == np.float32
    np.testing.assert_allclose(transition.sum(axis=-1), 1, atol=1e-5)
    # Flat Dirichlet over S: each component is Beta(1, S - 1).
    rows, variance = n * S * A, (S - 1) / (S**2 * (S + 1))
    assert abs(transition.reshape(-1, S).mean(axis=0) - 1 / S).max() < 4.5 * np.sqrt(variance / rows)
    assert abs(transition.var() / variance - 1) < 0.03
    assert abs(np.mean(transition < 0.1) - (1 - 0.9**9)) < 0.01  # the distribution function of Beta(1, 9)
    assert abs(reward_mean.mean() - 1) < 4 / np.sqrt(rows)
    assert abs(reward_mean.var() - 1) < 4 * np.sqrt(2 / rows)


def test_steps_follow_the_task():
    family = make_family("tabular_mdp", num_states=4, num_actions=3, max_episode_len=1)
    parameters = family.sample(np.random.default_rng(2), 1)
    copies = {name: np.repeat(array, 20_000, axis=0) for name, array in parameters.items()}
    env = family.make_vec(copies, np.random.default_rng(5))
    env.reset()
    for action in range(3):
        *_, infos = result = env.step(np.full(20_000, action))
        expected = parameters["transition"][0, 0, action]
        found = np.bincount(infos["final_obs"], minlength=4) / 20_000
        assert (abs(found - expected) < 4.5 * np.sqrt(expected * (1 - expected) / 20_000) + 1e-6).all()
        noise = result[1] - parameters["reward_mean"][0, 0, action]
        assert abs(noise.mean()) < 4 / np.sqrt(20_000) and abs(noise.var() - 1) < 4 * np.sqrt(2 / 20_000)


@given(st.integers(0, 4), st.integers(1, 8), st.integers(0, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_impossible_states_are_never_entered(before, possible, after, seed):
    """Also where rounding leaves the sum of a row below 1 and the first or last states are impossible."""
    rng, num_states = np.random.default_rng(seed), before + possible + after
    transition = rng.random((50, num_states, 1, num_states)).astype(np.float32)
    transition[..., :before] = transition[..., before + possible :] = 0
    transition /= transition.sum(axis=-1, keepdims=True)
    family = make_family("tabular_mdp", num_states=num_states, num_actions=1)

    class Highest:
        """Draws the largest number below 1, the worst case."""

        def random(self, n, dtype):
            return np.full(n, np.nextafter(dtype(1), dtype(0)))

        def standard_normal(self, n, dtype):
            return np.zeros(n, dtype)

    for draws in (Highest(), rng):
        env = family.make_vec({"transition": transition, "reward_mean": np.zeros((50, num_states, 1))}, draws)
        state, _ = env.reset()
        for _ in range(9):
            next_state = env.step(np.zeros(50, int))[0]
            assert (transition[np.arange(50), state, 0, next_state] > 0).all()
            state = next_state


@pytest.mark.parametrize("actions", [[0, 2], [0, -1], [0.0, 1.0], [0], [[0, 1]]])
def test_actions_outside_the_space_are_refused(actions):
    env = two_tasks()
    env.reset(seed=0)
    with pytest.raises(EnvError, match="actions"):
        env.step(np.array(actions))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"transition": TRANSITION[None] * 0.9}, "does not sum to 1"),
        ({"transition": np.stack([TRANSITION] * 2)}, "1 rows for 2 tasks"),
        ({"reward_mean": REWARD_MEAN[None, :, :1]}, r"shape \[1, 2, 1\]; give \[1, 2, 2\]"),
        ({"reward_mean": np.full((1, 2, 2), np.nan)}, "of task 0 is not finite"),
        ({"extra": np.zeros(1)}, "it takes"),
    ],
)
def test_wrong_parameters_are_refused(change, message):
    parameters = {"transition": TRANSITION[None], "reward_mean": REWARD_MEAN[None], **change}
    with pytest.raises(EnvError, match=message) as caught:
        make_family("tabular_mdp", num_states=2, num_actions=2).make_vec(parameters)
    assert "\n" not in str(caught.value)
