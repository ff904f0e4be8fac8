"""Welfare of choice: values and weights by hand, what an iteration makes of them, and any number of ranks."""

import dataclasses

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.runs import checkpoint
from envs import Problem, make_family
from mpi_utils.comm import Comm
from rmdp.agent_shard import AgentShard
from rmdp.config import Config, check_config
from rmdp.learner import Learner
from rmdp.problem import make_problem
from rmdp.welfare import OF_MEAN, Welfare, make_weights, parse_welfare
from tests.helpers.launch import command
from tests.helpers.runs import flat, same
from tests.rmdp import test_learner, test_own_dynamics

U = np.array([0.2, 0.4, 0.8, 1.0])


def test_values_by_hand():
    assert parse_welfare("mean") is None
    assert parse_welfare("p=1").value(U) == pytest.approx(0.6)
    assert parse_welfare("nash").value(U) == pytest.approx((0.2 * 0.4 * 0.8) ** 0.25)
    assert parse_welfare("p=-1").value(U) == pytest.approx(4 / (5 + 2.5 + 1.25 + 1))
    assert parse_welfare("cvar=.5").value(U) == pytest.approx(0.3)
    assert parse_welfare("worst").value(U) == 0.2
    assert parse_welfare("p=-100").value(U) == pytest.approx(0.2, rel=0.02)
    assert parse_welfare("nash").value(np.array([0.0, 1.0])) == pytest.approx(0.1)  # 0 counts like .01


@pytest.mark.parametrize("text", ["p=1", "nash", "p=.5", "p=-4"])
def test_weights_are_the_derivative_and_a_part_alike(text):
    welfare, step = parse_welfare(text), 1e-6
    slope = np.array([welfare.value(U + step * e) - welfare.value(U - step * e) for e in np.eye(4)])
    weights = welfare.weights(U)
    np.testing.assert_allclose(weights, (1 - OF_MEAN) * slope / slope.mean() + OF_MEAN, rtol=1e-6)
    assert weights.mean() == pytest.approx(1)


def test_the_worst_share_counts_for_nearly_all():
    for text, count in (("worst", 1), ("cvar=.5", 2)):
        weights = parse_welfare(text).weights(3 * U)
        assert weights.mean() == pytest.approx(1) and (np.diff(weights) <= 0).all()
        np.testing.assert_allclose(weights[:count], (1 - OF_MEAN) * 4 / count + OF_MEAN, rtol=0.01)
        np.testing.assert_allclose(weights[count:], OF_MEAN, atol=0.03)
    near = Welfare(share=0.5).weights(np.array([0.5, 0.503, 0.506, 0.509]))
    assert near.max() < 1.1  # agents at the border count in part


@pytest.mark.parametrize("text", ["", "best", "p=2", "p=x", "p=nan", "cvar=0", "cvar=1.5", "cvar", "nash=1"])
def test_what_is_no_welfare_is_told_in_one_line(text):
    with pytest.raises(UserError) as caught:
        check_config(dataclasses.replace(Config(), welfare=text))
    assert "--welfare" in str(caught.value) and "\n" not in str(caught.value)


def test_the_weight_by_a_return_is_that_by_the_utility_over_the_range():
    weights = make_weights("nash", AgentShard(Comm(), 2, {"cell": np.arange(2)}))
    weights.begin(np.array([0.0, 10.0]), np.array([1.0, 30.0]))
    weights.update(np.array([0.5, 20.0]))  # utilities .5, .5
    np.testing.assert_allclose(weights.weight, [1, 1 / 20])
    report = weights.report()
    assert report == pytest.approx(
        {"train/welfare": 0.5, "train/least_utility": 0.5, "train/largest_weight": 1}
    )


CASES = [
    (test_learner.TINY, "em"),
    (test_learner.TINY, "end_to_end"),
    (test_learner.CHEETAH, "em"),
    (test_own_dynamics.TINY, "em"),
    (test_own_dynamics.TINY, "random"),
]


@pytest.mark.parametrize(("config", "algorithm"), CASES)
def test_a_loaded_learner_continues_bit_for_bit(config, algorithm):
    config = dataclasses.replace(config, algorithm=algorithm, welfare="worst", max_iters=14)
    learners = [Learner(config, Comm(), make_problem(config, Comm())) for _ in range(2)]
    for i in range(12):  # with a survey after the tenth
        learners[0].train_iteration(i)
    state = learners[0].state_dict()
    learners[1].load_state_dict(state)
    assert same(learners[1].state_dict(), state)
    for learner in learners:
        metrics = learner.train_iteration(12)
    assert same(*(learner.state_dict() for learner in learners))
    if config.environment != "half_cheetah":  # whose episodes have not ended yet
        assert np.ptp(np.asarray(state["weights"]["weight"])) > 0 and metrics["train/largest_weight"] > 1


