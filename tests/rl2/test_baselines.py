import numpy as np
import pytest

from envs import make_family
from rl2 import bandit_baselines, mdp_baselines
from rl2.baselines import BANDITS, MDPS, make_baseline
from rl2.rollout import play_meta_episodes


def run(name, family, num_steps, instances=1000, seed=0, **settings):
    """Total rewards [instances] and the baseline after play, on tasks that depend on the seed only."""
    tasks = family.sample(np.random.default_rng([seed, 0]), instances)
    rng = np.random.default_rng([seed, 1])
    env = family.make_vec(tasks, np.random.default_rng(int(rng.integers(2**31))))
    baseline = make_baseline(name, tasks, num_steps, rng=rng, **settings)
    rewards, _ = play_meta_episodes(env, baseline, num_steps)
    assert rewards.dtype == np.float32 and rewards.shape == (num_steps, instances)
    return rewards.sum(axis=0), baseline


ENDED = np.ones(2, bool)

# --- beliefs


def test_bandit_posterior_by_hand():
    baseline = bandit_baselines.Greedy(3, horizon=10)
    baseline.reset(2)
    nowhere = np.zeros(2, int)
    for action, reward in (([0, 2], [1, 0]), ([0, 1], [0, 1]), ([0, 1], [1, 1])):
        baseline.observe(nowhere, np.array(action), np.array(reward, np.float32), nowhere, ENDED)
    np.testing.assert_allclose(
        baseline.posterior_mean(), [[3 / 5, 1 / 2, 1 / 2], [1 / 2, 3 / 4, 1 / 3]], rtol=1e-6
    )
    assert baseline.act(nowhere).tolist() == [0, 1]


