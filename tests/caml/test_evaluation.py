"""The evaluation: few-shot adaptation of medoids beside baselines, its rows, figure and refusals."""

import dataclasses
import functools
import re

import numpy as np
import pytest
import torch

import caml
from caml import evaluation, report
from caml.baselines import METHODS
from caml.config import Config
from caml.evaluation import evaluate, parse_settings
from caml.fewshot import Adaptation, Start, adaptation_curve
from caml.learner import Learner
from caml.policy import Actor
from caml.problem import groups_of, identities, make_problem, query_of
from common.errors import UserError
from common.rollout import play
from mpi_utils.comm import Comm
from tests.helpers.launch import mpirun

SMALL = Config(
    **{"num_groups": 2, "num_variants": 2, "num_support": 2, "num_medoids": 2, "num_rollouts": 4},
    **{"tasks_per_iteration": 4, "pool_size": 4, "updates_per_task": 10},
)
SHORT = dataclasses.replace(SMALL, max_episode_len=8, updates_per_task=1)
CART_POLES = dataclasses.replace(SHORT, environment="envs.examples:cart_pole_family", max_episode_len=20)


NAMED = ("--environment", CART_POLES.environment)


@functools.cache
def trained(config, iterations=2):
    learner = Learner(config, Comm(), make_problem(config, Comm()))
    for i in range(iterations):
        learner.train_iteration(i)
    return learner


def rows_of(config, *flags, comm=None, iterations=2):
    settings = parse_settings([*flags], show=False)
    state = trained(config, iterations).state_dict()
    return evaluate(dataclasses.asdict(config), state, settings, comm or Comm())


def of(rows, metric):
    return {(r["method"], r["update"], r["agent"]): r for r in rows if r["metric"] == metric}


@pytest.mark.parametrize("selection", ["mean", "halving"])
def test_medoids_start_better_than_fresh_policies_on_unseen_agents(selection):
    flags = "--baselines random --study False --updates 2 --repeats 3 --medoid_selection".split()
    rows = rows_of(SMALL, *flags, selection, iterations=3)
    last, total = of(rows, "last_reward"), of(rows, "return")
    query = query_of(trained(SMALL, 3).problem)
    assert len(last) == len(total) == 2 * 3 * 3  # methods, updates 0 to 2, two agents and all
    for u in range(3):
        assert last["caml", u, "all"]["mean"] > last["random", u, "all"]["mean"] + 0.2
        agents = [last["caml", u, int(a)]["mean"] for a in query]
        assert last["caml", u, "all"]["mean"] == pytest.approx(np.mean(agents))
        assert last["caml", u, "all"]["n"] == 2 and last["caml", u, int(query[0])]["n"] == 3
        assert total["caml", u, "all"]["mean"] < 10 * last["caml", u, "all"]["mean"]


def test_rows_of_all_baselines_and_the_study():
    rows = rows_of(SHORT, "--updates", "1", "--repeats", "2")
    assert {r["method"] for r in rows} == {"caml", *METHODS, "scratch"}
    assert all(np.isfinite(r["mean"]) for r in rows)
    scores = {r["update"]: r for r in rows if r["metric"] == "adjusted_rand_index"}
    assert list(scores) == [0, 10, 20, 40] and all(-1 <= r["mean"] <= 1 for r in scores.values())
    steps = {r["method"]: r["mean"] for r in rows if r["metric"] == "env_steps"}
    budget = trained(SHORT).env_steps
    assert steps["caml"] == budget and steps["random"] == 0
    assert all(budget <= steps[name] < budget + 5 * 4 * 4 * 8 for name in METHODS if name != "random")
    ends = [r for r in rows if r["metric"] == "end_points"]
    assert len(ends) == 8 and all(np.shape(r["points"]) == (4, 2) for r in ends)
    maps = [r for r in rows if r["metric"] == "embedding"]
    assert all(np.shape(r["points"]) == (4, 2) and sorted(r["groups"]) == [0, 0, 1, 1] for r in maps)
    assert {r["metric"] for r in rows if r["metric"].startswith("medoids_")} == {
        f"medoids_{name}"
        for name in ("adjusted_rand_index", "normalised_mutual_information", "silhouette", "groups_covered")
    }


@pytest.mark.slow
def test_the_figure_and_the_table_are_made_from_the_rows(tmp_path, capsys):
    full = rows_of(SHORT, "--baselines", "random,joint,same_agent,maml", "--updates", "1", "--repeats", "1")
    bare = rows_of(CART_POLES, "--baselines", "none", "--environment", CART_POLES.environment)
    for number, rows in enumerate((full, bare)):
        path = tmp_path / "new" / f"{number}.png"
        evaluation.plot(rows, path, "a run")
        assert path.read_bytes()[:4] == b"\x89PNG"
        evaluation.show(rows)
        assert "caml" in capsys.readouterr().out
    assert {r["method"] for r in bare} == {"caml"}
    assert {r["metric"] for r in bare} == {"return", "last_reward", "env_steps"}


