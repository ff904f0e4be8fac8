"""Planned episodes in the true environment, and their sharing over ranks."""

import numpy as np
import pytest

from envs import make_family
from mpi_utils.comm import Comm
from persim.planning.planner import Settings
from persim.planning.true_dynamics import TrueModel
from persim.policy import Actor, play
from tests.launch import mpirun


def true_play(name, num_episodes, agents, seed=0, settings=None, comm=None, **sizes):
    family = type(make_family(name))(**sizes)
    parameters = {key: values[agents] for key, values in family.test_agents.items()}
    numbers = np.arange(len(agents))
    actor = Actor(family, TrueModel(family, parameters), numbers, seed=seed, settings=settings)
    return play(family, parameters, actor, num_episodes, seed, comm or Comm())


def test_agents_of_mountain_car_arrive_as_soon_as_a_perfect_model_lets_them():
    """Means over 20 episodes of an independent implementation: -54.0 (3.3) and -70.2 (6.4)."""
    returns = true_play("mountain_car", 4, [0, 1])
    assert returns.shape == (2, 4)
    assert -62 < returns[0].mean() < -46 and -83 < returns[1].mean() < -58
    assert len(np.unique(returns)) > 3, "each episode has a start and candidates of its own"


def test_agents_of_cart_pole_stand():
    returns = true_play("cart_pole", 1, [0, 1, 2, 3, 4], max_episode_len=25)
    assert (returns == 25).all()


def test_an_episode_that_ends_is_rewarded_no_more():
    """A plan of one step without a look ahead lets the pole fall; a step is rewarded by 1."""
    returns = true_play("cart_pole", 3, [4], settings=Settings(horizon=1, num_candidates=1))
    assert (returns < 100).all() and (returns >= 5).all() and (returns == returns.round()).all()


class Rank(Comm):
    """One of several ranks that never meet; numbers stay its own."""

    def __init__(self, rank, size):
        super().__init__()
        self.rank, self.size = rank, size

    def allreduce_(self, array, op="sum"):
        return array


@pytest.mark.parametrize("size", [2, 3, 8])
def test_ranks_share_the_episodes_of_one_rank(size):
    few = {"settings": Settings(horizon=8, num_candidates=20, shaping=0.5), "max_episode_len": 40}
    whole = true_play("mountain_car", 3, [0, 3], **few)
    parts = [true_play("mountain_car", 3, [0, 3], comm=Rank(rank, size), **few) for rank in range(size)]
    assert np.array_equal(sum(parts), whole)
    assert all(
        np.count_nonzero(part) == len(range(6)[Rank(r, size).share(6)]) for r, part in enumerate(parts)
    )


def test_two_ranks_agree_with_one(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from mpi_utils.comm import guard\n"
        "from persim.planning.planner import Settings\n"
        "from tests.persim.test_policy import true_play\n"
        "def main(comm):\n"
        "    few = Settings(horizon=8, num_candidates=20)\n"
        "    returns = true_play('cart_pole', 3, [0, 4], settings=few, comm=comm, max_episode_len=30)\n"
        "    print(returns.ravel().tolist())\n"
        "guard(main)\n"
    )
    result = mpirun(2, program)
    whole = true_play(
        "cart_pole", 3, [0, 4], settings=Settings(horizon=8, num_candidates=20), max_episode_len=30
    )
    assert result.code == 0, result.output
    assert result.output.count(str(whole.ravel().tolist())) == 2  # lines of two ranks may be mixed
