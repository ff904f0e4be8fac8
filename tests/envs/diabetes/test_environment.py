"""What the family shows, takes, rewards and ends."""

import gymnasium
import numpy as np
import pytest

from common.runs.seeding import SharedStream
from envs import make_family, note_of
from envs.diabetes import NOTE, Diabetes, risk
from envs.diabetes.physiology import basal_rate
from envs.parameters import EnvError
from tests.helpers.simglucose import needs_simglucose

pytestmark = needs_simglucose
SOME = ["adolescent#001", "adult#004", "child#007"]


def make(seed=0, patients=SOME, **settings):
    """A family and environments of some patients."""
    family = Diabetes(**settings)
    return family, family.make_vec(family.members(patients), np.random.default_rng(seed))


def basal_action(env):
    return (1 + np.log(env.basal / 5) / 4)[:, None].astype(np.float32)


def shown(observation):
    """Readings and doses [N, 12] of observations with history."""
    pairs = (np.asarray(observation, np.float64).reshape(len(observation), 12, 2) + 1) / 2
    return 39 + 561 * pairs[..., 0], 5 * pairs[..., 1]


def test_the_first_hour_is_at_the_own_basal_rate():
    _, env = make()
    readings, doses = shown(env.reset()[0])
    np.testing.assert_allclose(doses, env.basal[:, None].repeat(12, 1), atol=1e-6)
    assert (readings > 60).all() and (readings < 300).all()
    assert env.simulation.clock.tolist() == [0, 0, 0]
    hidden = make(see_calibration=False)[1].reset()[0]
    readings_then, doses = shown(hidden)
    assert (doses == 0).all()
    np.testing.assert_array_equal(readings_then, readings)


def test_a_pump_shows_what_still_acts_of_its_doses():
    """With three time constants, from rest at the own basal rate; nothing where its hour is hidden."""
    _, env = make(observation="pump")
    seen = env.reset()[0]
    minutes = np.array([45.0, 120.0, 300.0])
    expected = env.basal[:, None] * minutes
    np.testing.assert_allclose(seen[:, 24:], np.log(np.maximum(expected, 0.05)), rtol=1e-5)
    for step in range(3):
        seen = env.step(np.full((env.num_envs, 1), 0.2 * step - 0.5, np.float32))[0]
        expected = expected * np.exp(-5 / minutes) + 5 * env.given[:, None]
    np.testing.assert_allclose(seen[:, 24:], np.log(np.maximum(expected, 0.05)), rtol=1e-5)
    assert env.single_observation_space.contains(seen[0])
    _, hidden = make(observation="pump", see_calibration=False)
    np.testing.assert_allclose(hidden.reset()[0][:, 24:], np.log(0.05), rtol=1e-5)


def test_history_moves_on_and_the_plain_reading_is_its_end():
    _, env = make()
    _, plain = make(observation="reading")
    before, first = env.reset()[0], plain.reset()[0]
    np.testing.assert_array_equal(first[:, 0], before[:, -2])
    for action in (-0.4, 0.3):
        actions = np.full((3, 1), action, np.float32)
        after, single = env.step(actions)[0], plain.step(actions)[0]
        np.testing.assert_array_equal(after[:, :-2], before[:, 2:])
        np.testing.assert_allclose(shown(after)[0][:, -1], env.reading, atol=1e-4)
        np.testing.assert_allclose(shown(after)[1][:, -1], 5 * np.exp(4 * (action - 1)), atol=1e-5)
        np.testing.assert_array_equal(single[:, 0], after[:, -2])
        before = after


def test_doses_of_every_kind():
    basal = np.array([0.01, 0.02])
    half = np.array([[0.5], [-2.0]])
    np.testing.assert_allclose(Diabetes().rates(half, basal), 5 * np.exp([-2, -8]))
    np.testing.assert_allclose(Diabetes(dose="relative").rates(half, basal), basal * np.exp([2, -4]))
    rate = Diabetes(dose="rate")
    np.testing.assert_allclose(rate.rates(np.array([[0.0], [30.0]]), basal), [0, 30])
    for wrong in (-0.1, 30.5):
        with pytest.raises(EnvError, match="the pump gives 0 to 30"):
            rate.rates(np.array([[0.0], [wrong]]), basal)
    multiples = make_family("diabetes_discrete")
    assert multiples.action_space.n == 6
    np.testing.assert_allclose(multiples.rates(np.array([0, 5]), basal), [0, 0.16])
    own = Diabetes(discrete=True, doses=(0, 0.3))
    np.testing.assert_allclose(own.rates(np.array([1, 0]), basal), [0.3, 0])


