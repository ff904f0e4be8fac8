"""The divergence study and the evaluation, with the least that shows what they are for."""

import dataclasses

import numpy as np
import pytest
import torch

from caml.config import Config
from caml.evaluation import Settings, evaluate
from caml.learner import Learner
from caml.study import divergence_study
from common.config import UsageError
from envs import make_family
from mpi_utils.comm import Comm


def test_divergences_find_the_groups_once_policies_have_learnt():
    family = make_family("particle")
    types = family.population(np.random.default_rng(0))
    start, learnt = divergence_study(Config(), family, types, types["group"], (0, 10))
    assert (start.update, learnt.update) == (0, 10)
    assert abs(start.scores["adjusted_rand_index"]) < 0.2
    assert learnt.scores["adjusted_rand_index"] > 0.9
    assert start.last_rewards.mean() < -1.0 and learnt.last_rewards.mean() > -0.4
    assert learnt.divergences.shape == (24, 24) and learnt.returns.shape == learnt.labels.shape == (24,)
    within = types["group"][:, None] == types["group"]
    assert learnt.divergences[within].mean() < learnt.divergences[~within].mean() / 4


SMALL = Config(
    **{"num_groups": 2, "num_variants": 2, "num_support": 2, "num_medoids": 2, "num_rollouts": 4},
    **{"tasks_per_iteration": 4, "pool_size": 4, "updates_per_task": 10},
)


def test_medoids_start_better_than_fresh_policies_on_unseen_types():
    learner = Learner(SMALL, Comm())
    stored = dataclasses.asdict(SMALL)
    with pytest.raises(UsageError, match="no medoids yet"):
        evaluate(stored, learner.state_dict(), Settings(), Comm())
    for i in range(3):
        learner.train_iteration(i)
    rows = evaluate(stored, learner.state_dict(), Settings(updates=2, repeats=3), Comm())
    assert len(rows) == 2 * 2 * 3 * 3  # methods, metrics, updates 0 to 2, two types and all
    last = {(r["method"], r["update"], r["entity_type"]): r for r in rows if r["metric"] == "last_reward"}
    for u in range(3):
        assert last["caml", u, "all"]["mean"] > last["random", u, "all"]["mean"] + 0.2
        types = [last["caml", u, int(t)]["mean"] for t in learner.types.query]
        assert last["caml", u, "all"]["mean"] == pytest.approx(np.mean(types))
    assert all(np.isfinite([row["mean"], row["se"]]).all() for row in rows)


def test_evaluation_leaves_the_medoids_alone():
    learner = Learner(dataclasses.replace(SMALL, max_episode_len=5, updates_per_task=1), Comm())
    learner.train_iteration(0)
    before = {name: value.clone() for name, value in learner.medoids.items()}
    evaluate(dataclasses.asdict(learner.config), learner.state_dict(), Settings(updates=1, repeats=1), Comm())
    assert all(torch.equal(value, before[name]) for name, value in learner.medoids.items())
