"""The learner: pool and medoids, what an iteration carries over, ranks that agree, groups that are found."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from caml.config import Config, check_config
from caml.learner import Learner
from caml.problem import make_problem
from common.errors import UserError
from envs import EnvError
from mpi_utils.comm import Comm
from tests.helpers.launch import mpirun
from tests.helpers.runs import flat, same

TINY = check_config(
    Config(
        num_groups=3,
        num_variants=2,
        num_support=3,
        max_episode_len=12,
        num_features=8,
        tasks_per_iteration=3,
        pool_size=6,
        num_medoids=2,
        num_rollouts=4,
        num_states=20,
    )
)
CART_POLES = dataclasses.replace(TINY, environment="envs.examples:cart_pole_family", max_episode_len=30)
MDPS = dataclasses.replace(TINY, environment="tabular_mdp")


def made(config, comm=None):
    comm = comm or Comm()
    return Learner(config, comm, make_problem(config, comm))


def trained(config, iterations, comm=None):
    learner = made(config, comm)
    for i in range(iterations):
        learner.train_iteration(i)
    return learner


# --- what is carried over


@pytest.mark.promise("C1 resumed bit for bit")
@pytest.mark.parametrize("config", [TINY, CART_POLES, MDPS], ids=["particle", "cart_poles", "mdps"])
@pytest.mark.parametrize("start", [1, 2, 3])
def test_a_loaded_learner_continues_bit_for_bit(config, start):
    learner = trained(config, start)
    other = made(config)
    other.load_state_dict(learner.state_dict())
    assert same(other.state_dict(), learner.state_dict())
    before = flat(learner.state_dict())
    for i in range(start, 5):
        assert learner.train_iteration(i)["train/return"] == other.train_iteration(i)["train/return"]
    assert same(other.state_dict(), learner.state_dict())
    assert not same(before, flat(learner.state_dict()))


def test_medoids_come_when_the_pool_is_full_and_stay_untouched_until_it_is_again():
    learner = made(TINY)
    assert "cluster/silhouette" not in learner.train_iteration(0)
    assert len(learner.state_dict()["policy"]["head.bias"]) == 0
    assert learner.train_iteration(1)["cluster/num_medoids"] == 2
    state = flat(learner.state_dict())
    learner.train_iteration(2)
    after = flat(learner.state_dict())
    for name in ("policy.first.weight", "policy.head.bias", "trajectories", "agent"):
        assert len(after[name]) == 2 and np.array_equal(after[name], state[name])
    assert not np.array_equal(after["pool.head.bias"][:3], state["pool.head.bias"][:3])
    assert np.array_equal(after["pool.head.bias"][3:], state["pool.head.bias"][3:])


def continued(state, **changes):
    """A learner of other settings that goes on from a state."""
    learner = made(dataclasses.replace(TINY, **changes))
    learner.load_state_dict(state)
    return learner


@pytest.mark.parametrize("choice", ["best", "random"])
def test_adaptations_start_from_copies_of_medoids(choice):
    state = trained(dataclasses.replace(TINY, medoid_choice=choice), 2).state_dict()
    learner = continued(state, medoid_choice=choice, learning_rate=1e-9)
    learner.train_iteration(2)
    saved, medoids = learner.state_dict()["pool"]["first.weight"][:3], state["policy"]["first.weight"]
    distance = (saved[:, None] - medoids).abs().amax((2, 3))  # [agent, medoid]
    assert (distance.min(1).values < 1e-6).all() and (distance.max(1).values > 1e-2).all()


def test_the_best_medoid_is_the_one_of_the_highest_reward():
    state = trained(TINY, 2).state_dict()
    weight, bias = (torch.zeros_like(state["policy"][f"head.{name}"]) for name in ("weight", "bias"))
    moves = np.zeros_like(state["agents"]["moves"])
    moves[:, 3] = 1  # action 3 goes right and up for everybody
    bias[1, 3] = 9
    state["policy"] |= {"head.weight": weight, "head.bias": bias}
    state["agents"] |= {"moves": moves}
    learner = continued(state, learning_rate=1e-9)
    learner.train_iteration(2)
    assert (learner.state_dict()["pool"]["head.bias"][:3, 3] > 8).all()


def test_medoids_are_members_with_their_trajectories_and_are_carried_over():
    learner = trained(TINY, 2)
    first = {name: value.clone() for name, value in learner.medoids.items()}
    learner.train_iteration(2)
    learner.train_iteration(3)
    members = {name: torch.cat([first[name], value]) for name, value in learner.pool.items()}
    found = (members["first.weight"] == learner.medoids["first.weight"][:, None]).flatten(2).all(2)
    assert (found.sum(1) == 1).all()  # each is one of the pool or of the medoids before
    index = found.float().argmax(1)
    for name, value in learner.medoids.items():
        assert torch.equal(value, members[name][index])


def test_lengths_of_trajectories_are_kept():
    learner = trained(CART_POLES, 2)
    length, states = learner.pool["length"].int(), learner.pool["states"]
    assert (length >= 5).all() and len(set(length.tolist())) > 1
    for own, n in zip(states, length, strict=True):
        assert (own[:n] != 0).any(1).all() and (own[n:] == 0).all()


def test_the_silhouette_may_choose_how_many_medoids_there_are():
    learner = trained(dataclasses.replace(TINY, num_medoids=0), 4)
    assert 2 <= len(learner.state_dict()["trajectories"]) <= 3


def test_a_reward_that_is_not_finite_ends_the_run_and_names_the_agent():
    learner = made(TINY)
    make_vec = learner.problem.family.make_vec

    def broken(parameters, rng):
        env = make_vec(parameters, rng)
        step = env.step

        def bad_step(actions):
            observation, reward, *rest = step(actions)
            reward[-1] = np.nan
            return observation, reward, *rest

        env.step = bad_step
        return env

    learner.problem.family.make_vec = broken
    with pytest.raises(FloatingPointError, match=r"iteration 0: .* not finite with agent \d"):
        learner.train_iteration(0)


# --- ranks


@pytest.mark.mpi
@pytest.mark.promise("C2 other number of ranks")
def test_ranks_agree_with_one_rank_and_resume_bit_for_bit():
    done = mpirun(3, "-c", RANKS)
    assert done.code == 0, done.output
    assert done.output.count("same") == 3


RANKS = """
import dataclasses
import numpy as np
from mpi_utils.comm import Comm, world
from mpi_utils.sync import check_in_sync
from tests.helpers.runs import flat, same
from tests.caml.test_learner import CART_POLES, TINY, made, trained
three = world()
two = Comm(three.mpi.Split(three.rank // 2))  # and one rank alone
one_task = dataclasses.replace(TINY, tasks_per_iteration=1, pool_size=2)
for config in (TINY, CART_POLES, one_task):
    alone = flat(trained(config, 4).state_dict())
    for comm in (two, three):
        together, other = trained(config, 3, comm), made(config, comm)
        other.load_state_dict(together.state_dict())
        for learner in (together, other):
            learner.train_iteration(3)
            check_in_sync(comm, learner.tensors_in_sync())
        assert same(together.state_dict(), other.state_dict())
        for name, value in flat(together.state_dict()).items():
            np.testing.assert_allclose(value, alone[name], rtol=1e-4, atol=1e-5, err_msg=name)
print("same")
"""


# --- does it find and learn


def test_meta_training_finds_the_groups_and_medoids_that_serve_them():
    config = dataclasses.replace(
        *(TINY,),
        **{"max_episode_len": 100, "num_features": 68, "num_rollouts": 10, "num_states": 100},
        **{"tasks_per_iteration": 24, "pool_size": 24, "num_medoids": 3, "updates_per_task": 3},
    )
    learner = made(config)
    metrics = [learner.train_iteration(i) for i in range(10)]
    assert metrics[0]["train/last_reward_before"] < -1.0
    assert metrics[-1]["train/last_reward_before"] > -0.5
    assert metrics[0]["train/return"] > metrics[0]["train/return_before"]
    assert metrics[-1]["cluster/adjusted_rand_index"] > 0.7
    steps = 24 * 10 * 100
    assert metrics[-1]["train/env_steps"] == 4 * steps + 9 * 5 * steps  # from the second on, with the choice


# --- refusals


@pytest.mark.parametrize(
    "settings, text",
    [
        ({"num_rollouts": 0}, "--num_rollouts 0: must be greater than 0"),
        ({"pool_size": 7}, "--pool_size 7: must be a multiple of --tasks_per_iteration (3)"),
        ({"num_medoids": 7}, "--num_medoids 7: more than --pool_size (6); choose fewer"),
        ({"num_medoids": 5}, "--num_medoids 5: more than --num_rollouts (4) can try"),
        ({"num_medoids": 0, "num_rollouts": 1}, "--num_medoids 0: a choice takes --pool_size of 4"),
        ({"num_support": 6}, "--num_support 6: leaves no query agent of 6"),
        ({"bandwidth": -1.0}, "--bandwidth -1.0: must be greater than 0"),
        ({"split": "released"}, "--split released: the author's split is of --num_groups 6"),
        ({"gamma": 1.5}, "--gamma 1.5: must lie between 0 and 1"),
        ({"model_name": "../x"}, "--model_name '../x': it names a folder"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(settings, text):
    with pytest.raises(UserError, match=re.escape(text)) as caught:
        check_config(dataclasses.replace(TINY, **settings))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "environment, text",
    [
        ("envs.examples:nothing", "--environment envs.examples:nothing: cannot be imported"),
        ("envs.parameters:one_line", "the factory failed"),
        ("nowhere", "unknown environment 'nowhere'"),
    ],
)
def test_environments_that_cannot_work_are_refused_in_one_line(environment, text):
    with pytest.raises((UserError, EnvError), match=re.escape(text)) as caught:
        made(dataclasses.replace(TINY, environment=environment))
    assert "\n" not in str(caught.value)