def test_rewards_by_hand():
    """1 at 112.5 mg/dl; .922 at 70 and at 180, as the reference's; failures end the episode."""
    assert risk(np.array([112.5171, 70.0, 180.0, 600.0])) == pytest.approx([0, 7.77, 7.73, 99.95], abs=0.02)
    _, env = make(meals=[], dose="rate")
    env.reset()
    _, rewards, *_ = env.step(np.zeros((3, 1)))
    np.testing.assert_allclose(rewards, 1 - risk(env.reading) / 99.95, atol=1e-4)
    _, env = make(meals=[], dose="rate", reward="risk", max_episode_len=50)
    env.reset()
    _, rewards, *_ = env.step(np.zeros((3, 1)))
    np.testing.assert_allclose(rewards, -risk(env.reading) / 99.95, atol=1e-4)
    total = rewards.astype(float)
    for step in range(2, 50):  # insulin until everybody fails, which costs all that was to come
        _, rewards, failed, *_ = env.step(np.full((3, 1), 2.0))
        total += rewards
        if failed[0]:
            assert env.reading[0] <= 40 and rewards[0] == -(50 - step + 1) and total[0] < -(50 - step)
            break
    else:
        raise AssertionError("nobody failed")


def test_low_and_high_failures():
    _, env = make(meals=[], dose="rate", patients="all")
    first = env.reset()[0]
    ended = np.zeros(30, bool)
    for _ in range(60):
        observation, rewards, terminated, truncated, infos = env.step(np.full((30, 1), 1.0))
        assert ((env.reading <= 40) == terminated).all() and not truncated.any()
        assert (rewards[terminated] == -15).all() and (rewards[~terminated] > -0.5).all()
        if terminated.any():
            assert shown(infos["final_obs"])[0][terminated, -1].max() <= 40.001
            assert (env.elapsed[terminated] == 0).all() and (env.simulation.clock[terminated] == 0).all()
            assert shown(observation)[0][terminated, -1].min() > 60
        ended |= terminated
    assert ended.sum() > 25 and first.shape == observation.shape
    _, env = make(meals=[(1, 900)], dose="rate", patients="child")
    env.reset()
    for _ in range(100):
        _, rewards, terminated, _, _ = env.step(np.zeros((10, 1)))
        if terminated.any():
            assert env.reading[terminated].min() >= 600 and (rewards[terminated] == 0).all()
            break
    else:
        raise AssertionError("nobody failed")


def test_a_day_ends_after_its_steps_and_the_next_begins_anew():
    _, env = make(max_episode_len=3)
    first = env.reset()[0]
    for step in range(1, 4):
        observation, _, terminated, truncated, infos = env.step(basal_action(env))
        assert truncated.all() == (step == 3) and not terminated.any()
    assert env.simulation.clock.tolist() == [0, 0, 0]
    np.testing.assert_allclose(shown(infos["final_obs"])[0][:, -1], env.reading, atol=1e-4)
    assert (observation != first).any(1).all(), "another day"
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(observation, infos["final_obs"])


def test_everything_follows_from_the_rng_and_not_from_who_else_is_there():
    def played(env):
        found = [env.reset()[0]]
        for step in range(40):
            action = np.full((env.num_envs, 1), 0.2 * np.sin(step), np.float32)
            found.append(env.step(action)[0])
        return np.array(found)

    settings = {"max_episode_len": 15, "start": "normal", "absorption": "corrected", "meals": [(0.2, 50)]}
    whole = played(make(seed=7, **settings)[1])
    np.testing.assert_array_equal(whole, played(make(seed=7, **settings)[1]))
    family = Diabetes(**settings)
    stream = SharedStream(np.random.default_rng(7), 3, slice(1, 3))
    part = played(family.make_vec(family.members(SOME[1:]), stream))
    np.testing.assert_allclose(part, whole[:, 1:], atol=1e-5)
    assert np.abs(whole - played(make(seed=8, **settings)[1])).max() > 0.01


def test_starts_as_the_reference_tests_them():
    family = Diabetes(start="normal")
    patients = {name: values.repeat(4) for name, values in family.members("all").items()}
    env = family.make_vec(patients, np.random.default_rng(0))
    readings = shown(env.reset()[0])[0][:, -1]
    assert (readings >= 109.99).all() and (readings <= 130.01).all() and readings.std() > 3
    clinic = Diabetes(start="clinic").make_vec(patients, np.random.default_rng(0))
    readings, doses = shown(clinic.reset()[0])
    assert (readings[:, -1] >= 109.99).all() and (readings[:, -1] <= 130.01).all()
    assert (clinic.simulation.clock == -60).all() and (doses[:, -1] == 0).all()
    far = {name: values[:1] for name, values in patients.items()} | {"Gb": np.array([380.0])}
    with pytest.raises(EnvError, match='choose start="any"'):
        family.make_vec(far, np.random.default_rng(0)).reset()


