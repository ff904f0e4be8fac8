import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import train
from common.config import from_stored, parse_flags
from common.errors import UserError
from common.runs import checkpoint
from envs import Population, make_family
from envs.examples import point_family
from envs.parameters import EnvError
from envs.problem import Problem
from mpi_utils.comm import Comm
from rl2.bandit_baselines import Gittins
from rl2.baselines import make_baseline
from rl2.config import Config, check_config
from rl2.learner import Learner
from rl2.mdp_baselines import BEBReplanned
from rl2.problem import make_problem, stored_problem
from rl2.rollout import play_meta_episodes

TINY = Config(
    num_states=3,
    num_actions=2,
    max_episode_len=5,
    meta_episode_len=10,
    num_features=8,
    meta_episodes_per_policy_update=12,
    meta_episodes_per_learner_batch=4,
    max_iters=5,
    precision="float32",
)


class OneOf(Comm):
    """One rank of several that is told nothing by the others."""

    def __init__(self, rank, size):
        super().__init__()
        self.rank, self.size = rank, size

    def allreduce_(self, array, op="sum"):
        return array

    def bcast_(self, array, root=0):
        return array

    def bcast_object(self, obj=None):
        return obj


def endless():
    points = point_family()
    return SimpleNamespace(sample=points.sample, make_vec=points.make_vec)


def made(config=TINY, comm=None):
    return Learner(config, comm or Comm(), make_problem(config, Comm()))


def test_ranks_play_the_rows_of_one_global_batch():
    whole = made().collect(0)
    parts = []
    for rank in range(3):
        learner = made(comm=OneOf(rank, 3))
        learner.policy.load_state_dict(made().policy.state_dict())
        parts.append(learner.collect(0))
    for field in ("observation", "action", "reward"):
        together = torch.cat([getattr(part, field) for part in parts], dim=1)
        assert torch.equal(together, getattr(whole, field)), field


def test_schedules_written_out():
    learner = made(dataclasses.replace(TINY, learning_rate=1.0, learning_rate_final=0.2, entropy_coef=0.4))
    seen = []
    for i in range(5):
        learner.anneal(i)
        seen.append((learner.optimiser.lr, learner.entropy_coef))
    assert np.allclose(seen, [(1.0, 0.4), (0.8, 0.3), (0.6, 0.2), (0.4, 0.1), (0.2, 0.0)])


def test_warm_start_has_its_own_rate_and_then_ppos():
    settings = {"warm_start": "bayes_greedy", "warm_start_iters": 2, "warm_start_lr": 3.0, "learning_rate": 1}
    learner = made(dataclasses.replace(TINY, **settings, learning_rate_final=0.0))
    rates = []
    for i in range(5):
        learner.anneal(i)
        rates.append(learner.optimiser.lr)
    assert np.allclose(rates, [3.0, 2.0, 1.0, 0.5, 0.0])


def test_advantages_are_standardised_and_targets_are_returns():
    learner = made(dataclasses.replace(TINY, gae_lambda=1.0, gamma=1.0))
    batch = learner.collect(0)
    advantage, value_target = learner.estimate(batch)
    assert abs(advantage.mean()) < 1e-5 and abs(advantage.std(correction=0) - 1) < 1e-4
    to_come = batch.reward.flip(0).cumsum(0).flip(0) * TINY.reward_scale  # over the ends of episodes
    assert torch.allclose(value_target, to_come, atol=1e-5)


@pytest.mark.slow
def test_it_learns_a_bandit_in_seconds():
    config = dataclasses.replace(
        TINY,
        environment="bandit",
        num_features=32,
        max_iters=25,
        meta_episodes_per_policy_update=600,
        meta_episodes_per_learner_batch=60,
        learning_rate=5e-3,
    )
    learner = made(config)
    returns = [learner.train_iteration(i)["train/return"] for i in range(25)]
    assert abs(returns[0] - 5) < 0.3  # chance
    assert np.mean(returns[-5:]) > 5.7  # two arms: the optimum is about 6.2


@pytest.mark.slow
def test_imitating_gittins_comes_near_to_it_in_seconds():
    config = dataclasses.replace(
        TINY,
        environment="bandit",
        num_actions=3,
        meta_episode_len=20,
        num_features=32,
        max_iters=15,
        meta_episodes_per_policy_update=240,
        meta_episodes_per_learner_batch=15,
        warm_start="gittins",
        warm_start_iters=15,
        warm_start_lr=1e-2,
        learning_rate=1e-3,
    )
    learner = made(config)
    losses = [learner.train_iteration(i)["loss/policy"] for i in range(15)]
    assert losses[-1] < 0.25 * losses[0]
    family = learner.problem.family
    tasks = family.sample(np.random.default_rng(0), 3000)
    actors = {"rl2": learner.actor()} | {n: make_baseline(n, tasks, 20) for n in ("gittins", "random")}
    returns = {}
    for name, actor in actors.items():
        env = family.make_vec(tasks, np.random.default_rng(1))
        returns[name] = play_meta_episodes(env, actor, 20)[0].sum(0).mean()
    assert returns["gittins"] > 13.5 and returns["random"] < 10.5
    assert returns["rl2"] > 0.98 * returns["gittins"]


