"""The prediction protocol, held against the true dynamics and against numbers worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import r2_score

from envs import make_family
from persim.data import behaviour
from persim.planning.true_dynamics import TrueModel
from persim.testing import prediction

AGENTS = {"gravity": np.array([0.0001, 0.0025])}


@pytest.fixture(scope="module")
def task():
    family = make_family("mountain_car")
    policies = behaviour.load(family)
    return prediction.draw_task(family, AGENTS, policies.test, 20, np.random.default_rng(0))


def test_the_true_dynamics_predict_to_rounding(task):
    family = make_family("mountain_car")
    predicted = prediction.predict(TrueModel(family, AGENTS), task)
    assert predicted.shape == (2, 20, prediction.NUM_STEPS, 2)
    rmse, r2 = prediction.score(task, predicted)
    assert np.nanmax(rmse) < 1e-3 and np.nanmin(np.nanmedian(r2, axis=1)) > 0.9999
    # The bound starts from the first of them, one step ahead.
    bound = prediction.upper_bound(family, task, predicted)
    np.testing.assert_array_equal(bound[:, :, 0], predicted[:, :, 0])
    assert np.nanmax(prediction.score(task, bound)[0]) < 1e-3


def test_the_first_prediction_starts_from_a_true_state(task):
    family = make_family("mountain_car")
    first = family.advance(task.states[:, :, 0], task.actions[:, :, 0], task.parameters)
    counted = task.counts[:, :, 0]
    np.testing.assert_allclose(first[counted], task.states[:, :, 1][counted], atol=1e-12)


def test_scores_are_those_of_a_library_and_ignore_what_comes_after_the_end(task):
    wrong = task.states[:, :, 1:] + np.random.default_rng(1).normal(size=(2, 20, prediction.NUM_STEPS, 2))
    beyond = np.where(task.counts[..., None], wrong, 1e9)
    rmse, r2 = prediction.score(task, beyond)
    lengths = task.counts.sum(2)
    assert lengths.min() < prediction.NUM_STEPS == lengths.max()  # agents of little gravity arrive early
    for a, c in ((0, 0), (0, 7), (1, 3)):
        n = lengths[a, c]
        true, own = task.states[a, c, 1 : n + 1], wrong[a, c, :n]
        assert rmse[a, c] == pytest.approx(np.sqrt(np.mean((own - true) ** 2)))
        assert r2[a, c] == pytest.approx(r2_score(true, own, multioutput="variance_weighted"))


def test_a_constant_has_an_r2_of_zero_and_no_score_where_nothing_counts(task):
    rmse, r2 = prediction.score(task, prediction.best_constant(task))
    counted = task.counts.sum(2) > 1
    np.testing.assert_allclose(r2[counted], 0, atol=1e-9)
    ended = prediction.PredictionTask(task.parameters, task.states, task.actions, np.zeros_like(task.counts))
    rmse, r2 = prediction.score(ended, prediction.best_constant(ended))
    assert np.isnan(rmse).all() and np.isnan(r2).all()
