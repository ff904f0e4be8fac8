import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from envs.resource_gathering import ResourceGathering
from rmdp.bounds import CELLS_AT_DISTANCE, WALKS, known_walk_welfare, speed_optimum, walk_bound, walk_welfare

PAPER_NOTES = {1: 74.00, 2: 86.00, 3: 89.28, 5: 91.04, 10: 92.32, 25: 93.56}


def replay(walks):
    """What each of the 25 agents gets from each walk in the real environment, x100."""
    family, walks = ResourceGathering(), walks.split()
    env = family.make_shared(len(walks), seed=0)
    env.reset()
    agents, paid = family.sample(None, 25), np.zeros((len(walks), 25))
    for t in range(max(map(len, walks))):
        moves = np.array(["UDLR".index(walk[t]) if t < len(walk) else 0 for walk in walks])
        step = env.step(moves)
        playing = np.array([t < len(walk) for walk in walks])
        assert np.array_equal(
            step.terminated[playing], [t == len(walk) - 1 for walk in walks if t < len(walk)]
        )
        paid[playing] += 100 * family.rewards(step.outcome, agents)[playing]
    return paid


@pytest.mark.parametrize("num_policies", WALKS)
def test_the_stored_walks_reach_their_welfare_in_the_environment(num_policies):
    paid = replay(WALKS[num_policies])
    assert len(paid) == num_policies
    assert paid.max(axis=0).mean() == pytest.approx(PAPER_NOTES[num_policies], abs=1e-4)
    assert known_walk_welfare(num_policies) == pytest.approx(PAPER_NOTES[num_policies])


def test_the_bound_proves_all_stored_walks_but_those_of_ten_policies():
    assert set(WALKS) == set(PAPER_NOTES)
    bounds = {k: walk_bound(k) for k in WALKS}
    assert bounds == pytest.approx(PAPER_NOTES | {10: 92.40})


def test_the_bound_rises_with_the_budget_until_everyone_has_a_policy():
    bounds = [walk_bound(k) for k in range(1, 28)]
    assert (np.diff(bounds[:25]) > 0).all() and bounds[24:] == [bounds[24]] * 3


def test_cells_at_distance_are_those_of_the_grid():
    row, column = np.divmod(np.arange(25), 5)
    assert np.array_equal(np.bincount(4 - row + abs(column - 2)), CELLS_AT_DISTANCE)


@given(st.lists(st.text("UDLR", min_size=1, max_size=40), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_no_random_walks_exceed_the_bound(walks):
    # Cut where the walk comes home first; one that never does pays nobody.
    home = []
    for walk in walks:
        row, column = 4, 2
        for t, move in enumerate(walk):
            row = min(4, max(0, row + (move == "D") - (move == "U")))
            column = min(4, max(0, column + (move == "R") - (move == "L")))
            if (row, column) == (4, 2):
                home.append(walk[: t + 1])
                break
    if home:
        assert replay(" ".join(home)).max(axis=0).mean() <= walk_bound(len(home)) + 1e-4


def test_welfare_of_walks_by_hand():
    assert walk_welfare("D") == pytest.approx(99 / 25)
    assert walk_welfare("D ULDR") == pytest.approx((99 + 3 * 96) / 25)


def test_the_best_speeds_of_the_papers_populations():
    populations = [np.random.RandomState(seed).uniform(0, 4, 100) for seed in range(10)]
    for num_policies, mean, error in (
        (1, 9.5, 0.36),
        (2, 17.5, 0.43),
        (5, 37.4, 0.67),
        (10, 61.2, 0.53),
        (50, 96.6, 0.10),
    ):
        best = [speed_optimum(targets, num_policies, 0.2) for targets in populations]
        assert round(np.mean(best), 1) == mean
        assert round(np.std(best, ddof=1) / np.sqrt(10), 2) == error


def test_best_speeds_by_hand():
    targets = [3.0, 0.0, 0.5, 1.0]
    # A speed of 0.5 pays the agents at 0, 0.5, 1 half, all, half.
    assert speed_optimum(targets, 1, 1.0) == pytest.approx(100 * 2 / 4)
    assert speed_optimum(targets, 2, 1.0) == pytest.approx(100 * 3 / 4)
    assert speed_optimum(targets, 3, 1.0) == pytest.approx(100 * 3.5 / 4)
    assert speed_optimum(targets, 4, 1.0) == speed_optimum(targets, 9, 1.0) == pytest.approx(100)


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=7),
    st.lists(st.floats(-1, 13), min_size=1, max_size=3),
    st.integers(1, 6),
)
@settings(max_examples=100, deadline=None)
def test_no_speeds_beat_the_best_and_some_choice_of_targets_reaches_it(targets, speeds, half_width):
    targets, k = np.array(targets), len(speeds)

    def welfare(speeds):
        pays = 1 - abs(np.array(speeds)[:, None] - targets) / half_width
        return 100 * pays.clip(0).max(axis=0).mean()

    best = speed_optimum(targets, k, half_width)
    assert welfare(speeds) <= best + 1e-9
    choices = np.stack(np.meshgrid(*[targets] * k), axis=-1).reshape(-1, k)
    assert max(map(welfare, choices)) == pytest.approx(best)


def test_mistakes_are_told_in_one_line():
    for call in (
        lambda: known_walk_welfare(4),
        lambda: walk_bound(0),
        lambda: speed_optimum([], 1, 0.2),
        lambda: speed_optimum([1.0], 0, 0.2),
        lambda: speed_optimum([1.0], 1, 0.0),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert "\n" not in str(caught.value)
