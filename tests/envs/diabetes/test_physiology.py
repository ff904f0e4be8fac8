"""The physiology beside recorded numbers, beside the reference itself, and at rest."""

import numpy as np
import pytest

from benchmarks import diabetes_reference as reference
from envs.diabetes.patients import choose
from envs.diabetes.physiology import Physiology, basal_rate
from tests.helpers.simglucose import needs_simglucose

pytestmark = needs_simglucose
TEN = np.arange(0, 30, 3)  # four adolescents, three adults, three children
MEALS = {420: 50.0, 430: 10.0, 720: 80.0, 960: 15.0, 1140: 60.0}  # by minute, g; the second joins the first
BOLUSES = {410: 50.0, 700: 80.0, 1150: 60.0}  # by minute; 0.8 of the clinic's ratio


def day(patients):
    """Grams and doses [1440, n] of a day."""
    grams = np.zeros((1440, len(patients["BW"])))
    dose = np.tile(basal_rate(patients), (1440, 1))
    for minute, amount in MEALS.items():
        grams[minute] = amount
    for minute, amount in BOLUSES.items():
        dose[minute : minute + 5] += 0.8 * amount / patients["CR"] / 5
    return grams, dose


def traces(patients, absorption):
    """Glucose [1440, n]."""
    body, (grams, dose) = Physiology(patients, absorption), day(patients)
    found = []
    for meal, insulin in zip(grams, dose, strict=True):
        body.minute(meal if meal.any() else None, insulin)
        found.append(body.glucose)
    return np.array(found)


@pytest.fixture(scope="module")
def patients():
    return {name: values[TEN] for name, values in choose("all").items()}


RECORDED = {
    "published": [
        [149.020, 159.972, 128.024, 116.718, 144.128, 110.631],
        [144.700, 234.445, 160.527, 163.488, 219.631, 111.912],
        [145.160, 276.578, 138.264, 171.277, 265.849, 103.447],
        [144.870, 184.192, 166.883, 164.060, 210.792, 131.382],
        [147.100, 243.239, 118.186, 102.445, 241.346, 96.381],
        [135.640, 192.140, 165.067, 176.958, 219.169, 151.235],
        [145.080, 200.374, 177.152, 195.619, 169.868, 111.518],
        [143.393, 199.330, 171.623, 170.617, 192.635, 109.287],
        [137.870, 109.120, 115.668, 108.857, 137.168, 79.286],
        [151.309, 480.982, 130.342, 150.779, 455.860, 83.659],
    ],
    "corrected": [
        [149.020, 159.053, 138.049, 124.670, 149.931, 122.753],
        [144.700, 212.427, 189.977, 189.540, 221.372, 151.891],
        [145.160, 252.400, 169.176, 225.614, 257.821, 132.843],
        [144.870, 171.032, 183.976, 180.192, 217.009, 160.040],
        [147.100, 182.505, 178.658, 144.618, 214.827, 171.602],
        [135.640, 168.355, 175.207, 192.486, 208.741, 169.512],
        [145.080, 192.271, 210.688, 177.933, 198.054, 174.773],
        [143.393, 188.758, 188.445, 177.520, 200.931, 138.435],
        [137.870, 107.545, 118.261, 110.549, 137.701, 82.429],
        [151.309, 415.933, 162.019, 245.618, 415.868, 115.511],
    ],
}


@pytest.mark.parametrize("absorption", ["published", "corrected"])
def test_a_day_of_ten_patients_as_recorded(patients, absorption):
    """Every four hours, to .01 mg/dl."""
    found = traces(patients, absorption)[239::240].T
    np.testing.assert_allclose(found, RECORDED[absorption], rtol=0, atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("absorption, some", [("published", range(10)), ("corrected", (0, 4, 8))])
def test_a_day_is_the_references(patients, absorption, some):
    rows = reference.table()
    found, (grams, dose) = traces(patients, absorption), day(patients)
    for i in some:
        patient = reference.patient(rows[TEN[i]], absorption == "corrected")
        theirs = reference.glucose(patient, grams[:, i], dose[:, i])
        np.testing.assert_allclose(found[:, i], theirs, rtol=0, atol=0.005)


def test_at_rest_nothing_moves_and_the_file_says_the_same():
    rows = reference.table()
    body = Physiology(choose("all"), "published")
    first = [[row[f"x0_{number:2d}"] for row in rows] for number in range(1, 14)]
    np.testing.assert_allclose(body.rest, first, rtol=1e-9)
    basal = [row["u2ss"] * row["BW"] / 6000 for row in rows]
    np.testing.assert_allclose(body.basal, basal, rtol=1e-9)
    for _ in range(60):
        body.minute(None, body.basal)
    np.testing.assert_allclose(body.state, first, rtol=1e-9, atol=1e-9)


def test_meals_are_eaten_at_five_grams_a_minute(patients):
    body = Physiology({name: values[:2] for name, values in patients.items()}, "corrected")
    bites = []
    for minute in range(6):
        body.minute(np.array([12.0, 0.0]) if minute == 1 else None, body.basal)
        bites.append(body.meal["bite"].tolist())
    assert bites == [[0, 0], [5, 0], [5, 0], [2, 0], [0, 0], [0, 0]]
    assert body.meal["eaten"].tolist() == [12, 0]
    assert body.state[0, 0] > 0 and body.state[0, 1] == 0


def test_the_stomach_of_the_corrected_version_empties_more_slowly(patients):
    body, slow = (Physiology(patients, absorption) for absorption in ("published", "corrected"))
    for minute in range(60):
        for one in (body, slow):
            one.minute(np.full(10, 80.0) if minute == 0 else None, one.basal)
    assert (slow.state[:2].sum(0) > body.state[:2].sum(0) + 300).all()


def test_patients_do_not_depend_on_who_else_is_there(patients):
    whole = traces(patients, "corrected")
    part = traces({name: values[3:5] for name, values in patients.items()}, "corrected")
    np.testing.assert_allclose(part, whole[:, 3:5], rtol=1e-12)


def test_glucose_below_zero_does_not_move():
    body = Physiology(choose("adult#001"), "published")
    body.state[3] = -1.0
    before, out = body.state.copy(), np.empty((13, 1))
    body.slopes(body.state, np.zeros(1), out)
    assert out[3, 0] == 0 and out[4, 0] != 0
    np.testing.assert_array_equal(body.state, before)
