"""The sensor beside the reference's own numbers and its formula's moments; meals by their rules."""

import numpy as np
import pytest

from benchmarks.diabetes_reference import load
from envs.diabetes.meals import Meals
from envs.diabetes.sensor import DELTA, GAMMA, LAMBDA, SPLINE, XI, errors
from envs.keyed import child, keys, normal, uniform
from envs.parameters import EnvError
from tests.helpers.simglucose import needs_simglucose


@needs_simglucose
def test_errors_are_the_references_with_its_own_random_numbers():
    class Parameters(dict):
        Name = "GuardianRT"

    values = {"PACF": 0.7, "gamma": GAMMA, "lambda": LAMBDA, "delta": DELTA, "xi": XI, "sample_time": 5.0}
    theirs = load("sensor.noise_gen").CGMNoise(Parameters(values), seed=4)
    draws, found = np.random.RandomState(4).randn(31, 1), []
    noise = draws[0]
    for block in range(3):
        error, noise = errors(noise, draws[1 + 10 * block : 11 + 10 * block])
        found += error[:, 0].tolist()
    np.testing.assert_allclose(found, [next(theirs) for _ in range(90)], atol=1e-9)


def test_the_spline_goes_through_its_knots_and_is_exact_for_cubics():
    knots, points = np.arange(11.0), np.arange(1, 31) / 3
    np.testing.assert_allclose(SPLINE[2::3] @ knots**2, knots[1:] ** 2, atol=1e-8)
    np.testing.assert_allclose(SPLINE @ (knots**3 - 5 * knots), points**3 - 5 * points, atol=1e-8)


def test_mean_deviation_and_autocorrelation_are_those_of_the_formula():
    """At the knots e is normal with variance .49 / .51 and correlation .7, so moments of sinh are known."""
    key = keys(np.random.default_rng(0).random(60_000))
    noise, rows = normal(key, 0), []
    for block in range(3):
        error, noise = errors(noise, normal(key, 1 + 10 * block + np.arange(10)[:, None]))
        rows.append(error[2::3])
    found = np.concatenate(rows)[10:]  # the first noise has variance 1
    variance, mean = 0.49 / 0.51 / DELTA**2, -GAMMA / DELTA

    def product(correlation):  # E sinh sinh
        up = np.exp(variance * (1 + correlation)) * np.cosh(2 * mean)
        return (up - np.exp(variance * (1 - correlation))) / 2

    centre = np.exp(variance / 2) * np.sinh(mean)
    spread = product(1) - centre**2
    assert found.mean() == pytest.approx(XI + LAMBDA * centre, rel=0.02)
    assert found.std() == pytest.approx(LAMBDA * np.sqrt(spread), rel=0.02)
    for lag in (1, 2):
        ours = np.corrcoef(found[lag:].ravel(), found[:-lag].ravel())[0, 1]
        assert ours == pytest.approx((product(0.7**lag) - centre**2) / spread, rel=0.02)


def test_numbers_follow_from_key_and_counter():
    key = keys(np.random.default_rng(1).random(100_000))
    assert len(np.unique(child(key, 5))) == len(key)
    draws = uniform(key, np.arange(2)[:, None])
    assert draws.min() >= 0 and draws.max() < 1
    assert abs(np.corrcoef(draws)[0, 1]) < 0.01 and draws.mean(1) == pytest.approx(0.5, abs=0.005)
    np.testing.assert_array_equal(uniform(key[7:9], 1), draws[1, 7:9])
    bell = normal(key, np.arange(2)[:, None])
    assert bell.std(1) == pytest.approx(1, abs=0.01) and abs(bell.mean()) < 0.01
    assert abs(np.corrcoef(bell)[0, 1]) < 0.01


def test_splitmix_as_published():
    """The first outputs from seed 1234567, as its authors' test vectors have them."""
    first = [int(child(np.array([1234567], np.uint64), n)[0]) for n in range(3)]
    assert first == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_random_meals_keep_their_hours_amounts_and_chances():
    key = keys(np.random.default_rng(2).random(50_000))
    minute, grams = Meals("random").of_day(key, np.zeros(len(key), np.int64))
    eaten = grams > 0
    assert eaten.mean(1) == pytest.approx(0.95, abs=0.004)
    for row, hour, centre, spread in zip(range(3), (8, 13, 20), (45, 85, 80), (15, 15, 30), strict=True):
        assert minute[row].min() == 60 * hour - 60 and minute[row].max() == 60 * hour + 60
        assert minute[row].mean() == pytest.approx(60 * hour, abs=0.6)
        # A normal one cut off at one deviation has a deviation of .5397.
        assert minute[row].std() == pytest.approx(0.5397 * 60, rel=0.01)
        amounts = grams[row][eaten[row]]
        assert amounts.min() == centre - spread and amounts.max() == centre + spread
        assert amounts.mean() == pytest.approx(centre, abs=0.3) and (amounts == np.round(amounts)).all()
    other = Meals("random").of_day(key, np.ones(len(key), np.int64))[1]
    assert abs(np.corrcoef(other[1], grams[1])[0, 1]) < 0.02


def test_fixed_meals_and_ones_own():
    key, day = np.zeros(2, np.uint64), np.zeros(2, np.int64)
    minute, grams = Meals("fixed").of_day(key, day)
    assert minute.tolist() == [[480, 480], [780, 780], [1200, 1200]]
    assert grams.tolist() == [[40, 40], [80, 80], [60, 60]]
    minute, grams = Meals([(7.5, 20)]).of_day(key, day)
    assert minute.tolist() == [[450, 450]] and grams.tolist() == [[20, 20]]


@pytest.mark.parametrize(
    "meals, text",
    [
        ([(8, -5)], "a meal of -5 g; give grams from 0"),
        ([(8, 5000)], "a meal of 5000 g"),
        ([(24, 10)], "hour 24; give hours"),
        ([(8, float("nan"))], "is no pair"),
        ([(8,)], "is no pair"),
        ([8], "is no pair"),
        ("snacks", "give random, fixed"),
    ],
)
def test_meals_that_cannot_be(meals, text):
    with pytest.raises(EnvError, match=text):
        Meals(meals)
