"""Agents with dynamics of their own: utilities are tried, each policy acts with agents assigned to it."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import train
from common.errors import UserError
from common.gae import above_alike
from common.runs import checkpoint
from common.runs.run_folder import write_config
from common.runs.seeding import Repeated, stream
from envs import Population, Problem, make_family
from envs.parameters import EnvError
from mpi_utils.comm import Comm
from rmdp.config import Config, check_config
from rmdp.learner import Learner
from rmdp.own_dynamics import (
    SURVEY_INTERVAL,
    OwnDynamics,
    StepEnv,
    draw,
    envs_for_whole_episodes,
    mean_returns,
    try_policies,
)
from rmdp.policy import Policies
from rmdp.problem import make_problem
from rmdp.shared_dynamics import SharedDynamics
from tests.helpers.launch import command
from tests.helpers.runs import flat, same

TINY = check_config(
    dataclasses.replace(
        Config.defaults({"environment": "cart_pole"}),
        num_agents=7,
        num_policies=3,
        num_features=8,
        steps_per_policy=64,
        envs_per_policy=4,
        num_epochs=2,
        num_minibatches=4,
        warm_start_iters=0,
        max_iters=2 * SURVEY_INTERVAL,
    )
)
FLAGS = (
    "--num_agents 7 --num_policies 3 --num_features 8 --steps_per_policy 64 --envs_per_policy 4 "
    "--num_epochs 2 --num_minibatches 4 --warm_start_iters 1 --checkpoint_interval 2"
).split()


def make(config, problem=None):
    return Learner(config, Comm(), problem or make_problem(config, Comm()))


def test_the_population_is_of_the_sort_that_the_problem_has():
    assert type(make(TINY).population) is OwnDynamics
    grid = dataclasses.replace(Config.defaults({"environment": "resource_gathering"}), num_agents=5)
    assert type(make(check_config(grid)).population) is SharedDynamics


@pytest.mark.parametrize(
    "environment", ["cart_pole", "mountain_car", "particle", "envs.examples:point_family"]
)
def test_a_loaded_learner_continues_bit_for_bit(environment):
    config = dataclasses.replace(TINY, environment=environment, max_iters=12)
    learner = make(config)
    for i in range(9):
        learner.train_iteration(i)
    state = learner.state_dict()
    other = make(config)
    other.load_state_dict(state)
    assert same(other.state_dict(), state)
    for i in range(9, 12):  # with surveys after the tenth and the last
        learner.train_iteration(i)
        other.train_iteration(i)
    assert not same(learner.state_dict(), state)
    assert same(other.state_dict(), learner.state_dict())
    assert learner.state_dict()["survey"]["weight"] > 1


def test_policies_act_with_agents_assigned_to_them():
    """Each of a policy's agents appears, none of another's does, and steps follow the agent's dynamics."""
    problem = make_problem(TINY, Comm())
    agents = draw(np.array([0, 0, 0, 0, 1, 2, 1]), 3, 4, np.random.default_rng(0))
    assert sorted(agents[:, 0].tolist()) == [0, 1, 2, 3]
    assert sorted(agents[:, 1].tolist()) == [4, 4, 6, 6] and agents[:, 2].tolist() == [5] * 4
    own = problem.rows(agents.ravel())
    env = StepEnv(problem.family.make_vec(own, np.random.default_rng(3)))
    before = env.reset().astype(np.float64)
    step = env.step(np.ones(12, np.int64))
    expected = problem.family.advance(before, np.ones(12, np.int64), own)
    np.testing.assert_allclose(step.final_observation, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(step.outcome, 1)


def test_trying_gives_what_episodes_played_alone_give():
    family = make_family("cart_pole")
    agents = family.sample(np.random.default_rng(1), 5)
    policies = Policies(TINY, family.observation_space, family.action_space)
    problem = Problem("cart_pole", family, agents)
    returns, steps = try_policies(policies, problem, np.random.default_rng(2))
    np.testing.assert_array_equal(returns, steps)  # each step has reward 1
    assert returns.shape == (3, 5) and returns.min() >= 5
    start = family.start(np.random.default_rng(2), 5)
    for j in range(3):
        for i in range(5):
            state, total, own = start[i : i + 1], 0, problem.rows(slice(i, i + 1))
            while True:
                seen = torch.from_numpy(np.repeat(state.astype(np.float32)[None], 3, axis=0))
                with torch.no_grad():
                    action = policies.most_likely(seen)[j].numpy()
                state, total = family.advance(state, action, own), total + 1
                if family.terminated(state)[0] or total == family.max_episode_len:
                    break
            assert returns[j, i] == total


def test_a_step_is_compared_with_those_beside_it_that_began_alike():
    """Two pairs of environments: the mean of a pair is taken from both, until one of them begins anew."""
    advantage = np.float32([[[1, 3, 10, 20], [2, 6, 10, 20], [5, 7, 0, 4]]])
    done = np.zeros((1, 3, 4), bool)
    done[0, 1, 0] = True
    above = above_alike(advantage, done, 2)
    np.testing.assert_array_equal(above, [[[-1, 1, -5, 5], [-2, 2, -5, 5], [5, 0, -2, 2]]])
    assert above_alike(advantage, done, 1) is advantage


def test_environments_that_begin_alike_have_one_agent_and_draw_alike():
    """Of 4 environments of each policy, pairs; noise of actions differs, chances do not."""
    config = dataclasses.replace(TINY, environment="mountain_car", num_agents=3, envs_per_start=2)
    steps = make(dataclasses.replace(config, algorithm="random")).population.collect(0, make(config).policies)
    first = steps.observation[:, 0].numpy()
    np.testing.assert_array_equal(first[:, ::2], first[:, 1::2])
    assert (first[:, 0] != first[:, 2]).any()
    assert (steps.action[:, :, 0] != steps.action[:, :, 1]).any()
    for num, said in ((3, "must divide --envs_per_policy .4."), (8, "must divide")):
        with pytest.raises(UserError, match=f"--envs_per_start {num}: {said}"):
            check_config(dataclasses.replace(config, envs_per_start=num))


@pytest.mark.parametrize("network", ["shared", "separate"])
def test_policies_begin_as_those_of_a_run_with_fewer(tmp_path, network):
    """Each of 7 acts, and is valued, as the one that its agent had among 2; other networks are refused."""
    config = dataclasses.replace(TINY, num_policies=2, policy_network=network, max_iters=2)
    few = make(config)
    for i in range(2):
        few.train_iteration(i)
    write_config(tmp_path, {"system": "rmdp", **dataclasses.asdict(config)})
    checkpoint.save(tmp_path, 2, few.state_dict())
    each = dataclasses.replace(config, num_policies=7, algorithm="random", start_from=str(tmp_path))
    many = make(each)
    many.population.begin(many.policies, many.critic)
    before, now = (learner.population.assignment.everyone() for learner in (few, many))
    assert sorted(now) == list(range(7)) and (np.diff(before[now.argsort()]) >= 0).all()
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32))
    for agent in range(7):
        for one, other in ((few.policies, many.policies), (few.critic, many.critic)):
            found = [f(x.expand(k, -1, -1)) for f, k in ((one, 2), (other, 7))]
            old, new = (getattr(y, "log_probs", y) for y in found)
            torch.testing.assert_close(new[now[agent]], old[before[agent]])
    with pytest.raises(UserError, match="--start_from .*nowhere: no such run folder"):
        make_problem(dataclasses.replace(each, start_from=str(tmp_path / "nowhere")), Comm())
    with pytest.raises(UserError, match="--start_from .*: has --num_features 8, not 16"):
        make_problem(dataclasses.replace(each, num_features=16), Comm())


