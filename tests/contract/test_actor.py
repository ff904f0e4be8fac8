"""What every actor answers (common/protocols.py)."""

import numpy as np
import pytest

from common.rollout import play

STEPS = 5


@pytest.fixture(scope="module")
def history(run):
    """What an actor is given in STEPS steps of its agents' environments, which take random actions."""
    env = run.env()
    space = run.problem.family.action_space
    space.seed(0)
    given = [(np.array(env.reset()[0]), None, None)]
    for _ in range(STEPS - 1):
        action = np.stack([np.asarray(space.sample()) for _ in range(env.num_envs)])
        observation, reward, terminated, truncated, _ = env.step(action)
        given.append((np.array(observation), np.array(reward), np.logical_or(terminated, truncated)))
    return given


def replay(actor, history, running=None):
    """The actions `[T, num, ...]` of an actor that begins anew."""
    actor.reset(len(history[0][0]))
    return np.array([np.array(actor.act(*given, running)) for given in history])


def test_actions_are_what_environments_take(run, history):
    space, found = run.problem.family.action_space, replay(run.actor(), history)
    assert found.shape == (STEPS, len(history[0][0]), *space.shape)
    for action in found.reshape(-1, *space.shape):
        assert space.contains(action.astype(space.dtype) if space.shape else np.int64(action)), action
    assert np.can_cast(found.dtype, space.dtype, "same_kind")


def test_reset_begins_anew(run, history):
    """An actor remembers nothing of what it did before, nor does another one act in another way."""
    actor = run.actor()
    found = replay(actor, history)
    assert np.array_equal(replay(actor, history), found)
    assert np.array_equal(replay(run.actor(), history), found)


def test_rows_do_not_see_each_other(run, history):
    actor = run.actor()
    found = replay(actor, history)
    turned = [
        tuple(part if part is None else np.concatenate([part[:1], part[:0:-1]]) for part in given)
        for given in history
    ]
    assert np.array_equal(replay(actor, turned)[:, 0], found[:, 0])


def test_running_is_a_hint(run, history):
    """Rows whose action will be used get the same one, whether or not the others are known to be over."""
    actor, running = run.actor(), np.arange(len(history[0][0])) % 2 == 0
    found = replay(actor, history)
    assert np.array_equal(replay(actor, history, running)[:, running], found[:, running])


def test_rows_act_for_the_agents_in_turn(run, history):
    """Row i acts for agent `i % n`: of twice as many rows each half does what they did."""
    actor, num = run.actor(), len(history[0][0])
    twice = [tuple(part if part is None else np.concatenate([part, part]) for part in h) for h in history]
    found, expected = replay(actor, twice), replay(actor, history)
    for half in (found[:, :num], found[:, num:])[: 1 if run.case.numbered else 2]:
        np.testing.assert_allclose(half, expected, rtol=1e-4, atol=1e-5)  # sums may go in another order


def test_a_stored_run_acts_as_its_learner(run):
    agents = run.agents if run.case.adapts else None
    loaded = run.case.load(run.folder, agents, **run.case.options, **run.case.loading)
    ours, theirs = (play(run.env(), actor, 8) for actor in (run.actor(), loaded))
    assert np.array_equal(ours.returns, theirs.returns) and np.array_equal(ours.lengths, theirs.lengths)


def test_some_of_the_agents(run, history):
    """Rows act for the agents that were asked for, as they do among all unless something is drawn."""
    if run.agents is None:
        pytest.skip("acts for any agents")
    some = np.array([2, 0])
    given = [tuple(part if part is None else part[some] for part in step) for step in history]
    found = replay(run.trained().actor(some, **run.case.options), given)
    assert found.shape[1] == len(some)
    if not run.case.adapts and not run.case.numbered:
        assert np.array_equal(found, replay(run.actor(), history)[:, some])
