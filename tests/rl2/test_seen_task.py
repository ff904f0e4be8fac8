"""The oracle: a policy that is shown the task."""

import dataclasses

import numpy as np
import pytest

from common.errors import UserError
from envs import make_family
from mpi_utils.comm import Comm
from rl2 import evaluation
from rl2.learner import Learner
from rl2.problem import hidden, make_problem
from rl2.seen_task import SeenTask, task_numbers
from tests.helpers import runs
from tests.helpers.launch import command

ALONE = ("--environment", "grid_navi", "--architecture", "none", "--see_task", "True")
FAMILIES = ("half_cheetah_vel", "ant_goal", "walker_params", "grid_navi", "sparse_point_robot", "tabular_mdp")


@pytest.mark.parametrize("name", FAMILIES)
def test_the_task_stands_behind_each_observation(name):
    family, rng = make_family(name), np.random.default_rng(0)
    seen, tasks = SeenTask(family), family.sample(rng, 4)
    plain, shown = (each.make_vec(tasks, np.random.default_rng(1)) for each in (family, seen))
    expected, found = plain.reset()[0], shown.reset()[0]
    numbers = task_numbers(family, tasks)
    family.action_space.seed(0)
    for _ in range(12):
        here = np.eye(family.observation_space.n)[expected] if expected.ndim == 1 else expected
        np.testing.assert_array_equal(found, np.float32(np.concatenate([here, numbers], 1)))
        assert all(seen.observation_space.contains(row) for row in found)
        action = np.stack([family.action_space.sample() for _ in range(4)])
        (expected, *before), (found, *after) = plain.step(action), shown.step(action)
        for one, other in zip(before[:3], after[:3], strict=True):
            np.testing.assert_array_equal(one, other)


def test_numbers_are_the_family_s_own_or_all_parameters_in_the_order_of_names():
    cheetahs = task_numbers(make_family("half_cheetah_vel"), {"target": np.array([1.5, 2.0])})
    np.testing.assert_array_equal(cheetahs, np.float32([[1.5], [2.0]]))
    goals = task_numbers(make_family("ant_goal"), {"y": np.array([3.0]), "x": np.array([1.0])})
    np.testing.assert_array_equal(goals, np.float32([[1, 3]]))
    cells = task_numbers(make_family("grid_navi"), {"goal": np.array([2, 24])})
    assert cells.shape == (2, 25) and (cells.argmax(1) == [2, 24]).all() and cells.sum() == 2
    walkers = make_family("walker_params")
    assert task_numbers(walkers, walkers.sample(np.random.default_rng(0), 3)).shape == (3, 65)


def test_the_first_observation_of_the_next_episode_and_the_last_one_show_the_task():
    seen = SeenTask(make_family("grid_navi", max_episode_len=2))
    env = seen.make_vec({"goal": np.array([7, 9])})
    env.reset()
    env.step(np.array([1, 1]))
    observation, *_, infos = env.step(np.array([1, 1]))
    assert (observation[:, :25].argmax(1) == 0).all() and (observation[:, 25:].argmax(1) == [7, 9]).all()
    last = infos["final_obs"]
    assert (last[:, :25].argmax(1) == 2).all() and (last[:, 25:].argmax(1) == [7, 9]).all()


def test_what_cannot_be_shown_is_refused_in_one_line():
    class Ragged:
        name, max_episode_len = "ragged", 3
        observation_space = action_space = make_family("particle").observation_space

        def sample(self, rng, n):
            return {"words": np.array(["left"] * n)}

    with pytest.raises(UserError, match="--see_task True: the tasks of ragged cannot be shown as numbers"):
        SeenTask(Ragged())
    with pytest.raises(UserError, match="--warm_start bayes_greedy: its planner does not see the task"):
        runs.settings("rl2", "--warm_start", "bayes_greedy", "--see_task", "True")


@pytest.mark.parametrize("architecture", ["none", "lstm"])
def test_an_oracle_learns_what_nobody_can_know_else(architecture):
    """One step in a bandit whose best arm is shown; without, .5 is what an arm is worth on average."""
    flags = "--environment bandit --num_actions 3 --max_iters 40 --meta_episode_len 2 --num_features 16 "
    flags += "--meta_episodes_per_policy_update 240 --meta_episodes_per_learner_batch 60 --num_epochs 4 "
    config = runs.settings("rl2", *flags.split(), "--architecture", architecture, "--see_task", "True")
    config = dataclasses.replace(config, gamma=0.1)
    learner = Learner(config, Comm(), make_problem(config, Comm()))
    found = [learner.train_iteration(i)["train/return"] for i in range(config.max_iters)]
    assert np.mean(found[-5:]) > 1.3  # the best of three arms: 1.5; the mean of all: 1


def test_evaluation_hides_the_task_from_all_but_the_oracle(tmp_path, capsys):
    done = command(1, "train", *runs.flags("rl2", tmp_path, "run", *ALONE, "--max_iters", "2"))
    assert done.code == 0, done.output
    again = command(1, "train", *runs.flags("rl2", tmp_path, "run", *ALONE, "--max_iters", "4"))
    assert again.code == 0, again.output  # it goes on
    path = tmp_path / "rows.json"
    shown = command(1, "evaluate", tmp_path / "run", "--instances", "20", "--episodes", "2", "--json", path)
    assert shown.code == 0, shown.output
    for method in ("oracle_policy", "one_policy", "random"):
        assert method in shown.output
    refused = command(1, "train", *runs.flags("rl2", tmp_path, "run", *ALONE[:-2], "--max_iters", "4"))
    assert refused.code == 2 and "see_task" in refused.output


def test_classical_algorithms_play_beside_an_oracle():
    config = runs.settings("rl2", "--see_task", "True", "--architecture", "gru")
    problem = make_problem(config, Comm())
    assert isinstance(problem.family, SeenTask) and not isinstance(hidden(problem).family, SeenTask)
    learner = Learner(config, Comm(), problem)
    learner.train_iteration(0)
    stored = dataclasses.asdict(config) | {"iteration": 1}
    settings = evaluation.parse_settings(["--instances", "7"], show=False)
    rows = evaluation.evaluate(stored, learner.state_dict(), settings, Comm())
    assert rows[0]["method"] == "oracle_policy" and "psrl" in {r["method"] for r in rows}