def test_the_deviation_of_actions_may_follow_a_schedule():
    schedule = {"initial_log_std": -1.0, "final_log_std": -3.0, "initial_action": 0.25, "max_iters": 11}
    learner = make(dataclasses.replace(TINY, environment="diabetes", envs_per_policy=1, **schedule))
    assert learner.policies.head.bias.eq(0.25).all()
    found = []
    for i in range(11):
        learner.train_iteration(i)
        found.append(float(learner.policies.log_std.unique().item()))
    np.testing.assert_allclose(found, np.maximum(-1 - 0.2 * np.arange(11), -3), rtol=1e-6)


def test_starts_are_the_same_for_all_policies():
    rows = Repeated(np.random.default_rng(0), 3).random((6, 2))
    np.testing.assert_array_equal(rows, np.random.default_rng(0).random((2, 2)).repeat(3, axis=0))


def test_returns_of_episodes_that_end_inside_an_iteration():
    reward = np.arange(1.0, 13).reshape(1, 6, 2)  # environment 0 gives 1 3 5 7 9 11, environment 1 2 4 ...
    done = np.zeros((1, 6, 2), bool)
    done[0, [1, 4], 0] = True  # 1 + 3, 5 + 7 + 9
    done[0, 0, 1] = True  # 2
    assert mean_returns(reward, done, np.zeros(1))[0] == pytest.approx((4 + 21 + 2) / 3)
    assert mean_returns(reward, done & False, np.array([7.0]))[0] == 7


