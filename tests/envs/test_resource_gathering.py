import numpy as np
import pytest
import torch

from envs import EnvError
from envs.resource_gathering import NUM_CELLS, ResourceGathering

FAMILY = ResourceGathering()
UP, DOWN, LEFT, RIGHT = range(4)
HOME_CELL = 22


def walk(moves, **settings):
    """The steps of one environment from its first reset on."""
    env = FAMILY.make_shared(1, seed=0, **settings)
    env.reset()
    return [env.step(np.array([move])) for move in moves]


def cells(values):
    return np.flatnonzero(values).tolist()


def test_a_round_walk_pays_its_cells_once_home():
    *before, last = walk([UP, LEFT, DOWN, RIGHT])
    assert not any(step.outcome.any() or step.terminated[0] for step in before)
    assert last.terminated[0] and not last.truncated[0]
    assert cells(last.outcome[0]) == [16, 17, 21, HOME_CELL]
    assert np.allclose(last.outcome[0, [16, 17, 21, HOME_CELL]], 0.96)
    assert cells(last.final_observation[0, 4:]) == [16, 17, 21, HOME_CELL]


def test_bumping_the_wall_at_home_ends_the_walk():
    (step,) = walk([DOWN])
    assert step.terminated[0] and cells(step.outcome[0]) == [HOME_CELL]
    assert step.outcome[0, HOME_CELL] == np.float32(0.99) == np.float32(FAMILY.max_return)


def test_bumping_the_wall_elsewhere_costs_a_step():
    steps = walk([LEFT, LEFT, LEFT, DOWN, RIGHT, RIGHT])
    assert steps[3].final_observation[0, :4].tolist() == [4, 0, 0, 0]
    assert [bool(step.terminated[0]) for step in steps] == [False] * 5 + [True]
    assert cells(steps[-1].outcome[0]) == [20, 21, HOME_CELL]
    assert np.allclose(steps[-1].outcome[0, 20], 0.94)


def test_observations_are_the_place_and_the_visited_cells():
    env = FAMILY.make_shared(2, seed=0)
    first = env.reset()
    assert first.dtype == np.float32 and first.shape == (2, 29) == (2, *FAMILY.observation_space.shape)
    assert np.array_equal(first, np.array([[4, 2] + [0] * 27] * 2))
    step = env.step(np.array([UP, DOWN]))
    assert step.observation[0, :4].tolist() == [3, 2, 0, 0] and cells(step.observation[0, 4:]) == [17]
    assert np.array_equal(step.observation[1], first[1])  # the next walk has begun
    assert step.outcome.dtype == np.float32
    assert all(FAMILY.observation_space.contains(row) for row in step.final_observation)


def test_a_walk_that_is_not_home_after_40_steps_has_failed():
    *before, last = walk(([UP] + [UP, DOWN] * 20)[:40])
    assert not any(step.terminated[0] for step in before)
    assert last.terminated[0] and not last.truncated[0] and not last.outcome.any()
    assert np.array_equal(last.observation[0], [4, 2] + [0] * 27)


def test_a_walk_that_is_home_after_exactly_40_steps_is_paid():
    last = walk([UP] + [UP, DOWN] * 19 + [DOWN])[-1]
    assert last.terminated[0] and cells(last.outcome[0]) == [12, 17, HOME_CELL]
    assert np.allclose(last.outcome[0, 12], 0.6)


def test_a_staggered_first_walk_is_cut_and_paid_by_its_own_steps():
    # Environment 1 begins with 0.618 * 40 = 24 steps elapsed, so the first walk is cut after 16.
    cut = walk([UP] * 16, index=[1], stagger=True)
    assert [bool(step.truncated[0]) for step in cut] == [False] * 15 + [True]
    assert not any(step.terminated[0] or step.outcome.any() for step in cut)
    paid = walk([LEFT, RIGHT], index=[1], stagger=True)[-1]
    assert paid.terminated[0] and np.allclose(paid.outcome[0, 21], 0.98)


