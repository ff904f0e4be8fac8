"""Evaluation: hand-computed figures on walks, brute force on speeds, one protocol at any number of ranks."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.runs import checkpoint, run_folder
from envs import Problem, make_family
from mpi_utils.comm import Comm
from rmdp import evaluation
from rmdp.bounds import WALKS
from rmdp.config import Config, check_config
from rmdp.learner import Learner
from rmdp.problem import make_problem
from rmdp.scoring import Episodes, play, score
from tests.helpers.launch import command

MOVES = "UDLR"


class Tours:
    """Policies that walk given tours, whatever they see."""

    def __init__(self, tours):
        self.tours, self.num_policies, self.step = tours, len(tours), -1

    def most_likely(self, observation):
        self.step += 1
        moves = [MOVES.index(tour[self.step % len(tour)]) for tour in self.tours]
        return torch.tensor(moves)[:, None].expand(-1, observation.shape[1])


def walked(tours, cells, assignment, flags=(), **state):
    """Rows of an evaluation of `tours`."""
    config = dataclasses.replace(
        Config.defaults({"environment": "resource_gathering"}),
        num_agents=len(cells),
        num_policies=len(tours),
    )
    problem = Problem("resource_gathering", make_family("resource_gathering"), {"cell": np.array(cells)})
    settings = evaluation.parse_settings(["--episodes", "3", *flags], show=False)
    state["assignment"] = assignment
    return evaluation.evaluate_shared(config, problem, Tours(tours), state, settings, Comm())


def means(rows):
    return {row["metric"]: row["mean"] for row in rows if not {"agent", "policy"} & row.keys()}


# Policy 0 passes the cells 17, 16, 21 and comes home to 22 after 4 steps: 96 each. Policy 1 bumps the wall at
# home: 99 for cell 22. Nobody passes cell 0.
TWO, CELLS = ("ULDR", "D"), [17, 21, 22, 22, 0]


def test_welfare_by_hand():
    rows = walked(TWO, CELLS, {"policy_of": torch.tensor([0, 0, 0, 1, 1])})
    found = means(rows)
    assert found["social_welfare"] == pytest.approx((96 + 96 + 96 + 99 + 0) / 5)
    assert found["best_policy_welfare"] == pytest.approx((96 + 96 + 99 + 99 + 0) / 5)
    assert found["worst_decile"] == 0
    assert not {"expected_welfare", "training_welfare", "upper_bound"} & found.keys()
    policies = [row for row in rows if row["metric"] == "policy_return"]
    assert [(row["agents"], row["worst"]) for row in policies] == [(3, pytest.approx(96)), (2, 0)]
    assert [row["mean"] for row in policies] == pytest.approx([96, 49.5])
    walks = [row for row in rows if row["metric"] == "walk"]
    assert [row["cells"] for row in walks] == [[22, 17, 16, 21, 22], [22, 22]]
    assert [row["mean"] for row in walks] == [4, 1]
    assert walks[1]["assigned"] == [1] + [0] * 21 + [1, 0, 0]
    agents = [row for row in rows if row["metric"] == "agent_return"]
    assert [(row["agent"], row["policy"], row["cell"]) for row in agents] == list(
        zip(range(5), [0, 0, 0, 1, 1], CELLS, strict=True)
    )
    assert [row["mean"] for row in agents] == pytest.approx([96, 96, 96, 99, 0])
    head = {"method": "em", "environment": "resource_gathering", "num_agents": 5, "num_policies": 2, "n": 3}
    assert rows[0].items() >= (head | {"metric": "social_welfare", "se": 0, "seed": 0}).items()
    json.dumps(rows, allow_nan=False)


def test_soft_and_missing_assignments_by_hand():
    logits = torch.log(torch.tensor([[0.75] * 5, [0.25] * 5]))
    found = means(walked(TWO, CELLS, {"logits": logits, "moments": {}}))
    assert found["social_welfare"] == pytest.approx(4 * 96 / 5)  # all go to policy 0
    assert found["expected_welfare"] == pytest.approx((72 + 72 + 2 * (72 + 24.75)) / 5)
    rows = walked(TWO, CELLS, {}, welfare={"average": 0.1, "average_weight": 0.2})
    assert means(rows)["social_welfare"] == pytest.approx((48 + 48 + 2 * 97.5) / 5)
    assert means(rows)["training_welfare"] == pytest.approx(50)
    policies = [row for row in rows if row["metric"] == "policy_return"]
    assert [row["mean"] for row in policies] == pytest.approx([4 * 96 / 5, 2 * 99 / 5])


def test_a_policy_that_no_agent_is_assigned_to(capsys, tmp_path):
    rows = walked(TWO, CELLS, {"policy_of": np.zeros(5, np.int64)})
    empty = next(row for row in rows if row["metric"] == "policy_return" and row["policy"] == 1)
    assert (empty["agents"], empty["mean"], empty["worst"]) == (0, None, None)
    evaluation.show(rows)
    assert capsys.readouterr().out.splitlines()[-1].split() == ["1", "0", "-", "-", "-", "1.00"]
    evaluation.plot(rows, tmp_path / "walks.png", "two")
    assert (tmp_path / "walks.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("num_policies", "welfare"), [(1, 74.0), (3, 89.28)])
def test_the_best_known_walks_reach_the_upper_bound(num_policies, welfare):
    tours = WALKS[num_policies].split()
    logits = torch.zeros(num_policies, 25)
    found = means(walked(tours, range(25), {"logits": logits}))
    assert found["best_policy_welfare"] == pytest.approx(welfare)
    assert found["upper_bound"] == pytest.approx(welfare)
    assert found["share_of_upper_bound"] == pytest.approx(found["social_welfare"] / welfare)


@pytest.mark.parametrize("elements", [1, 30, 10**6])
def test_scores_are_those_of_plain_loops(elements):
    family, rng = make_family("hopper"), np.random.default_rng(0)
    length, n = np.array([[2, 4], [3, 1]]), 200  # more agents than blocks
    speed, target = rng.uniform(0, 2.5, 10), rng.uniform(0, 2.5, n)
    episodes = Episodes(speed[:, None].astype(np.float32), length, None)
    logits = rng.normal(size=(2, n))
    problem = Problem("hopper", family, {"target": target})
    found = score(problem, {"logits": logits}, episodes, Comm(), elements)
    returns, at = np.zeros((2, 2, n)), 0
    for j in range(2):
        for e in range(2):
            for v in speed[at : at + length[j, e]]:
                returns[j, e] += 0.1 * np.maximum(0, 1 - np.abs(v - target) / 0.125)
            at += length[j, e]
    mine, best = logits.argmax(0), returns.mean(1).argmax(0)
    weights = np.exp(logits) / np.exp(logits).sum(0)
    for j in range(2):
        assert np.allclose(found.assigned[j], returns[j][:, mine == j].sum(1), atol=1e-4)
        assert np.allclose(found.best[j], returns[j][:, best == j].sum(1), atol=1e-4)
        assert np.allclose(found.soft[j], (weights[j] * returns[j]).sum(1), atol=1e-4)
    assert np.allclose(found.own, returns.mean(1)[mine, np.arange(n)], atol=1e-5)


def learner(environment, **settings):
    sizes = {"num_policies": 2, "steps_per_policy": 64, "envs_per_policy": 4, "num_minibatches": 4}
    config = dataclasses.replace(Config.defaults({"environment": environment}), **{**sizes, **settings})
    made = Learner(check_config(config), Comm(), make_problem(config, Comm()))
    with torch.no_grad():  # so that actions differ from 0 and policies from each other
        made.policies.head.weight *= 5
    return made


def test_each_environment_counts_until_its_first_end():
    made = learner("hopper", num_agents=6)
    episodes = play(made.policies, made.problem.family, 3, 5, Comm())
    at = 0
    for j in range(2):
        for e in range(3):
            env = made.problem.family.make_shared(1, seed=5, index=[e])
            seen, speeds, ended = env.reset(), [], False
            while not ended:
                both = torch.from_numpy(np.stack([seen] * 2))
                step = env.step(made.policies.most_likely(both)[j].detach().numpy())
                seen, ended = step.observation, step.terminated[0] or step.truncated[0]
                speeds.append(step.outcome[0, 0])
            assert episodes.length[j, e] == len(speeds)
            assert np.allclose(episodes.outcome[at : at + len(speeds), 0], speeds, atol=1e-3)
            at += len(speeds)
    assert at == len(episodes.outcome) and len(set(episodes.length.ravel())) > 2


def test_a_learner_before_and_after_training(tmp_path):
    made = learner("half_cheetah", num_agents=1200, algorithm="end_to_end", max_episode_len=16)
    metrics = made.train_iteration(0)
    settings = evaluation.parse_settings(["--episodes", "2"], show=False)
    rows = evaluation.evaluate(dataclasses.asdict(made.config), made.state_dict(), settings, Comm())
    found = means(rows)
    assert found["training_welfare"] == pytest.approx(metrics["train/social_welfare"])
    assert (
        found["worst_decile"]
        <= found["social_welfare"]
        <= found["best_policy_welfare"]
        <= found["upper_bound"]
    )
    assert found["expected_welfare"] <= found["best_policy_welfare"]
    assert all(row["metric"] != "agent_return" for row in rows)  # more than 1000
    assigned = [row["assigned"] for row in rows if row["metric"] == "policy_speed"]
    assert np.sum(assigned) == 1200
    evaluation.plot(rows, tmp_path / "speeds.png", "two")
    assert (tmp_path / "speeds.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder as training writes it."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    made = learner("hopper", num_agents=60, policy_network="separate")
    run_folder.write_config(folder, {"system": "rmdp"} | dataclasses.asdict(made.config))
    checkpoint.save(folder, 12, made.state_dict())
    return folder


@pytest.mark.mpi
def test_the_command_gives_the_same_numbers_at_any_number_of_ranks(run, tmp_path):
    reports = []
    for num_ranks in (1, 2):
        flags = ["--episodes", 3, "--json", tmp_path / "rows.json", "--plot", tmp_path / "figure.png"]
        flags += ["--export", tmp_path / "policies"] if num_ranks == 2 else []
        result = command(num_ranks, "evaluate", run, *flags)
        assert result.code == 0 and result.output.count("social_welfare") == 1, result.output
        assert "Warning" not in result.output
        reports.append(json.loads((tmp_path / "rows.json").read_text()))
    assert reports[0] == reports[1]
    assert reports[0]["step"] == 12 and len(reports[0]["rows"]) > 7
    assert "iterations: 12" in (tmp_path / "policies" / "policy_1.md").read_text()


@pytest.mark.parametrize("flags", [["--episodes", "0"], ["--seed", "-1"], ["--episode", "3"], ["--export"]])
def test_bad_flags_get_one_line(flags):
    with pytest.raises(UserError) as error:
        evaluation.parse_settings(flags, show=True)
    assert "\n" not in str(error.value) and flags[0].strip("-") in str(error.value)


def test_export_before_there_is_an_assignment_is_refused(tmp_path):
    with pytest.raises(UserError, match="no agent is assigned"):
        walked(TWO, CELLS, {}, ["--export", str(tmp_path / "policies")])
