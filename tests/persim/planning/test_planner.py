"""Random shooting and the cross-entropy method on systems whose best plan is known."""

import dataclasses

import numpy as np
import pytest
import torch

from common.errors import UserError
from envs import make_family
from persim.planning.planner import AUTHORS, Settings, bounded_normal, make_planner
from persim.planning.true_dynamics import TrueModel
from tests.persim.toys import Drift, Members, Walk

SEARCH = Settings(horizon=3, num_candidates=400, num_elites=20, num_rounds=10)


def act(planner, model, state, episodes=None):
    episodes = np.arange(len(state)) if episodes is None else np.asarray(episodes)
    return planner.plan(model, episodes, np.asarray(state, float), episodes)


def test_shooting_finds_the_best_of_all_sequences():
    """Three steps have 27 sequences: 400 draws have them all. The walk should stand still at 2."""
    planner = make_planner(Walk(), 4, 0, Settings(horizon=3, num_candidates=400))
    for _ in range(3):
        assert act(planner, Members(), [[-1.0], [1.0], [2.0], [2.9]]).tolist() == [2, 2, 1, 0]
    planner = make_planner(Walk(), 1, 0, Settings(horizon=3, num_candidates=400))
    assert act(planner, Members((1.0, 3.0, 3.0)), [[1.0]]).tolist() == [1], "most members would overshoot"


def test_the_best_sequence_is_kept_and_moved_on():
    """With one candidate, which is that of the step before, the first plan is carried out."""
    planner = make_planner(Walk(), 3, 0, Settings(horizon=6, num_candidates=1))
    actions = [act(planner, Members(), np.zeros((3, 1)))]
    first = planner.best.copy()
    actions += [act(planner, Members(), np.zeros((3, 1))) for _ in range(5)]
    assert np.array_equal(np.stack(actions, 1), first)
    assert len(np.unique(first, axis=0)) == 3, "each episode has candidates of its own"


def test_an_episode_that_leaves_does_not_move_the_others():
    planner = make_planner(Walk(), 3, 0, Settings(horizon=4, num_candidates=1))
    act(planner, Members(), np.zeros((3, 1)))
    first = planner.best.copy()
    assert act(planner, Members(), np.zeros((2, 1)), [0, 2]).tolist() == first[[0, 2], 1].tolist()
    assert np.array_equal(planner.best[1], first[1])


@pytest.mark.parametrize("family", [Walk(), Drift(2.0)], ids=["shooting", "cross_entropy"])
@pytest.mark.parametrize("group", [[0], [4], [1, 3], [0, 1, 2, 3, 4]])
def test_a_plan_does_not_depend_on_its_neighbours(family, group):
    settings = Settings(horizon=5, num_candidates=8, num_elites=3)
    state = np.linspace(-3, 3, 5)[:, None]
    alone, together = make_planner(family, 5, 7, settings), make_planner(family, 9, 7, settings)
    for _ in range(3):
        apart = act(alone, Members((1.0, 0.7)), state[group], group)
        assert np.array_equal(apart, act(together, Members((1.0, 0.7)), state)[group])


def test_a_search_that_can_stop_finds_the_same():
    family = make_family("cart_pole")
    model = TrueModel(family, family.test_agents)
    settings = dataclasses.replace(AUTHORS["cart_pole"], horizon=25, num_candidates=64)
    state = np.array([[0.0, 0, 0, 0], [0, 0, 0.1, 0.2], [0, 0, 0, 0.5], [2.3, 1, 0, 0], [0, 0, 0.15, 1.0]])
    stopping = make_planner(family, 5, 0, settings)
    full = make_planner(family, 5, 0, dataclasses.replace(settings, most=np.inf))
    for _ in range(4):
        assert np.array_equal(act(stopping, model, state), act(full, model, state))
        assert np.array_equal(stopping.best, full.best)


def test_cross_entropy_reaches_a_goal_and_stays_there():
    """From 0 the goal 2 is one step away: actions 2, 0, 0."""
    planner = make_planner(Drift(2.0), 1, 0, SEARCH)
    assert act(planner, Members((0.9, 1.1)), [[0.0]])[0, 0] == pytest.approx(2, abs=0.1)
    assert act(planner, Members((0.9, 1.1)), [[2.0]])[0, 0] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("goal, bound", [(50.0, 3.0), (-50.0, -1.0)])
def test_cross_entropy_stays_within_the_bounds(goal, bound):
    planner = make_planner(Drift(goal), 4, 0, SEARCH)
    actions = act(planner, Members(), np.zeros((4, 1)))
    assert (actions >= -1).all() and (actions <= 3).all()
    assert actions[:, 0] == pytest.approx(np.full(4, bound), abs=0.1)


def test_cross_entropy_goes_on_from_its_last_mean():
    planner = make_planner(Drift(2.0), 2, 0, SEARCH)
    act(planner, Members(), np.zeros((2, 1)))
    assert planner.mean[:, -1] == pytest.approx(np.zeros((2, 1))), "the last one is new"
    assert planner.mean[:, 0, 0] == pytest.approx([-0.5, -0.5], abs=0.1), "to stay is action 0 of -1..3"


def test_bounded_draws_are_those_of_drawing_again():
    rng = np.random.default_rng(0)
    ours = bounded_normal(np.full((1,), 0.8), np.full((1,), 0.5), rng.random(200_000))
    normal = 0.8 + 0.5 * rng.standard_normal(400_000)
    kept = normal[np.abs(normal) <= 1]
    assert np.abs(ours).max() <= 1
    assert np.quantile(ours, [0.05, 0.3, 0.7, 0.95]) == pytest.approx(
        np.quantile(kept, [0.05, 0.3, 0.7, 0.95]), abs=0.01
    )
    narrow = bounded_normal(np.ones(1), np.full(1, 1e-7), np.array([1e-9, 0.5, 1 - 1e-9]))
    assert narrow == pytest.approx(np.ones(3), abs=1e-5)


@pytest.mark.parametrize("wrong", [{"horizon": 0}, {"num_candidates": 0}, {"num_elites": 2000}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        make_planner(Drift(0.0), 1, 0, Settings(**wrong))


def test_unbounded_actions_are_refused():
    family = Drift(0.0)
    family.action_space = type(family.action_space)(-np.inf, np.inf, (1,), np.float32)
    with pytest.raises(UserError, match="bounded"):
        make_planner(family, 1, 0)


def test_the_true_model_is_the_environment():
    for name in ("mountain_car", "cart_pole"):
        family = make_family(name)
        rng, agents = np.random.default_rng(0), np.array([4, 0, 4])
        state = family.start(rng, 6).reshape(3, 2, -1)
        action = rng.integers(0, family.action_space.n, (3, 2))
        parameters = {key: values[agents, None] for key, values in family.test_agents.items()}
        wanted = family.advance(state, action, parameters)
        model = TrueModel(family, family.test_agents).at(agents)
        found = model.step(torch.from_numpy(state.astype(np.float32))[None], torch.from_numpy(action))
        assert found.shape == (1, *state.shape)
        assert found[0].numpy() == pytest.approx(wanted, abs=1e-6)
