"""The learner: recovery of a known system, members, what is carried over, ranks that agree, refusals."""

import dataclasses
import re

import numpy as np
import pytest
import torch

from common.config import parse_flags
from common.errors import UserError
from common.evaluation import stored_config
from persim.config import Config, check_config
from persim.data.transitions import Transitions
from persim.problem import draw_agents, family_of
from tests.helpers.launch import mpirun
from tests.helpers.runs import flat, same
from tests.persim.runs import configured, make, trained

SIZES = {"num_agents": 6, "num_models": 2, "state_features": 8, "max_iters": 6, "batch_size": 37}
TINY = configured(**SIZES, num_minibatches=5)
CART_POLE = dataclasses.replace(TINY, environment="cart_pole", num_minibatches=0, normalise=False)


# --- data


def test_the_first_agents_are_the_test_agents_each_with_one_trajectory_from_the_seed():
    learner = make(TINY)
    data, gravity = learner.data, learner.data.covariates["gravity"]
    np.testing.assert_array_equal(gravity[:5], [1e-4, 5e-4, 1e-3, 2.5e-3, 3.5e-3])
    assert 1e-4 < gravity[5] < 3.5e-3 and set(data.agent.tolist()) == set(range(6))
    starts = data.time == 0
    assert starts.sum() == 6 and (np.abs(data.state[starts, 0] + 0.5) <= 0.1).all()
    same_agent = (np.diff(data.agent) == 0).nonzero()[0]
    np.testing.assert_array_equal(data.next_state[same_agent], data.state[same_agent + 1])
    assert set(data.action.tolist()) == {0, 1, 2}
    push = data.next_state[starts, 1] + gravity * np.cos(3 * data.state[starts, 0])
    np.testing.assert_allclose(push, 0.001 * (data.action[starts] - 1), atol=1e-7)
    assert make(TINY).digest == learner.digest
    assert make(dataclasses.replace(TINY, seed=1)).digest != learner.digest
    fewer = draw_agents(family_of(TINY), 3, np.random.default_rng(0))
    assert fewer["gravity"].tolist() == [1e-4, 5e-4, 1e-3]


# --- learning


def linear_agents(path, n=12, T=60):
    """A log of agents whose states change by gain * (action - 1) + drag * state: two factors."""
    rng = np.random.default_rng(0)
    state = rng.uniform(-1, 1, (n, T, 1))
    gain, drag = rng.uniform(0.5, 2, (n, 1, 1)), rng.uniform(-1, 1, (n, 1, 1))
    action = rng.integers(3, size=(n, T))
    following = state + gain * (action[..., None] - 1) + drag * state
    data = Transitions(
        names=[f"agent {i}" for i in range(n)],
        agent=np.repeat(np.arange(n), T),
        time=np.tile(np.arange(T), n),
        state=state.reshape(-1, 1).astype(np.float32),
        action=action.ravel(),
        reward=np.zeros(n * T, np.float32),
        next_state=following.reshape(-1, 1).astype(np.float32),
        state_names=["x"],
        action_names=["a"],
    )
    data.save(path)
    return gain[:, 0, 0], drag[:, 0, 0]


def test_a_system_of_known_rank_is_recovered_from_a_log(tmp_path):
    gain, drag = linear_agents(tmp_path / "log.npz")
    sizes = {"state_features": 32, "max_iters": 15, "batch_size": 128, "num_models": 2}
    sizes["num_factors"] = 3  # with exactly two, a member may stay on a plateau for long
    config = configured("unknown", dataset=str(tmp_path / "log.npz"), **sizes)
    learner = make(config)
    losses = [learner.train_iteration(i)["train/loss"] for i in range(15)]
    assert losses[0] > 0.1 and losses[-1] < 1e-4
    x = torch.tensor([-0.7, 0.1, 0.6]).expand(2, 12, 3)[..., None]
    step = learner.simulator.at(range(12)).step(x, torch.full((12, 3), 2))
    expected = x[0, ..., 0].numpy() * (1 + drag[:, None]) + gain[:, None]
    assert np.abs(step[..., 0].mean(0).numpy() - expected).max() < 0.1
    pooled = trained(dataclasses.replace(config, pooled=True), 15)
    assert len(pooled.simulator.factors()[0]) == 1
    assert pooled.train_iteration(14)["train/loss"] > 100 * losses[-1]


