"""Planned episodes in the true environment, their sharing over ranks, and a run's actor."""

import dataclasses

import numpy as np
import pytest

import persim
from common.errors import UserError
from common.rollout import play as play_in
from common.runs import checkpoint, run_folder
from common.runs.seeding import stream
from envs import make_family
from mpi_utils.comm import Comm
from persim.planning.planner import Settings
from persim.planning.true_dynamics import TrueModel
from persim.policy import Actor, make_actor, play
from tests.helpers.launch import mpirun
from tests.persim.runs import configured, trained


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


@pytest.mark.mpi
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


def true_actor(name, agents, settings):
    family = make_family(name)
    parameters = {key: values[agents] for key, values in family.test_agents.items()}
    return (
        family,
        parameters,
        Actor(family, TrueModel(family, parameters), range(len(agents)), settings=settings),
    )


def test_in_an_environment_it_acts_as_on_the_dynamics():
    """The environment shows float32; its episodes start as `play`'s do when it draws from the same stream."""
    few = Settings(horizon=8, num_candidates=20, mask=True)
    family, parameters, actor = true_actor("cart_pole", [0, 4], few)
    env = family.make_vec(
        {key: np.tile(values, 2) for key, values in parameters.items()}, stream(0, "evaluation")
    )
    found = play_in(env, actor, family.max_episode_len)
    expected = play(family, parameters, actor, 2, 0, Comm())
    np.testing.assert_array_equal(found.returns.reshape(2, 2).T, expected)


def test_rows_that_do_not_run_are_not_planned_and_the_others_plan_alike():
    few = Settings(horizon=8, num_candidates=20)
    _, _, actor = true_actor("mountain_car", [0, 3], few)
    state = np.linspace([-0.6, 0.0], [-0.4, 0.01], 4).astype(np.float32)
    actor.reset(4)
    whole = actor.act(state)
    actor.reset(4)
    part = actor.act(state, None, None, np.array([False, True, False, True]))
    assert part[[0, 2]].tolist() == [0, 0] and part[[1, 3]].tolist() == whole[[1, 3]].tolist()
    assert whole.dtype == np.int64 and actor.act(state, running=np.zeros(4, bool)).tolist() == [0] * 4


@pytest.mark.parametrize("learn_reward", [False, True])
def test_a_run_is_loaded_and_acts_as_its_learner_does(tmp_path, learn_reward):
    sizes = {"num_agents": 9, "num_models": 2, "state_features": 16, "max_iters": 2, "num_minibatches": 5}
    config = configured("cart_pole", learn_reward=learn_reward, **sizes)
    learner = trained(config)
    run_folder.write_config(tmp_path / "run", {"system": "persim", **dataclasses.asdict(config)})
    checkpoint.save(tmp_path / "run", 2, learner.state_dict())
    options = {"horizon": 6, "num_candidates": 30}
    state = np.random.default_rng(0).normal(0, 0.1, (4, 4)).astype(np.float32)
    actors = [
        learner.actor([7, 2], **options),
        persim.load(tmp_path / "run", [7, 2], **options),
        persim.load(tmp_path / "run" / "step_00000002", ["7", "2"], **options),
    ]
    for actor in actors:
        actor.reset(4)
    for _ in range(3):
        first, *others = [actor.act(state).tolist() for actor in actors]
        assert others == [first, first]
    assert len(persim.load(tmp_path / "run").agents) == 9
    with pytest.raises(UserError, match="has no agent 'nobody'"):
        persim.load(tmp_path / "run", ["nobody"])


def test_an_actor_of_unknown_dynamics_asks_for_a_family():
    simulator = trained(configured(num_agents=4, num_models=1, state_features=4, max_iters=1)).simulator
    with pytest.raises(UserError, match="give a family to act in"):
        make_actor(configured(), None, simulator)