@pytest.mark.filterwarnings("ignore:.*precision lowered")
def test_walks_and_pay_are_mo_gymnasiums_and_the_papers():
    pytest.importorskip("mo_gymnasium")
    from mo_gymnasium.envs.resource_gathering.resource_gathering import ResourceGathering as Original

    originals = [Original() for _ in range(20)]
    for original in originals:
        original.map[original.map != "H"] = " "  # without enemies and resources
        original.reset()
    env, rng = FAMILY.make_shared(20, seed=0), np.random.default_rng(3)
    env.reset()
    visited = [[] for _ in originals]
    num_paid = num_failed = 0
    for _ in range(500):
        actions = rng.choice(4, 20, p=[0.4, 0.2, 0.2, 0.2])
        step = env.step(actions)
        for e, original in enumerate(originals):
            place, _, home, *_ = original.step(actions[e])
            visited[e].append(tuple(place[:2]))
            over = home or len(visited[e]) == 40
            assert step.final_observation[e, :4].tolist() == place.tolist()
            assert step.terminated[e] == over and not step.truncated[e]
            pay = np.zeros((5, 5))
            if home:
                pay[tuple(np.transpose(visited[e]))] = 1 - len(visited[e]) / 100
            assert np.allclose(step.outcome[e], pay.ravel())
            if over:
                num_paid, num_failed, visited[e] = num_paid + home, num_failed + (not home), []
                place, _ = original.reset()
            assert step.observation[e, :4].tolist() == place.tolist()
    assert num_paid > 100 and num_failed > 20


def test_a_saved_state_continues_bit_for_bit():
    actions = np.random.default_rng(0).integers(4, size=(120, 6))
    env = FAMILY.make_shared(6, seed=0, stagger=True)
    env.reset()
    for row in actions[:60]:
        env.step(row)
    other = FAMILY.make_shared(6, seed=0)
    last = env.observe()
    assert np.array_equal(other.set_state(env.get_state()), last)
    for row in actions[60:]:
        for mine, theirs in zip(env.step(row), other.step(row), strict=True):
            assert np.array_equal(mine, theirs)


def test_rewards_are_alike_for_numpy_and_torch_and_for_slices_of_the_population():
    outcome = np.random.default_rng(0).random((3, 2, NUM_CELLS), np.float32)
    agents = {"cell": np.array([4, 0, 24, 4])}
    rewards = FAMILY.rewards(outcome, agents)
    assert rewards.shape == (3, 2, 4) and rewards[2, 1].tolist() == outcome[2, 1, [4, 0, 24, 4]].tolist()
    assert np.array_equal(FAMILY.rewards(outcome, {"cell": agents["cell"][1:3]}), rewards[..., 1:3])
    for cell in (agents["cell"], torch.from_numpy(agents["cell"])):
        assert np.array_equal(FAMILY.rewards(torch.from_numpy(outcome), {"cell": cell}).numpy(), rewards)


def test_every_cell_has_equally_many_agents():
    parameters = FAMILY.check(FAMILY.sample(np.random.default_rng(0), 75))
    assert np.bincount(parameters["cell"]).tolist() == [3] * NUM_CELLS
    assert FAMILY.sample(None, 25)["cell"].tolist() == list(range(25))


def test_the_order_sweeps_from_right_to_left():
    order = FAMILY.order(FAMILY.sample(None, 25)).tolist()
    assert order[0] == HOME_CELL and order[11:15] == [17, 12, 7, 2]  # straight up, from near to far
    assert all(cell % 5 > 2 for cell in order[1:11]) and all(cell % 5 < 2 for cell in order[15:])
    assert sorted(order) == list(range(25))
    twice = FAMILY.order({"cell": np.arange(50) % 25}).reshape(25, 2)
    assert (twice % 25 == np.array(order)[:, None]).all()


@pytest.mark.parametrize("cell", [[25], [-1], [0.5], [[1]], [True]])
def test_cells_outside_the_grid_are_refused(cell):
    with pytest.raises(EnvError, match="resource_gathering: .*cell") as caught:
        FAMILY.check({"cell": cell})
    assert "\n" not in str(caught.value)


def test_moves_outside_the_space_are_refused():
    for action in (4, -1, 0.5):
        with pytest.raises(EnvError, match="0..3"):
            walk([action])