def test_a_warm_start_has_the_expert_of_its_tasks():
    gittins = made(dataclasses.replace(TINY, environment="bandit", warm_start="gittins"))
    batch = gittins.collect(0, gittins.expert)
    assert (batch.expert_action[0] == 0).all()  # all arms are alike: the lowest
    assert isinstance(gittins.expert, Gittins) and gittins.expert.horizon == TINY.meta_episode_len
    planner = made(dataclasses.replace(TINY, warm_start="bayes_greedy", warm_start_bonus=0.5)).expert
    assert isinstance(planner, BEBReplanned) and planner.scale == 0.5


def test_settings_that_cannot_work_together():
    with pytest.raises(UserError, match="multiple"):
        check_config(dataclasses.replace(TINY, meta_episodes_per_policy_update=13))
    with pytest.raises(UserError, match="warm_start"):
        check_config(dataclasses.replace(TINY, environment="bandit", warm_start="bayes_greedy"))
    with pytest.raises(UserError, match="bandit only, not of tabular_mdp"):
        check_config(dataclasses.replace(TINY, warm_start="gittins"))


@pytest.mark.parametrize("setting", ["memory_span", "reward_scale", "entropy_coef", "gae_lambda"])
def test_numbers_that_cannot_be_meant_are_refused(setting):
    with pytest.raises(UserError, match=f"--{setting} -7"):
        check_config(dataclasses.replace(TINY, **{setting: -7}))


def test_the_names_of_older_flags_and_saves_still_hold():
    flags = "--adam_lr 0.1 --ppo_opt_epochs=7 --standardize_advs 0 --discount-gamma .5".split()
    config = parse_flags(Config, flags, "train")
    assert (config.learning_rate, config.num_epochs, config.gamma) == (0.1, 7, 0.5)
    assert config.normalise_advantages is False
    stored = from_stored(Config, {"max_pol_iters": 3, "standardize_advs": 1, "adam_wd": 0.5})
    assert (stored.max_iters, stored.normalise_advantages, stored.weight_decay) == (3, True, 0.5)


def test_agents_of_a_population_are_what_it_is_trained_on():
    config = dataclasses.replace(TINY, environment="bandit", num_actions=2, meta_episode_len=6)
    family = make_problem(config, Comm()).family
    agents = {"means": np.array([[1.0, 0.0]] * 3)}  # the first arm always wins, the second never
    batch = Learner(config, Comm(), Problem("bandit", family, agents)).collect(0)
    assert torch.equal(batch.reward, 1.0 - batch.action)


def test_tasks_come_from_a_population_and_an_early_end_waits_for_the_episode_s_time(tmp_path):
    poles = make_family("cart_pole", max_episode_len=30)
    Population("cart_pole", poles.sample(np.random.default_rng(0), 3)).save(tmp_path / "poles.npz")
    given = {"environment": "cart_pole", "population": str(tmp_path / "poles.npz"), "meta_episode_len": 400}
    config = dataclasses.replace(TINY, **given, early_ends="wait")
    learner = made(config)
    drawn = learner.problem.sample(np.random.default_rng(1), 50)
    assert set(drawn["force"]) == set(Population.load(given["population"]).parameters["force"])
    played = learner.collect(0)
    assert played.done.sum(0).tolist() == [2.0] * 12  # in 400 steps, though a pole falls after some 20
    assert (played.reward[150:200] == 0).all() and (played.reward[200:205] == 1).all()
    assert (made(dataclasses.replace(config, early_ends="restart")).collect(0).done.sum(0) > 5).all()
    with pytest.raises(UserError, match="lives? in cart_pole, not in --environment mountain_car"):
        make_problem(dataclasses.replace(config, environment="mountain_car"), Comm())
    endless = "tests.rl2.test_learner:endless"
    with pytest.raises(UserError, match="--early_ends wait: .* does not say how long episodes last"):
        make_problem(dataclasses.replace(config, environment=endless, population=""), Comm())
    saved = learner.state_dict()
    Population("cart_pole", poles.sample(np.random.default_rng(5), 3)).save(tmp_path / "others.npz")
    with pytest.raises(EnvError, match="--population: other agents than those of the run"):
        made(dataclasses.replace(config, population=str(tmp_path / "others.npz"))).load_state_dict(saved)


CAR = dict(environment="mountain_car", meta_episode_len=20, meta_episodes_per_start=3)