def test_mdp_posterior_by_hand():
    baseline = mdp_baselines.Greedy(2, 1, episode_length=2, prior_mean=1.0, prior_weight=1.0)
    baseline.reset(2)
    zero = np.zeros(2, int)
    baseline.observe(zero, zero, np.array([3, 0], np.float32), np.array([1, 0]), ~ENDED)
    assert baseline.step == 1
    baseline.observe(zero, zero, np.array([5, 0], np.float32), np.array([1, 1]), ENDED)
    assert baseline.step == 0 and baseline.episode == 1
    np.testing.assert_allclose(baseline.reward[0, 0], [(1 + 3 + 5) / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(baseline.transition[0, 0].T, [[1 / 4, 3 / 4], [1 / 2, 1 / 2]], rtol=1e-6)
    np.testing.assert_allclose(baseline.transition[1, 0].T, [[1 / 2, 1 / 2]] * 2)


def test_the_state_reached_last_is_counted_not_the_state_after_the_reset():
    # From state 0 all lead to state 1 and from there to state 1: nothing ever arrives in state 0.
    transition = np.zeros((4, 2, 2, 2), np.float32)
    transition[..., 1] = 1
    tasks = {"transition": transition, "reward_mean": np.ones((4, 2, 2), np.float32)}
    family = make_family("tabular_mdp", num_states=2, num_actions=2, max_episode_len=3)
    env = family.make_vec(tasks, np.random.default_rng(0))
    baseline = make_baseline("greedy", tasks, 30, 3, prior_weight=1.0)
    play_meta_episodes(env, baseline, 30)
    assert baseline.visits.sum() == 4 * 30 and baseline.episode == 10
    assert np.all(baseline.counts[:, :, 0] == 1)


def test_thompson_draws_have_the_posterior_mean_and_the_right_density():
    baseline = bandit_baselines.Thompson(2, 10, rng=np.random.default_rng(0))
    baseline.reset(40_000)
    baseline.pulls[:], baseline.wins[:] = (7, 0), (5, 0)  # Beta(6, 3) and Beta(1, 1)
    means, density = baseline.draw()
    np.testing.assert_allclose(means.mean(0), [6 / 9, 1 / 2], atol=0.006)
    np.testing.assert_allclose(means.var(0), [18 / 810, 1 / 12], rtol=0.05)
    np.testing.assert_allclose(density, 5 * np.log(means[:, 0]) + 2 * np.log(1 - means[:, 0]), atol=2e-3)


# --- many at once


@pytest.mark.parametrize("name", ["greedy", "greedy_replanned", "beb_replanned", "ucrl2", "beb"])
def test_mdps_together_or_one_by_one(name):
    rng = np.random.default_rng(1)
    rewards = rng.normal(0, 1, (40, 6)).astype(np.float32)
    states = rng.integers(4, size=(41, 6))
    states[::5] = 0

    def actions(columns):
        baseline, chosen = MDPS[name](4, 3, 5), []
        baseline.reset(len(columns))
        for t in range(40):
            chosen.append(baseline.act(states[t, columns]))
            done = np.full(len(columns), t % 5 == 4)
            baseline.observe(
                states[t, columns], chosen[-1], rewards[t, columns], states[t + 1, columns], done
            )
        return np.stack(chosen)

    together = actions(np.arange(6))
    assert len(np.unique(together)) > 1
    np.testing.assert_array_equal(together, np.hstack([actions(np.array([i])) for i in range(6)]))


@pytest.mark.parametrize("name", ["greedy", "ucb1", "gittins"])
def test_bandits_together_or_one_by_one(name):
    rewards = np.random.default_rng(1).integers(2, size=(30, 6)).astype(np.float32)

    def actions(columns):
        baseline, chosen = BANDITS[name](4, 30), []
        baseline.reset(len(columns))
        for t in range(30):
            chosen.append(baseline.act(None))
            baseline.observe(None, chosen[-1], rewards[t, columns], None, None)
        return np.stack(chosen)

    together = actions(np.arange(6))
    assert len(np.unique(together)) == 4
    np.testing.assert_array_equal(together, np.hstack([actions(np.array([i])) for i in range(6)]))


def test_replanned_greedy_looks_no_further_than_the_end_of_the_episode():
    # Action 0 gives 1 and stays in state 0; action 1 gives 0 and leads to state 1, where everything gives 3.
    expert = mdp_baselines.GreedyReplanned(2, 2, episode_length=3)
    expert.reset(1)
    expert.transition[...] = np.array([[[1, 0], [0, 1]], [[0, 1], [0, 1]]], np.float32)[..., None]
    expert.reward[...] = np.array([[1, 0], [3, 3]], np.float32)[..., None]
    actions = []
    for expert.step in range(3):
        actions.append(int(expert.act(np.zeros(1, int))[0]))
    assert actions == [1, 1, 0]


def test_a_bonus_leads_to_what_was_not_tried():
    greedy, curious = mdp_baselines.GreedyReplanned(2, 2, 3), mdp_baselines.BEBReplanned(2, 2, 3, scale=0.0)
    for expert in (greedy, curious):
        expert.reset(1)
        expert.visits[0, 0], expert.reward[0, 0] = 3, 1.2  # the other action is believed to give 1
    here = np.zeros(1, int)
    assert greedy.act(here) == curious.act(here) == 0
    curious.scale = 1.0  # 1.2 + 1 / 4 against 1 + 1 / 1
    assert curious.act(here) == 1


# --- the paper's tables (Duan et al. 2016)

BANDIT_10_5 = {
    "random": 5.0,
    "gittins": 6.6,
    "thompson": 5.7,
    "optimistic_thompson": 6.5,
    "ucb1": 6.7,
    "epsilon_greedy": 6.6,
    "greedy": 6.6,
}
# Greedy is below the paper's 134.8: its definition is not known, this is ours.
MDP_10 = {
    "random": 100.1,
    "psrl": 138.1,
    "opsrl": 144.1,
    "ucrl2": 146.6,
    "beb": 150.2,
    "epsilon_greedy": 132.8,
    "greedy": 129.5,
    "greedy_replanned": 159.0,
    "beb_replanned": 162.0,
    "oracle": 219.0,
}


@pytest.mark.parametrize("name", BANDIT_10_5)
def test_bandit_means_are_the_papers(name):
    total, _ = run(name, make_family("bandit", num_actions=5), 10)
    assert total.mean() == pytest.approx(BANDIT_10_5[name], abs=0.05 + 3 * 0.07 * np.sqrt(2))


@pytest.mark.parametrize("name", MDP_10)
def test_mdp_means_are_the_papers(name):
    total, _ = run(name, make_family("tabular_mdp"), 100)
    assert total.mean() == pytest.approx(MDP_10[name], abs=3 * 0.8 * np.sqrt(2))


def test_the_tie_rule_of_bandit_greedy_matters():
    family = make_family("bandit", num_actions=50)
    lowest = run("epsilon_greedy", family, 100, epsilon=0.0)[0]
    np.testing.assert_array_equal(lowest, run("greedy", family, 100)[0])
    at_random = run("epsilon_greedy", family, 100, epsilon=0.0, random_ties=True)[0]
    assert lowest.mean() == pytest.approx(78.0, abs=1.6) and at_random.mean() > lowest.mean() + 1


def test_the_true_prior_makes_mdp_greedy_much_stronger():
    family = make_family("tabular_mdp")
    true = run("greedy", family, 100, prior_mean=1.0, prior_weight=1.0)[0]
    assert true.mean() == pytest.approx(150.9, abs=3.5)


@pytest.mark.slow
@pytest.mark.parametrize("family, num_steps", [("bandit", 10), ("tabular_mdp", 100)])
def test_nobody_beats_the_oracle(family, num_steps):
    table, family = (BANDITS if family == "bandit" else MDPS), make_family(family)
    best = run("oracle", family, num_steps)[0]
    for name in table:
        gain = run(name, family, num_steps)[0] - best
        assert gain.mean() <= 3 * gain.std() / np.sqrt(len(gain))


def test_equal_seeds_play_equally():
    family = make_family("tabular_mdp")
    first, again, other = (run("psrl", family, 30, 50, seed)[0] for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_mdps_whose_episodes_end_apart_are_refused():
    baseline = mdp_baselines.Greedy(2, 1, episode_length=2)
    baseline.reset(2)
    zero = np.zeros(2, int)
    with pytest.raises(ValueError, match="only some episodes ended"):
        baseline.observe(zero, zero, np.zeros(2, np.float32), zero, np.array([True, False]))


def test_unknown_baseline_is_one_clear_line():
    with pytest.raises(ValueError, match="no baseline 'psrl' in these tasks: choose one of random, gittins"):
        make_baseline("psrl", {"means": np.zeros((1, 2))}, 10)