def test_a_run_may_have_one_agent_in_each_group_and_one_repeat():
    config = dataclasses.replace(SHORT, num_variants=1, num_support=1, num_medoids=1)
    rows = rows_of(config, "--baselines", "same_agent", "--repeats", "1", "--updates", "1")
    assert all(np.isfinite(r["mean"]) for r in rows)
    assert of(rows, "return")["caml", 0, "all"]["se"] is None


def test_evaluation_leaves_the_medoids_alone():
    learner = trained(SHORT)
    before = {name: value.clone() for name, value in learner.medoids.items()}
    rows_of(SHORT, "--updates", "1", "--repeats", "1", "--baselines", "none", "--study", "False")
    assert all(torch.equal(value, before[name]) for name, value in learner.medoids.items())


def test_the_same_seed_gives_the_same_rows_and_another_others():
    flags = ["--updates", "1", "--repeats", "1", "--baselines", "random,different_agent", "--study", "False"]
    first, again, other = (rows_of(SHORT, *flags, "--seed", seed) for seed in "001")
    assert first == again and first != other


def curve(start, config, selection="mean"):
    problem = trained(SHORT).problem
    adaptation = Adaptation(
        start, problem, config, query_of(problem), iteration=0, own=slice(0, 2), selection=selection
    )
    return adaptation_curve(adaptation, start, 1)[0]


def test_methods_share_their_noise():
    """Of two methods that start from the same policies, returns are the same to the last bit."""
    first = trained(SHORT).start().policies.take(torch.tensor([0]))
    start, choice = Start(first, np.zeros(2, int)), Start(first)
    assert np.array_equal(curve(start, SHORT), curve(start, SHORT))
    frozen = dataclasses.replace(SHORT, learning_rate=1e-12)
    curves = [curve(start, frozen), curve(choice, frozen), curve(choice, frozen, "halving")]
    assert np.array_equal(curves[0], curves[1]) and np.array_equal(curves[0], curves[2])


@pytest.mark.mpi
def test_ranks_agree():
    done = mpirun(3, "-c", RANKS)
    assert done.code == 0, done.output
    assert done.output.count("same") == 3


RANKS = """
from mpi_utils.comm import Comm, world
from tests.caml.test_evaluation import CART_POLES, SHORT, rows_of
few = "--repeats 1 --updates 1 --study False".split()
halving = [*few, *"--baselines random --medoid_selection halving".split()]
assert rows_of(SHORT, *halving, comm=world()) == rows_of(SHORT, *halving)
others = [*few, *"--baselines joint,different_agent,maml --environment".split(), CART_POLES.environment]
assert rows_of(CART_POLES, *others, comm=world()) == rows_of(CART_POLES, *others)
print("same")
"""


# --- acting


def test_a_learner_acts_for_agents_with_policies_adapted_to_them():
    learner = trained(SMALL, 3)
    problem, agents = learner.problem, np.array([3, 0])
    env = problem.family.make_vec(problem.rows(agents.repeat(1)), np.random.default_rng(0))
    adapted = play(env, learner.actor(agents), 100).returns
    start = Actor(
        learner.start().policies.take([0]), problem.family.observation_space, problem.family.action_space
    )
    unadapted = play(problem.family.make_vec(problem.rows(agents)), start, 100).returns
    assert adapted.mean() > unadapted.mean() + 5


def test_a_stored_run_acts_in_one_line():
    run = "checkpoints/examples/caml_particle"
    first, adapted = caml.load(run), caml.load(run, [1, 2])
    assert len(first.policies) == 1 and len(adapted.policies) == 2
    adapted.reset(4)
    assert adapted.act(np.zeros((4, 2)), None, None).shape == (4,)


# --- what overlap allows


def test_what_can_be_told_apart_are_the_actions_that_go_right_or_up():
    for maps, many in (("identifiable", 6), ("released", 4)):
        problem = make_problem(Config(maps=maps), Comm())
        labels, groups = identities(problem), groups_of(problem)
        assert len(set(labels.tolist())) == many
        assert all(len(set(labels[groups == g].tolist())) == 1 for g in range(6))
    assert labels[groups == 0][0] == labels[groups == 5][0]  # the author's groups 1 and 6