@pytest.mark.parametrize(
    ("steps", "horizon", "envs"),
    [(2048, 500, 4), (2048, 200, 8), (2048, 100, 16), (2048, 10, 32), (2048, 3000, 1), (60, 11, 5)],
)
def test_by_default_each_environment_plays_whole_episodes(steps, horizon, envs):
    assert envs_for_whole_episodes(steps, horizon) == envs


def test_what_is_cut_short_is_told_of_and_a_return_comes_after_the_first_episode(capsys):
    """A car that never arrives: episodes of MountainCar end after 500 steps."""
    whole = dataclasses.replace(Config.defaults({"environment": "mountain_car"}), num_agents=3)
    small = {"num_policies": 2, "num_features": 8, "num_epochs": 1, "steps_per_policy": 1024}
    config = check_config(dataclasses.replace(whole, **small, num_minibatches=4))
    learner = make(config)
    assert learner.population.m == 2 and not capsys.readouterr().err
    assert learner.train_iteration(0)["train/return"] < -200
    short = make(dataclasses.replace(config, envs_per_policy=8))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "128 steps in each environment" in said
    assert "up to 500" in said and "--envs_per_policy 2" in said
    for i in range(2):
        assert "train/return" not in short.train_iteration(i)
    state = short.state_dict()
    other = make(dataclasses.replace(config, envs_per_policy=8))
    other.load_state_dict(state)
    assert "train/return" not in other.population.report(2)
    del state["has_finished"]  # as in saves of earlier versions
    state["survey"]["finished"] = np.array([-150.0, -170.0])
    other.load_state_dict(state)
    assert -170 <= other.population.report(2)["train/return"] <= -150


def test_a_return_of_zero_is_a_return():
    learner = make(dataclasses.replace(TINY, environment="envs.examples:point_family"))
    population = learner.population
    population.has_finished[:], population.finished[:] = True, 0.0
    assert population.report(0)["train/return"] == 0.0
    population.has_finished[1] = False
    assert "train/return" not in population.report(0)


def test_a_survey_moves_agents_to_the_policy_that_is_best_for_them():
    learner = make(TINY)
    before = learner.population.assignment.everyone()
    reports = [learner.train_iteration(i) for i in range(SURVEY_INTERVAL)]
    assert reports[-1]["train/env_steps"] > SURVEY_INTERVAL * 3 * 64  # trying costs steps, too
    after, utility = (
        learner.population.assignment.everyone(),
        learner.state_dict()["survey"]["utility"].numpy(),
    )
    gain = utility.max(0) > utility[before, np.arange(7)]
    moved = after != before
    assert reports[-1]["train/flips"] == moved.sum() and not (moved & ~gain).any()
    assert (after[moved] == utility.argmax(0)[moved]).sum() >= moved.sum() - 2  # none is left empty
    assert set(after) == {0, 1, 2}


