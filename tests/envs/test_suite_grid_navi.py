import numpy as np
import pytest

from envs.grid_navi import GOALS, GridNavi

FAMILY = GridNavi()
STAY, UP, RIGHT, DOWN, LEFT = range(5)
# The first episode of an optimal policy: it meets 14 of the 21 goals, one at each of the steps 2 to 15. The
# others, (0, 2) (0, 3) (0, 4) (1, 4) (2, 4) (3, 4) (4, 4), lie on one shortest path.
SEARCH = [RIGHT, RIGHT, UP, UP, RIGHT, DOWN, DOWN, RIGHT, UP, UP, UP, LEFT, LEFT, LEFT, DOWN]
REST = [UP, UP, UP, UP, RIGHT, RIGHT, RIGHT, RIGHT] + [STAY] * 7
OPTIMUM = [84 / 21, 232.5 / 21, 232.5 / 21, 232.5 / 21]


def towards(cell, goal):
    """Along a shortest path, right or left first."""
    x, y = np.subtract(np.divmod(goal, 5), np.divmod(cell, 5))
    up_or_down = np.select([y > 0, y < 0], [UP, DOWN], STAY)
    return np.select([x > 0, x < 0], [RIGHT, LEFT], up_or_down)


def test_the_search_reaches_the_bayes_optimum_on_all_goals():
    env = FAMILY.make_vec({"goal": GOALS})
    cell, _ = env.reset()
    known, returns = np.full(len(GOALS), -1), np.zeros((4, len(GOALS)))
    for episode in range(4):
        plan = SEARCH if episode == 0 else REST
        for action in plan:
            cell, reward, _, truncated, infos = env.step(np.where(known < 0, action, towards(cell, known)))
            seen = infos["final_obs"] if truncated.all() else cell
            known = np.where((reward > 0) & (known < 0), seen, known)
            returns[episode] += reward
        assert truncated.all() and (cell == 0).all()
    np.testing.assert_allclose(returns.mean(axis=1), OPTIMUM, atol=1e-6)
    assert np.array_equal(known, GOALS) and OPTIMUM[1] == pytest.approx(11.0714, abs=1e-4)


def test_moves_walls_and_rewards_by_hand():
    goal = 5 * 2 + 1  # (2, 1)
    env = FAMILY.make_vec({"goal": np.array([goal])})
    assert env.reset()[0].tolist() == [0]
    walk = [(LEFT, 0), (DOWN, 0), (STAY, 0), (RIGHT, 5), (RIGHT, 10), (UP, 11), (STAY, 11), (UP, 12)]
    walk += [(UP, 13), (UP, 14), (UP, 14), (RIGHT, 19), (RIGHT, 24), (RIGHT, 24)]
    for action, place in walk:
        cell, reward, terminated, truncated, _ = env.step(np.array([action]))
        assert cell.tolist() == [place] and not terminated[0] and not truncated[0]
        assert reward[0] == np.float32(1.0 if place == goal else -0.1)
    cell, _, _, truncated, infos = env.step(np.array([LEFT]))
    assert truncated[0] and infos["final_obs"].tolist() == [19] and cell.tolist() == [0]


def test_goals_are_the_21_cells_away_from_the_start_each_as_likely():
    goal = FAMILY.sample(np.random.default_rng(0), 21_000)["goal"]
    near = {5 * x + y for x in (0, 1) for y in (0, 1)}
    assert set(goal) == set(range(25)) - near
    counts = np.bincount(goal, minlength=25)[GOALS]
    assert abs(counts - 1000).max() < 150