def test_the_score_of_medoids_is_that_of_the_nearest():
    """Two medoids that go opposite ways and a pool of their copies."""
    state = trained(SHORT).state_dict()
    group = groups_of(trained(SHORT).problem)
    one, other = np.flatnonzero(group == 0)[0], np.flatnonzero(group == 1)[0]
    state["agent"] = torch.tensor([one, other])
    state["pool"] = {name: value.clone() for name, value in state["pool"].items()}
    bias = torch.zeros_like(state["policy"]["head.bias"])
    bias[0, 0], bias[1, 3] = 9, 9
    state["policy"] = state["policy"] | {"head.bias": bias}
    for name, value in state["policy"].items():
        state["pool"][name][:] = value[[0, 1, 1, 0]]
    learner = Learner(SHORT, Comm(), make_problem(SHORT, Comm()))
    state["pool"]["agent"][:] = torch.tensor([one, other, other, one])
    learner.load_state_dict(state)
    rows = {r["metric"]: r["mean"] for r in report.medoids(learner, group, 0)}
    assert rows["medoids_adjusted_rand_index"] == 1 and rows["medoids_groups_covered"] == 2
    state["pool"]["agent"][:] = torch.tensor([one, one, other, other])
    learner.load_state_dict(state)
    rows = {r["metric"]: r["mean"] for r in report.medoids(learner, group, 0)}
    assert rows["medoids_adjusted_rand_index"] < 0


def test_older_saves_say_type_for_agent():
    state = trained(SHORT).state_dict()
    old = {name: value for name, value in state.items() if name not in ("agent", "agents")}
    old |= {"type": state["agent"], "types": state["agents"]}
    old["pool"] = {{"agent": "type"}.get(name, name): value for name, value in state["pool"].items()}
    learner = Learner(SHORT, Comm(), make_problem(SHORT, Comm()))
    learner.load_state_dict(old)
    assert learner.state_dict().keys() == state.keys()
    assert torch.equal(learner.pool["agent"], state["pool"]["agent"])


# --- refusals


@pytest.mark.parametrize(
    "flags, text",
    [
        ("--baselines joint,nobody", "--baselines joint,nobody: 'nobody' is unknown; give all, none, or"),
        ("--baselines ,", "--baselines ,: no baseline is named; give all, none, or"),
        ("--updates 0", "--updates 0: must be greater than 0"),
        ("--repeats 0", "--repeats 0: must be greater than 0"),
        ("--seed -1", "--seed -1: must be 0 or more"),
        ("--medoid_selection best", "invalid choice 'best'"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused_in_one_line(flags, text):
    with pytest.raises(UserError, match=re.escape(text)) as caught:
        parse_settings(flags.split(), show=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config, iterations, text",
    [(SHORT, 0, "no medoids yet: they come with --pool_size (4)"), (CART_POLES, 2, "name it again")],
)
def test_runs_that_cannot_be_evaluated_are_refused_in_one_line(config, iterations, text):
    with pytest.raises(UserError, match=re.escape(text)) as caught:
        rows_of(config, iterations=iterations)
    assert "\n" not in str(caught.value)


def test_random_actions_of_points():
    """Points that walk at random, from the steps' spread; nothing is learnt from update to update."""
    config = dataclasses.replace(SHORT, environment="envs.examples:point_family", max_episode_len=10)
    problem = make_problem(config, Comm())
    agents = np.arange(problem.num_agents).repeat(200)
    curve = evaluation.random_curve(problem, config, agents, 1, Comm())
    assert curve.shape == (2, 2, len(agents))
    place = np.random.default_rng(5).uniform(-0.2, 0.2, (20000, 10)).cumsum(1)
    for i, target in enumerate(problem.agents["target"]):
        away = np.abs(place - target)
        own = curve[:, :, agents == i].mean(2)
        np.testing.assert_allclose(own[0], -away.sum(1).mean(), atol=0.35)
        np.testing.assert_allclose(own[1], -away[:, -1].mean(), atol=0.06)
    assert not np.array_equal(curve[0, 0], curve[0, 1])


def test_random_actions_stand_beside_starts_of_other_families():
    settings = parse_settings(["--repeats", "2", "--updates", "1", *NAMED], show=False)
    state = trained(CART_POLES).state_dict()
    rows = evaluate(dataclasses.asdict(CART_POLES), state, settings, Comm())
    found = [r for r in rows if r["method"] == "random_actions"]
    assert {r["metric"] for r in found} == {"return", "last_reward", "env_steps"}
    assert all(1 <= r["mean"] <= 20 for r in found if r["metric"] == "return")
    assert next(r["mean"] for r in found if r["metric"] == "env_steps") == 0
