import pytest

from rl2.bandit_optimum import optimal_return


def test_one_arm_and_two_pulls_by_hand():
    assert optimal_return(1, 7) == pytest.approx(3.5)
    # A win (1 / 2) is followed by the same arm (2 / 3), a loss by the other (1 / 2).
    assert optimal_return(2, 2) == pytest.approx(0.5 + 0.5 * 2 / 3 + 0.5 / 2)


def test_the_papers_bandits_of_ten_pulls():
    assert optimal_return(5, 10) == pytest.approx(6.66, abs=0.005)
    assert optimal_return(10, 10) == optimal_return(50, 10) == pytest.approx(6.714, abs=0.0005)
