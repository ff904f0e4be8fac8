"""What continuous tasks need: episodes counted, running normalisation, values behind the end, evaluation."""

import csv
import dataclasses
import shutil

import numpy as np
import pytest
import torch

from common.config import from_stored
from common.errors import UserError
from common.runs import checkpoint
from envs import make_family
from envs.problem import Problem
from mpi_utils.comm import Comm
from rl2.config import SUITE, Config, check_config
from rl2.estimates import meta_gae
from rl2.greedy import greedy_returns
from rl2.learner import Learner
from rl2.problem import make_problem
from tests.helpers import runs
from tests.helpers.launch import command
from tests.rl2.test_learner import TINY, OneOf, made

POLES = dataclasses.replace(TINY, environment="cart_pole", episodes=2, meta_episode_len=120)
ALL = {
    "normalise_observations": True,
    "normalise_rewards": True,
    "bootstrap": True,
    "cut_at_time_limits": True,
    "eval_interval": 1,
    "eval_tasks": 5,
}
EVERYTHING = dataclasses.replace(POLES, **ALL)
SHORT = make_family("cart_pole", max_episode_len=60)  # poles fall after 10 steps or more


def poles(config=POLES, comm=None):
    return Learner(config, comm or Comm(), Problem("cart_pole", SHORT))


def test_a_meta_episode_ends_with_its_last_episode():
    learner = poles()
    batch = learner.collect(0)
    assert batch.live[-1].any() and not batch.live.all()
    assert ((batch.done * batch.live).sum(0) == 2).all()  # all play two, each in its own time
    lengths = batch.live.sum(0)
    assert (batch.done.gather(0, lengths[None] - 1) == 1).all()
    metrics = learner.returns(batch)
    assert metrics["train/return"] == pytest.approx(lengths.double().mean().item())  # 1 a step
    assert set(metrics) == {"train/return", "train/return_episode_01", "train/return_episode_02"}
    assert learner.count_steps(0, batch) == learner.env_steps == lengths.sum()


def test_moments_of_advantages_are_those_of_steps_that_count():
    learner = poles()
    batch = learner.collect(0)
    advantage, target = learner.estimate(batch)
    counted = advantage[batch.live]
    assert abs(counted.mean()) < 1e-5 and abs(counted.std(correction=0) - 1) < 1e-4
    unscaled = meta_gae(batch.reward * 0.03, batch.value, 0.95, 0.8, live=batch.live)
    torch.testing.assert_close((target - batch.value)[batch.live], unscaled[batch.live])


def test_what_comes_behind_the_last_episode_is_not_learnt():
    learner = poles()
    batch = learner.collect(0)
    estimates, before = learner.estimate(batch), learner.policy.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    metrics = learner.update(0, batch, estimates)
    learnt = {name: tensor.clone() for name, tensor in learner.policy.state_dict().items()}
    learner = poles()
    for field in ("inputs", "observation", "log_prob"):
        getattr(batch, field)[~batch.live] = 3.0
    spoilt = tuple(torch.where(batch.live, part, 1e6) for part in estimates)
    again = learner.update(0, batch, spoilt)
    assert again == metrics and not runs.differing(learner.policy.state_dict(), learnt)
    assert runs.differing(before, learnt)


def test_ranks_play_the_same_and_stop_each_with_its_last_task():
    whole = poles().collect(0)
    parts = [poles(POLES, OneOf(rank, 3)).collect(0) for rank in range(3)]
    assert len({len(part.reward) for part in parts}) > 1
    lengths = torch.cat([part.live.sum(0) for part in parts])
    assert torch.equal(lengths, whole.live.sum(0))
    sums = torch.cat([(part.observation * part.live[..., None]).sum(0) for part in parts], dim=0)
    torch.testing.assert_close(sums, (whole.observation * whole.live[..., None]).sum(0))


def test_observations_are_seen_normalised_by_what_earlier_iterations_saw():
    config = dataclasses.replace(POLES, normalise_observations=True)
    learner = poles(config)
    first = learner.collect(0)
    assert torch.equal(first.inputs[..., :4], first.observation)  # nothing was seen yet
    learner.train_iteration(0)
    seen = first.observation[first.live].double()
    normaliser = learner.policy.normaliser
    np.testing.assert_allclose(normaliser.mean, seen.mean(0), atol=1e-12)
    np.testing.assert_allclose(normaliser.variance, seen.var(0, correction=0), rtol=1e-9)
    second = learner.collect(1)
    expected = (second.observation.double() - seen.mean(0)) / seen.std(0, correction=0)
    np.testing.assert_allclose(second.inputs[..., :4], expected.clamp(-10, 10), atol=1e-4)
    with pytest.raises(UserError, match="--normalise_observations: discrete"):
        made(dataclasses.replace(TINY, normalise_observations=True))