def test_one_policy_for_all_and_one_for_each_need_no_survey():
    for k, algorithm in ((1, "em"), (7, "random")):
        learner = make(dataclasses.replace(TINY, num_policies=k, algorithm=algorithm))
        report = [learner.train_iteration(i) for i in range(SURVEY_INTERVAL)][-1]
        assert report["train/env_steps"] == SURVEY_INTERVAL * k * 64
        assert len(set(learner.population.assignment.everyone().tolist())) == k


def test_a_policy_for_each_value_of_a_parameter(tmp_path):
    group = np.array([2, 0, 1, 1, 2, 0, 0])
    family = make_family("particle")
    agents = family.check({**family.sample(np.random.default_rng(0), 7), "group": group})
    Population("particle", agents).save(tmp_path / "kinds.npz")
    given = {"environment": "particle", "algorithm": "given", "population": str(tmp_path / "kinds.npz")}
    config = dataclasses.replace(TINY, **given, assign_by="group", max_iters=1)
    learner = make(config)
    learner.train_iteration(0)
    assert learner.population.assignment.everyone().tolist() == group.tolist()
    for wrong, said in (
        ({"num_policies": 2}, "--assign_by 'group': has 3 values among the agents; give --num_policies 3"),
        ({"assign_by": "age"}, "--assign_by 'age': no parameter of one number an agent; choose one of"),
    ):
        with pytest.raises(UserError, match=said):
            make_problem(dataclasses.replace(config, **wrong), Comm())


@pytest.mark.nightly
def test_a_policy_learns_to_balance():
    sizes = {"num_policies": 1, "num_features": 32, "steps_per_policy": 2048, "envs_per_policy": 8}
    config = dataclasses.replace(TINY, **sizes, num_minibatches=16, num_epochs=6, max_iters=20)
    learner = make(config)
    returns = [learner.train_iteration(i)["train/return"] for i in range(20)]
    assert returns[0] < 60 and returns[-1] > 150


@pytest.mark.nightly
def test_two_kinds_of_particles_find_a_policy_each():
    """Moves are mirrored between kinds, so one policy cannot be good for both; EM has to tell them apart."""
    family = make_family("particle")
    towards = np.float32([[1, 0], [0, 1], [-1, 0], [0, -1]])
    moves = np.stack([towards, -towards])[np.arange(8) % 2]
    sizes = {"num_agents": 8, "num_policies": 2, "steps_per_policy": 800, "envs_per_policy": 8}
    sizes |= {"num_features": 32, "num_minibatches": 8, "num_epochs": 6, "max_iters": 60}
    config = dataclasses.replace(TINY, environment="particle", **sizes)
    agents = family.check({"moves": moves, "group": np.arange(8) % 2})
    learner = make(config, Problem("particle", family, agents))
    for i in range(60):
        learner.train_iteration(i)
    policy_of = learner.population.assignment.everyone()
    assert len(set(policy_of[::2])) == 1 and len(set(policy_of[1::2])) == 1
    assert policy_of[0] != policy_of[1]