def test_meals_are_eaten_announced_and_raise_glucose():
    family, env = make(meals="fixed", announce=True, dose="rate", patients="all")
    assert family.observation_space.shape == (25,)
    observation, eaten, announced, glucose = env.reset()[0], [], [], []
    for _ in range(108):
        announced.append(observation[0, -1] * 120)
        observation, _, ended, *_ = env.step(env.basal[:, None])
        eaten.append(env.eaten[0])
        glucose.append(env.glucose[0])
    assert np.flatnonzero(eaten).tolist() == [96] and eaten[96] == 40  # 8:00
    assert np.flatnonzero(announced).tolist() == [93] and announced[93] == pytest.approx(40)
    assert glucose[107] > glucose[95] + 5


def test_the_shield_suspends_insulin_and_prevents_most_failures():
    def failures(limit):
        _, env = make(meals=[], dose="rate", patients="all", suspend_below=limit)
        env.reset()
        count = 0
        for _ in range(120):
            low = env.simulation.reading < limit
            count += env.step(2.5 * env.basal[:, None])[2].sum()
            assert (env.given[low] == 0).all() and (env.given[~low] > 0).all()
        return count

    assert failures(0.0) > 20 and failures(100.0) < 10


def test_settings_that_cannot_be():
    for settings, text in (
        ({"absorption": "old"}, "absorption is 'old'; give one of published, corrected"),
        ({"dose": "linear"}, "dose is 'linear'"),
        ({"observation": "all"}, "observation is 'all'"),
        ({"reward": "none"}, "reward is 'none'"),
        ({"start": "late"}, "start is 'late'"),
        ({"suspend_below": -1}, "suspend_below is -1"),
        ({"doses": (0, 1)}, "doses are given without discrete=True"),
        ({"discrete": True, "doses": (0, 31)}, "the pump gives 0 to 30 U/min"),
        ({"discrete": True, "doses": (-1, 0)}, "the pump gives 0 to 30 U/min"),
        ({"max_episode_len": 0}, "max_episode_len is 0"),
    ):
        with pytest.raises(EnvError, match=text):
            Diabetes(**settings)
    with pytest.raises(EnvError, match="actions must be finite"):
        _, env = make()
        env.reset()
        env.step(np.full((3, 1), np.nan))


def test_registered_with_gymnasium():
    env = gymnasium.make("Diabetes-v0", parameters=Diabetes().members("child#001"), meals="fixed")
    observation, _ = env.reset(seed=3)
    again, _ = env.reset(seed=3)
    np.testing.assert_array_equal(observation, again)
    assert env.observation_space.contains(observation)
    for _ in range(5):
        observation, reward, terminated, *_ = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation) and (0 < reward <= 1 or terminated)
    several = gymnasium.make_vec("Diabetes-v0", num_envs=4)
    assert several.reset(seed=0)[0].shape == (4, 24)


def test_names_of_families():
    for name in ("diabetes", "diabetes_relative", "diabetes_discrete"):
        assert make_family(name).name == name
    with pytest.raises(EnvError, match="has no setting 'sensor'"):
        make_family("diabetes", sensor=1)
    patients = Diabetes().members()
    assert basal_rate(patients).shape == (30,)


def test_what_is_no_advice_says_so():
    assert note_of("diabetes") == note_of("diabetes_discrete") == Diabetes().note == NOTE
    assert note_of("cart_pole") == note_of("unknown") == note_of("mine:family") == ""


def test_each_episode_reports_its_own_shares():
    """Against readings that are kept aside, over several episodes that fail or last, wrapped or not."""
    family, env = make(max_episode_len=70, meals=[(0.5, 150)])
    wrapped = gymnasium.wrappers.vector.RecordEpisodeStatistics(env)
    wrapped.reset()
    kept, failed = [[] for _ in SOME], []
    for _ in range(300):
        actions = np.where(np.arange(3) == 0, -1, 0.9)[:, None].astype(np.float32)
        _, _, terminated, truncated, infos = wrapped.step(actions)
        for own, reading, given in zip(kept, env.reading, env.given, strict=True):
            own.append((reading, given))
        over = terminated | truncated
        if not over.any():
            assert infos == {}
            continue
        told = infos["final_info"]
        np.testing.assert_array_equal(told["_episode"], over)
        for i in np.flatnonzero(over):
            reading, given = np.array(kept[i]).T
            for name, low, high in (
                ("in range", 70, 180),
                ("54-70 mg/dl", 54, 70),
                ("to 54 mg/dl", 0, 54),
                ("180-250 mg/dl", 180, 250),
                ("over 250 mg/dl", 250, 999),
            ):
                inside = (reading > low) & (reading <= high)
                assert told["episode"][f"{name} (%)"][i] == pytest.approx(100 * inside.mean())
            whole = 100 * ((reading > 70) & (reading <= 180)).sum() / 70
            assert told["episode"]["in range, whole day (%)"][i] == pytest.approx(whole)
            assert told["episode"]["failed (%)"][i] == 100 * (len(reading) < 70)
            assert told["episode"]["insulin (U)"][i] == pytest.approx(5 * given.sum())
            failed.append(len(reading) < 70)
            kept[i] = []
    assert 2 < sum(failed) < len(failed) - 2