def test_rewards_in_units_of_the_deviation_of_returns():
    config = dataclasses.replace(POLES, normalise_rewards=True, gamma=0.5)
    learner = poles(config)
    batch = learner.collect(0)
    reward = learner.scaled_rewards(batch)
    sums = [2 - 0.5**t for t in range(len(batch.reward))]  # of rewards of 1, discounted by 1/2
    counted = np.repeat(sums, batch.live.sum(1))
    np.testing.assert_allclose(reward, np.clip(1 / counted.std(), None, 10), rtol=1e-5)
    again = learner.scaled_rewards(batch)  # the same rewards once more: the deviation stays
    torch.testing.assert_close(again, reward)


@pytest.mark.parametrize("shared", [True, False])
def test_the_value_behind_the_last_step_is_that_of_going_on(shared):
    """Of 10 steps it is what the first 10 of 11 leave to the last."""
    config = dataclasses.replace(TINY, bootstrap=True, shared_network=shared, architecture="transformer")
    learner, longer = made(config), made(dataclasses.replace(config, meta_episode_len=11, bootstrap=False))
    longer.policy.load_state_dict(learner.policy.state_dict())
    value, behind = learner.values(learner.collect(0))
    expected, nothing = longer.values(longer.collect(0))
    torch.testing.assert_close(torch.cat([value, behind[None]]), expected, rtol=1e-4, atol=1e-5)
    assert nothing is None


def test_evaluation_is_greedy_in_tasks_of_its_own_and_the_same_on_all_ranks():
    learner, config = poles(EVERYTHING), EVERYTHING
    problem, policy = learner.problem, learner.policy
    whole = greedy_returns(policy, problem, config, Comm())
    assert whole == greedy_returns(policy, problem, config, Comm())
    assert set(whole) == {"eval/return", "eval/return_episode_01", "eval/return_episode_02"}
    for size in (2, 7):  # of 5 tasks
        parts = [greedy_returns(policy, problem, config, OneOf(rank, size)) for rank in range(size)]
        shares = [len(range(5)[OneOf(rank, size).share(5)]) for rank in range(size)]
        for name, value in whole.items():
            total = sum(part[name] * n for part, n in zip(parts, shares, strict=True) if n)
            assert total / 5 == pytest.approx(value)
    learner = poles(dataclasses.replace(config, eval_interval=2))
    found = [learner.train_iteration(i) for i in range(4)]
    assert ["eval/return" in metrics for metrics in found] == [False, True, False, True]
    best = max(found[1]["eval/return"], found[3]["eval/return"])
    assert found[3]["eval/best_return"] == best == learner.state_dict()["best_return"]
    plain = poles(dataclasses.replace(config, eval_interval=0))
    for i in range(4):
        plain.train_iteration(i)
    assert not runs.differing(plain.state_dict()["policy"], learner.state_dict()["policy"])


def test_settings_by_name():
    for name, given in SUITE.items():
        config = check_config(Config.defaults({"environment": name}))
        assert all(getattr(config, field) == value for field, value in given.items())
    assert Config.defaults({"environment": "bandit"}) == Config(environment="bandit")
    older = from_stored(Config, {"environment": "ant_dir", "meta_episode_len": 400})
    assert (older.episodes, older.normalise_observations, older.bootstrap) == (0, False, False)
    assert not older.normalise_rewards


def test_episodes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="--episodes 2: they may last 400 steps .* --meta_episode_len 400"):
        make_problem(POLES, Comm())


FLAGS = [
    *"--environment cart_pole --episodes 2 --meta_episode_len 400 --learning_rate_final 5e-3".split(),
    *"--entropy_coef_final 0.02".split(),  # constant: schedules stretch over max_iters
    *(word for name, value in ALL.items() for word in (f"--{name}", str(value))),
]


def train(num_ranks, folder, name, iterations):
    done = command(num_ranks, "train", *runs.flags("rl2", folder, name, *FLAGS, "--max_iters", iterations))
    assert done.code == 0, done.output
    with open(folder / name / "metrics.csv") as file:
        return list(csv.DictReader(file))


@pytest.mark.mpi
@pytest.mark.slow
@pytest.mark.promise("C1 resumed bit for bit")
def test_ranks_agree_and_a_resumed_run_is_an_undisturbed_one(tmp_path):
    one, two, three = (train(ranks, tmp_path, f"at_{ranks}", 2) for ranks in (1, 2, 3))
    for other in (two, three):
        for mine, theirs in zip(one, other, strict=True):
            assert mine.keys() == theirs.keys() and "eval/return_episode_02" in mine
            for name in (name for name in mine if not name.startswith("time/")):
                assert float(theirs[name]) == pytest.approx(float(mine[name]), rel=1e-3, abs=1e-5), name
    shutil.copytree(tmp_path / "at_2", tmp_path / "stopped")
    for path in (tmp_path / "stopped").rglob("step_00000002"):
        shutil.rmtree(path)
    train(2, tmp_path, "stopped", 2)
    for save in ("", "best"):
        whole, parts = (checkpoint.open_run(tmp_path / run / save, "rl2")[1] for run in ("at_2", "stopped"))
        assert not runs.differing(whole, parts)
    assert parts["best_return"] == max(float(row["eval/return"]) for row in two)