def test_meta_episodes_that_begin_alike_have_one_task_and_draw_alike():
    """Of 12, groups of 3, also where ranks share them; noise of actions differs within a group."""
    config = dataclasses.replace(TINY, **CAR)
    whole = made(config).collect(0)
    first = whole.observation[0].numpy().reshape(4, 3, -1)
    assert (first == first[:, :1]).all() and len(np.unique(first[:, 0], axis=0)) == 4
    assert not np.array_equal(whole.action[:, 0], whole.action[:, 1])
    parts = [made(config, OneOf(rank, 2)).collect(0) for rank in range(2)]
    np.testing.assert_array_equal(whole.reward, torch.cat([part.reward for part in parts], dim=1))
    with pytest.raises(UserError, match="--meta_episodes_per_start 2: must divide .* \\(3\\)"):
        check_config(dataclasses.replace(config, meta_episodes_per_start=2))


def test_what_those_that_began_alike_have_in_common_is_taken_away():
    config = dataclasses.replace(TINY, **CAR, early_ends="wait", normalise_advantages=False)
    learner = made(config)
    advantage, target = learner.estimate(learner.collect(0))
    assert advantage.std() > 0
    np.testing.assert_allclose(advantage.numpy().reshape(20, 4, 3).mean(-1), 0, atol=1e-6)
    alone = dataclasses.replace(config, meta_episodes_per_start=1)
    torch.testing.assert_close(target, made(alone).estimate(learner.collect(0))[1])  # values learn as ever


def test_the_deviation_of_actions_may_follow_a_schedule():
    schedule = {"initial_log_std": -1.0, "final_log_std": -3.0, "initial_action": 0.25, "max_iters": 3}
    config = dataclasses.replace(TINY, environment="diabetes_relative", meta_episode_len=4, **schedule)
    learner, found = made(config), []
    assert learner.policy.actor.out.bias.tolist() == [0.25, 0.0]  # action and value
    for i in range(3):
        learner.train_iteration(i)
        found.append(learner.policy.head.log_std.item())
    np.testing.assert_allclose(found, [-1, -2, -3])


def test_a_run_is_evaluated_on_its_own_agents_when_their_file_is_gone(tmp_path):
    poles = make_family("cart_pole", max_episode_len=30)
    path = tmp_path / "poles.npz"
    Population("cart_pole", poles.sample(np.random.default_rng(0), 3)).save(path)
    config = dataclasses.replace(TINY, environment="cart_pole", population=str(path))
    learner = made(config)
    path.unlink()
    agents = stored_problem(config, learner.state_dict(), Comm()).agents
    assert agents.keys() == learner.problem.agents.keys()
    for name, values in learner.problem.agents.items():
        np.testing.assert_array_equal(agents[name], values)
    with pytest.raises(UserError, match="no population at"):
        stored_problem(config, {}, Comm())


@pytest.mark.parametrize("name", ["diabetes", "diabetes_relative", "diabetes_reading", "diabetes_discrete"])
def test_settings_for_patients_work_together(name):
    """A meta-episode is two days that both last, and doses begin low, or at the own basal rate."""
    config = check_config(Config.defaults({"environment": name}))
    problem = make_problem(config, Comm())
    assert config.meta_episode_len == 2 * problem.horizon and config.early_ends == "wait"
    actor = Learner(config, Comm(), problem).actor()
    actor.reset(2)
    action = actor.act(np.zeros((2, problem.family.observation_space.shape[0]), np.float32))
    if name != "diabetes_discrete":
        np.testing.assert_allclose(action, 0 if name == "diabetes_relative" else -0.5, atol=0.1)


def test_training_starts_from_another_run_once_and_with_the_same_networks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = ("num_states", "num_actions", "max_episode_len", "num_features")
    sizes += ("meta_episodes_per_policy_update", "meta_episodes_per_learner_batch")
    small = [f"--{name}={getattr(TINY, name)}" for name in sizes]

    def run(*flags):
        monkeypatch.setattr("sys.argv", ["train", "rl2", *small, *flags])
        train.main(Comm())

    run("--meta_episode_len=10", "--max_iters=2", "--model_name=short")
    long = ["--meta_episode_len=20", "--start_from=checkpoints/short", "--model_name=long"]
    config = train.parse_arguments(["rl2", *small, *long], Comm())[1]
    trained = checkpoint.open_run("checkpoints/short", "rl2")[1]["policy"]
    for name, value in made(config).policy.state_dict().items():
        np.testing.assert_array_equal(value, trained[name], err_msg=name)

    run(*long, "--max_iters=1")
    Path("checkpoints/short").rename("elsewhere")  # it is needed once
    run(*long, "--max_iters=2")
    with pytest.raises(UserError, match="--start_from elsewhere: its networks are others"):
        run("--num_features=4", "--start_from=elsewhere", "--model_name=other")
    assert not Path("checkpoints/other").exists()