@pytest.mark.mpi
def test_any_number_of_ranks_learns_the_same_and_its_run_is_evaluated(tmp_path):
    where = ["--checkpoint_dir", str(tmp_path), "--environment", "cart_pole", "--max_iters", "3"]
    states = []
    for ranks in (1, 3):
        done = command(ranks, "train", "rmdp", *FLAGS, *where, "--model_name", f"ranks_{ranks}")
        assert done.code == 0, done.output
        path, _ = checkpoint.newest_valid(tmp_path / f"ranks_{ranks}")
        states.append(flat(checkpoint.load(path)[1]))
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=2e-3, atol=2e-4, err_msg=name)
    reports = []
    for ranks in (1, 2):
        flags = ["--episodes", "4", "--json", str(tmp_path / f"{ranks}.json")]
        done = command(ranks, "evaluate", str(tmp_path / "ranks_3"), *flags)
        assert done.code == 0 and "cart_pole, em: 3 policies for 7 agents" in done.output, done.output
        reports.append(json.loads((tmp_path / f"{ranks}.json").read_text())["rows"])
    assert (tmp_path / "ranks_3" / "evaluation.png").exists()
    values = [
        {(r["method"], r["metric"], r.get("policy"), r.get("agent")): r["mean"] for r in rows}
        for rows in reports
    ]
    assert values[0] == values[1]
    each = [r["mean"] for r in reports[0] if r["metric"] == "agent_return"]
    assert len(each) == 7 and values[0]["em", "social_welfare", None, None] == pytest.approx(np.mean(each))
    assert values[0]["em", "best_policy_welfare", None, None] >= values[0]["em", "social_welfare", None, None]


def test_a_population_in_a_file_is_the_problem(tmp_path):
    population = Population("cart_pole", make_family("cart_pole").sample(stream(0, "tasks"), 7))
    population.save(tmp_path / "poles.npz")
    config = dataclasses.replace(TINY, population=str(tmp_path / "poles.npz"))
    agents = make_problem(config, Comm()).agents
    np.testing.assert_array_equal(agents["force"], population.parameters["force"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"environment": "cartpole"}, "--environment cartpole: unknown; choose one of half_cheetah"),
        ({"algorithm": "cluster"}, "--algorithm cluster: scores all agents on the same steps"),
        ({"target_high": 2.0}, "cart_pole has no target speeds"),
        ({"environment": "half_cheetah", "envs_per_policy": 0}, "--envs_per_policy 0: only where agents"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(settings, said):
    with pytest.raises(UserError, match=said):
        check_config(dataclasses.replace(TINY, **settings))


def test_a_run_goes_on_wherever_its_files_lie_now(tmp_path, monkeypatch):
    """Agents are compared, not the paths of their files; others are refused."""

    def run(population, iterations):
        words = f"train rmdp {' '.join(FLAGS)} --environment cart_pole --checkpoint_dir {tmp_path}"
        words += f" --model_name moved --population {tmp_path}/{population} --max_iters {iterations}"
        monkeypatch.setattr("sys.argv", words.split())
        train.main(Comm())

    poles = make_family("cart_pole")
    for name, seed in (("here.npz", 0), ("there.npz", 0), ("others.npz", 1)):
        Population("cart_pole", poles.sample(np.random.default_rng(seed), 7)).save(tmp_path / name)
    run("here.npz", 1)
    (tmp_path / "here.npz").unlink()
    run("there.npz", 2)
    assert checkpoint.newest_valid(tmp_path / "moved")[0].name == "step_00000002"
    with pytest.raises(EnvError, match="--population: other agents than those of the run"):
        run("others.npz", 3)


def test_a_start_with_one_policy_more_splits_the_one_whose_agents_are_worst_off(tmp_path):
    where = ["--checkpoint_dir", str(tmp_path), *FLAGS, "--environment", "cart_pole", "--max_iters", "2"]
    done = command(1, "train", "rmdp", *where, "--model_name", "three")
    assert done.code == 0, done.output
    before = checkpoint.open_run(tmp_path / "three", "rmdp")[1]
    config = dataclasses.replace(TINY, num_policies=4, start_from=str(tmp_path / "three"))
    learner = make(config)
    learner.population.begin(learner.policies, learner.critic)
    policy_of, old = learner.population.assignment.everyone(), np.asarray(before["assignment"]["policy_of"])
    new = policy_of == 3
    source = np.unique(old[new])
    assert len(source) == 1 and new.sum() == (old == source[0]).sum() // 2
    np.testing.assert_array_equal(policy_of[~new], old[~new])
    head = learner.policies.head.weight
    np.testing.assert_array_equal(head[3].detach(), before["policy"]["head.weight"][source[0]])
    assert learner.population.env_steps > 0