def test_equal_weights_change_nothing_and_others_shift_advantages():
    """Advantages of a policy are the sum over its agents, each times its weight."""
    batches = []
    for weight in (None, torch.ones(11), torch.linspace(0, 2, 11)):
        config = (
            test_learner.TINY if weight is None else dataclasses.replace(test_learner.TINY, welfare="nash")
        )
        slow = Problem("half_cheetah", make_family("half_cheetah"), {"target": np.linspace(-0.5, 0.5, 11)})
        learner = test_learner.make(dataclasses.replace(config, warm_start_iters=0), slow)
        population = learner.population
        if weight is not None:
            population.weights.weight = weight
        steps = population.collect(0, learner.policies)
        batches.append(population.estimate(steps, learner.policies.normaliser, learner.critic))
    np.testing.assert_array_equal(batches[0].advantage, batches[1].advantage)
    assert not np.allclose(batches[0].advantage, batches[2].advantage)
    np.testing.assert_array_equal(batches[0].value_target[0], batches[2].value_target[0])


@pytest.mark.mpi
@pytest.mark.parametrize("environment", ["resource_gathering", "cart_pole"])
def test_any_number_of_ranks_weighs_agents_alike(tmp_path, environment):
    flags = [
        "--environment",
        environment,
        "--welfare",
        "cvar=.3",
        "--max_iters",
        "11",
        *test_own_dynamics.FLAGS,
    ]
    states = []
    for ranks in (1, 2):
        where = ["--checkpoint_dir", str(tmp_path), "--model_name", f"on{ranks}"]
        done = command(ranks, "train", "rmdp", *where, *flags, limit=180)
        assert done.code == 0, done.output
        states.append(flat(checkpoint.load(checkpoint.newest_valid(tmp_path / f"on{ranks}")[0])[1]))
    assert states[0]["weights.weight"].std() > 0
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=5e-3, atol=5e-4, err_msg=name)


def test_an_environment_that_states_no_range_needs_a_reference(tmp_path):
    where = ["--checkpoint_dir", str(tmp_path), *test_own_dynamics.FLAGS, "--environment", "mountain_car"]
    done = command(1, "train", "rmdp", *where, "--welfare", "nash", "--max_iters", "2")
    assert done.code == 2 and "--reference: mountain_car states no best return" in done.output
    done = command(1, "train", "rmdp", *where, "--welfare", "nash", "--reference", str(tmp_path / "none"))
    assert done.code == 2 and "--reference" in done.output and "none" in done.output


def test_ranges_that_families_state():
    grid, speeds = make_family("resource_gathering"), make_family("hopper")
    floor, best = grid.return_range(grid.sample(None, 25))
    assert not floor.any() and (best[22], best[0]) == (0.99, 0.88)
    assert speeds.return_range({"target": np.zeros(3)})[1].tolist() == [100, 100, 100]
    cells = grid.newcomers(np.random.default_rng(0), 1000)["cell"]
    assert set(cells) == set(range(25))


def test_nobody_is_far_above_what_a_particles_range_states():
    """The relaxation to shares of moves bounds the return from above (Frank and Wolfe's gap)."""
    family = make_family("particle")
    agents = family.sample(np.random.default_rng(5), 20)
    floor, best = family.return_range(agents)
    moves, T = agents["moves"].astype(np.float64), family.max_episode_len
    lag = np.arange(T)[:, None] - np.arange(T)
    reach = np.where(lag >= 0, 0.1 * 0.025 * (1 - 0.75 ** (lag + 1.0)) / 0.25, 0)
    share, bound = np.full((20, T, 4), 0.25), np.full(20, np.inf)
    for _ in range(100):
        error = np.einsum("ts,nsa,nad->ntd", reach, share, moves, optimize=True) - 0.75
        slope = np.einsum("ts,ntd,nad->nsa", reach, -2 * error, moves, optimize=True)
        way = np.eye(4)[slope.argmax(-1)] - share
        gap = (slope * way).sum((1, 2))
        bound = np.minimum(bound, gap - np.square(error).sum((1, 2)))
        moved = np.einsum("ts,nsa,nad->ntd", reach, way, moves, optimize=True)
        share += np.clip(gap / (2 * np.square(moved).sum((1, 2))), 0, 1)[:, None, None] * way
    assert (floor == -112.5).all() and (best <= bound + 1e-6).all()
    assert ((best - floor) / (bound - floor)).min() > 0.99


def test_a_reference_run_tells_the_range_where_the_environment_does_not():
    from rmdp.reference import return_range

    family = make_family("cart_pole")
    problem = Problem("cart_pole", family, family.sample(np.random.default_rng(0), 3))
    floor, best = return_range(problem, "", 0, Comm())
    assert floor.tolist() == [0, 0, 0] and best.tolist() == [200, 200, 200]