def test_members_learn_as_they_would_alone():
    both = trained(TINY, 3).simulator.state_dict()
    alone = trained(dataclasses.replace(TINY, num_models=1), 3).simulator.state_dict()
    for name, value in alone.items():
        if value.ndim > 1:
            torch.testing.assert_close(both[name][:1], value, rtol=1e-3, atol=1e-5)
            assert not torch.equal(both[name][0], both[name][1])


def test_an_epoch_takes_each_transition_once_for_each_member():
    learner = make(dataclasses.replace(TINY, num_minibatches=0, batch_size=10))
    batches, N = learner.batches, len(learner.data)
    rows = [[batches.rows(step, member) for step in range(N // 10)] for member in range(2)]
    for member in rows:
        assert len(set(np.concatenate(member).tolist())) == N // 10 * 10
    assert not np.array_equal(rows[0], rows[1])


def test_decay_takes_weights_of_states_towards_zero_by_the_learning_rate_and_leaves_biases():
    learners = [make(configured("cart_pole", num_agents=9, input_weight_decay=d)) for d in (0.0, 0.5)]
    for learner in learners:
        learner.optimiser.lr = 0.1
        learner.decay()
    plain, decayed = (learner.simulator.state_net[0] for learner in learners)
    torch.testing.assert_close(decayed[:, :, :-1], 0.95 * plain[:, :, :-1])
    assert torch.equal(decayed[:, :, -1], plain[:, :, -1])


@pytest.mark.parametrize("refit", [True, False])
def test_a_diverged_member_is_pruned_at_the_end(refit):
    learner = trained(dataclasses.replace(TINY, num_models=3, refit=refit), 5)
    with torch.no_grad():
        learner.simulator.state_net[-1][1] *= 1e4
    before = learner.state_dict()["simulator"]
    assert before["active_members"].tolist() == [True, True, True]
    metrics = learner.train_iteration(5)
    active = [True, not refit, True]
    assert learner.simulator.active_members.tolist() == active and metrics["train/members"] == sum(active)
    errors = learner.errors()[learner.simulator.active_members].flatten(0, 1)
    noise = learner.state_dict()["simulator"]["noise"]  # of the active members
    np.testing.assert_allclose(noise, 1.4826 * errors.median(0).values.numpy(), rtol=1e-5)


def test_of_two_members_none_is_pruned():
    learner = trained(TINY, 5)
    with torch.no_grad():
        learner.simulator.state_net[-1][1] *= 1e4
    assert learner.train_iteration(5)["train/members"] == 2


def test_schedules():
    paper = dataclasses.replace(TINY, schedule="steps", max_iters=300, learning_rate=1e-3)
    learner = make(paper)
    assert [learner.learning_rate(i) for i in (0, 149.9, 150, 299, 300)] == [1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4]
    learner.config = dataclasses.replace(paper, schedule="cosine")
    rates = [learner.learning_rate(i) for i in range(301)]
    assert rates[0] == 1e-3 and rates[300] == pytest.approx(1e-6) and (np.diff(rates) < 0).all()


def test_recipes_and_networks_of_the_environments():
    paper = configured("cart_pole", "paper")
    assert (paper.batch_size, paper.max_iters, paper.num_factors, paper.huber_delta) == (64, 300, 5, 0)
    assert not (paper.normalise or paper.refit)
    assert paper.num_minibatches == 0 and paper.learning_rate == 1e-3 and paper.schedule == "steps"
    cheetah = configured("half_cheetah_body", num_factors=7)
    assert (cheetah.num_factors, cheetah.state_layers, cheetah.action_layers) == (7, 4, 2)
    assert Config() == configured()


def test_flags_and_stored_settings_have_the_defaults_of_their_environment_and_may_have_old_names():
    words = "--environment half_cheetah --error_clip 0.5 --settle False --input_decay=0.3"
    found = parse_flags(Config, words.split(), "train")
    named = {"huber_delta": 0.5, "refit": False, "input_weight_decay": 0.3}
    assert found == configured("half_cheetah_body", **named)
    stored = {"environment": "half_cheetah", "error_clip": 0.5, "settle": False, "input_decay": 0.3}
    assert stored_config(Config, stored) == found


@pytest.mark.parametrize("sizes", [{}, {"state_layers": 2}], ids=["one hidden layer", "two"])
def test_the_written_gradient_trains_as_autograd_does(sizes):
    config = dataclasses.replace(TINY, max_iters=9, **sizes)
    written, autograd = (
        flat(trained(dataclasses.replace(config, gradient=name), 2).state_dict())
        for name in ("written", "autograd")
    )
    for name, value in written.items():
        np.testing.assert_allclose(value, autograd[name], rtol=1e-2, atol=1e-4, err_msg=name)


# --- what is carried over


@pytest.mark.promise("C1 resumed bit for bit")
@pytest.mark.parametrize("config", [TINY, CART_POLE], ids=["mountain_car", "cart_pole"])
@pytest.mark.parametrize("start", [1, 3])
def test_a_loaded_learner_continues_bit_for_bit(config, start):
    learner, other = trained(config, start), make(config)
    other.load_state_dict(learner.state_dict())
    assert same(other.state_dict(), learner.state_dict())
    before = flat(learner.state_dict())
    for i in range(start, 5):
        assert learner.train_iteration(i)["train/loss"] == other.train_iteration(i)["train/loss"]
    assert same(other.state_dict(), learner.state_dict())
    assert not same(before, flat(learner.state_dict()))


@pytest.mark.promise("C5 other settings, formats, data refused")
def test_a_run_does_not_go_on_with_other_data():
    state = trained(TINY, 1).state_dict()
    with pytest.raises(UserError, match="its transitions are not those that the run began with"):
        make(dataclasses.replace(TINY, seed=1)).load_state_dict(state)


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
from tests.persim.test_learner import CART_POLE, TINY, make, trained
three = world()
two = Comm(three.mpi.Split(three.rank // 2))  # and one rank alone
fewer_rows = dataclasses.replace(TINY, batch_size=2)
refitted = dataclasses.replace(TINY, max_iters=4, num_models=3)
for config in (TINY, CART_POLE, fewer_rows, refitted):
    alone = flat(trained(config, 4).state_dict())
    for comm in (two, three):
        together, other = trained(config, 3, comm), make(config, comm)
        other.load_state_dict(together.state_dict())
        for learner in (together, other):
            learner.train_iteration(3)
            check_in_sync(comm, learner.tensors_in_sync())
        assert same(together.state_dict(), other.state_dict())
        for name, value in flat(together.state_dict()).items():
            np.testing.assert_allclose(value, alone[name], rtol=1e-2, atol=1e-4, err_msg=name)
print("same")
"""


# --- refusals


@pytest.mark.parametrize(
    "settings, text",
    [
        ({"num_factors": 7}, "--num_factors 7: more factors than the 6 agents (--num_agents)"),
        ({"num_factors": 0}, "--num_factors 0: must be greater than 0"),
        (
            {"dataset": "expert"},
            "--dataset expert: neither pure, random, pure_eps_20, pure_eps_40 nor the path",
        ),
        ({"dataset": "nowhere/log.csv"}, "--dataset nowhere/log.csv: neither"),
        ({"environment": "unknown"}, "--environment unknown: random data cannot be made; give a log's path"),
        ({"num_models": 0}, "--num_models 0: must be greater than 0"),
        ({"num_minibatches": -1}, "--num_minibatches -1: must be 0 or more"),
        ({"learning_rate": float("nan")}, "--learning_rate nan: must be a finite number"),
        ({"model_name": "../x"}, "--model_name '../x': it names a folder"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(settings, text):
    with pytest.raises(UserError, match=re.escape(text)) as caught:
        check_config(dataclasses.replace(TINY, **settings))
    assert "\n" not in str(caught.value)


def test_logs_that_cannot_work_are_refused_in_one_line(tmp_path):
    linear_agents(tmp_path / "log.npz")
    config = dataclasses.replace(TINY, dataset=str(tmp_path / "log.npz"))
    with pytest.raises(UserError, match="1 states, but the environment has 2"):
        make(config)
    config = dataclasses.replace(config, environment="unknown", num_factors=13)
    with pytest.raises(UserError, match="--num_factors 13: more factors than the 12 agents of"):
        make(config)
    with pytest.raises(UserError, match="--device nonsense: not usable here"):
        make(dataclasses.replace(TINY, device="nonsense"))
