"""Environments as people write them: reused arrays, spaces of any dtype, infos, errors, resources."""

from contextlib import closing
from functools import partial

import numpy as np
import pytest
from gymnasium import Env
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorWrapper

from envs import EnvError, make_family
from envs.examples import Points, PointVectorEnv
from envs.user_env import CopiedVectorEnv, shown
from tests.helpers.launch import command


class Climb(Env):
    """Shows (height, step); the second action climbs by the task's stride; it ends after `length` steps."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Discrete(2)
    length = 3
    open = 0

    def __init__(self, stride):
        self.stride, self.buffer = stride, np.zeros(2, self.observation_space.dtype)
        type(self).open += 1

    def show(self):
        return np.array([self.height, self.t], self.observation_space.dtype)

    def info(self):
        return {}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.height, self.t = self.np_random.integers(100), 0
        return self.show(), {}

    def step(self, action):
        self.height, self.t = self.height + self.stride * (action == self.action_space.start + 1), self.t + 1
        return self.show(), float(self.t), False, self.t == self.length, self.info()

    def close(self):
        type(self).open -= 1


class Climbs:
    def __init__(self, kind, **attributes):
        self.env = type("Kind", (kind,), {"open": 0, **attributes})

    def sample(self, rng, n):
        return {"stride": rng.integers(1, 5, n)}

    def make(self, task):
        return self.env(task["stride"])


def climbing(kind=Climb, strides=(1, 2), **attributes):
    """Environments of `kind`, and the class of each."""
    tasks = Climbs(kind, **attributes)
    family = make_family(lambda: tasks)
    assert tasks.env.open == 0
    return family.make_vec({"stride": np.array(strides)}, np.random.default_rng(0)), tasks.env


class Reused(Climb):
    def show(self):
        self.buffer[:] = self.height, self.t
        return self.buffer


@pytest.mark.parametrize("kind", [Climb, Reused])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_an_episode_ends_with_what_it_ended_with(kind, dtype):
    space = Box(-1000, 1000, (2,), dtype)
    env, _ = climbing(kind, observation_space=space)
    first = env.reset()[0]
    kept = [env.step(np.array([1, 1])) for _ in range(4)]
    assert first.dtype == dtype and all(step[0].dtype == dtype for step in kept)
    assert [step[3].tolist() for step in kept] == [[False] * 2, [False] * 2, [True] * 2, [False] * 2]
    start = first[:, 0]
    np.testing.assert_array_equal(kept[2][4]["final_obs"], np.stack([start + [3, 6], [3, 3]], 1))
    np.testing.assert_array_equal(kept[0][0], np.stack([start + [1, 2], [1, 1]], 1))
    np.testing.assert_array_equal(kept[2][0][:, 1], 0)  # the next episode has begun
    np.testing.assert_array_equal(kept[3][0] - kept[2][0], [[1, 1], [2, 1]])
    assert [step[1].tolist() for step in kept] == [[1, 1], [2, 2], [3, 3], [1, 1]]


class Ragged(Climb):
    length = 30

    def info(self):
        kinds = [{"path": np.arange(self.t)}, {"path": None}, {"path": {"a": [self]}}, {"path": "done"}]
        return kinds[self.t % 4]


def test_infos_are_not_collected():
    env, _ = climbing(Ragged)
    env.reset()
    assert all(env.step(np.array([0, 1]))[4] == {} for _ in range(29))
    assert set(env.step(np.array([0, 1]))[4]) == {"final_obs", "_final_obs"}


class Counted(Climb):
    """Shows its step, in a Discrete space; keeps the actions that it gets."""

    given = []

    def show(self):
        return self.observation_space.dtype.type(self.observation_space.start + self.t)

    def step(self, action):
        assert self.action_space.contains(action), action
        self.given.append(action)
        return super().step(action)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64])
@pytest.mark.parametrize("start", [0, 5])
def test_discrete_spaces_of_any_dtype_and_start_count_from_zero(dtype, start):
    spaces = {"observation_space": Discrete(9, start=start, dtype=dtype)}
    spaces |= {"action_space": Discrete(2, start=start, dtype=dtype), "given": []}
    env, kind = climbing(Counted, **spaces)
    assert env.single_observation_space == Discrete(9) and env.single_action_space == Discrete(2)
    assert env.reset()[0].tolist() == [0, 0]
    kind.given.clear()
    for t in (1, 2):
        seen = env.step(np.array([1, 0], np.int32))[0]
        assert seen.tolist() == [t, t] and seen.dtype == np.int64
    assert kind.given == [start + 1, start] * 2 and all(type(a) is dtype for a in kind.given)
    assert env.step(np.array([0, 0]))[4]["final_obs"].tolist() == [3, 3]


class Diverges(Climb):
    length = 40

    def step(self, action):
        if self.stride == 4 and self.t == 30:
            raise ZeroDivisionError("the simulator\ndiverged")
        return super().step(action)


def test_an_error_names_the_task_and_the_seed_that_brings_it_again():
    env, kind = climbing(Diverges, strides=(1, 4, 2))
    env.reset()
    for _ in range(30):
        env.step(np.ones(3, int))
    with pytest.raises(EnvError, match="diverged") as caught:
        env.step(np.ones(3, int))
    text, cause = str(caught.value), caught.value.__cause__
    assert "\n" not in text and "step 31 of episode 1" in text and "{'stride': 4}" in text
    assert "ZeroDivisionError: the simulator diverged" in text and "test_user_env.py, line" in text
    assert type(cause) is ZeroDivisionError
    seed = int(text.split("reset(seed=")[1].split(")")[0])
    again = kind(4)
    again.reset(seed=seed)
    assert again.height == env.envs[1].height - 4 * 30
    env.close()
    again.close()


def diverging():
    """A factory for `make_family`."""
    return Climbs(Diverges)


@pytest.mark.mpi
def test_an_error_of_one_environment_ends_all_ranks_with_one_line(tmp_path):
    flags = "--meta_episode_len 40 --meta_episodes_per_policy_update 8 --meta_episodes_per_learner_batch 4"
    where = ["--environment", "tests.envs.test_user_env:diverging", "--checkpoint_dir", str(tmp_path)]
    done = command(2, "train", "rl2", *flags.split(), "--num_features", "8", *where)
    assert done.code == 2 and "Traceback" not in done.output, done.output
    assert done.output.count("diverging: step 31 of episode 1, begun by reset(seed=") == 1, done.output
    assert "failed in the task {'stride': 4}: ZeroDivisionError: the simulator diverged" in done.output


def test_a_task_that_cannot_be_made_is_named_and_the_others_are_closed():
    tasks = Climbs(Climb)
    family = make_family(lambda: tasks)
    make = tasks.make
    tasks.make = lambda task: make(task) if task["stride"] < 3 else 1 / 0
    with pytest.raises(EnvError, match=r"make\(task\) failed: ZeroDivisionError.* \{'stride': 3\}"):
        family.make_vec({"stride": np.array([1, 2, 3, 1])})
    assert tasks.env.open == 0


def test_environments_are_closed_also_after_one_that_fails_in_it():
    env, kind = climbing(strides=(1, 2, 3))
    assert kind.open == 3
    env.envs[1].close = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        env.close()
    assert kind.open == 1


def test_tasks_are_shown_in_one_line():
    task = {"mass": np.float64(0.1), "table": np.arange(100.0).reshape(10, 10), "gear": np.int64(3)}
    text = shown(task)
    assert text.startswith("{'mass': 0.1, 'table': [[ 0.  1. ...") and text.endswith("'gear': 3}")


class InPlace(PointVectorEnv):
    """Rewards and ends of each step are in the same arrays."""

    def step(self, actions):
        observation, *results, infos = super().step(actions)
        self.kept = getattr(self, "kept", [np.empty_like(part) for part in results])
        for kept, part in zip(self.kept, results, strict=True):
            kept[:] = part
        return observation, *self.kept, infos


def native(env_class):
    """Two points with targets 1 and -1, as a user's own vector environment."""
    points = Points()
    points.make_vec = lambda parameters, rng=None: env_class(points, None, 10, parameters, rng)
    family = make_family(lambda: points)
    return family.make_vec({"target": np.array([1, -1], np.float32)}, np.random.default_rng(0))


def test_vector_environments_may_reuse_rewards_and_ends():
    env = native(InPlace)
    env.reset()
    steps = [env.step(np.ones((2, 1), np.float32)) for _ in range(10)]
    np.testing.assert_allclose([step[1][0] for step in steps[:3]], [-0.8, -0.6, -0.4], atol=1e-6)
    assert [step[3].all() for step in steps] == [False] * 9 + [True]


class Overwritten(PointVectorEnv):
    """After 30 steps, where no check before training comes, the next episode is written into final_obs."""

    def step(self, actions):
        observation, *results, infos = super().step(actions)
        self.count = getattr(self, "count", 0) + 1
        if infos and self.count >= 30:
            infos["final_obs"][:] = observation
            observation = infos["final_obs"]
        return observation, *results, infos


def test_a_final_observation_that_is_the_next_episodes_is_refused():
    env = native(Overwritten)
    env.reset()
    for _ in range(29):
        env.step(np.ones((2, 1), np.float32))
    with pytest.raises(EnvError, match='"final_obs".* is the array of the observations'):
        env.step(np.ones((2, 1), np.float32))


class Seeded(VectorWrapper):
    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=0, options=options)


@pytest.mark.parametrize("kind", [Climb, Reused])
def test_gymnasiums_vector_of_environments_that_reuse_their_array_is_refused(kind):
    """It hands on their arrays, which hold the next episode's first observation by then."""
    tasks = Climbs(kind)
    sync = SyncVectorEnv([lambda: tasks.env(1)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    env = CopiedVectorEnv("climbs", lambda *_: Seeded(sync), {"stride": np.ones(2)}, None)
    env.reset()
    for _ in range(3):
        *_, infos = env.step(np.ones(2, int))
    if kind is Reused:
        with pytest.raises(EnvError, match="climbs: an environment reuses the array"):
            env.step(np.ones(2, int))
    else:
        env.step(np.ones(2, int))
        assert infos["final_obs"][:, 1].tolist() == [3, 3]
    env.close()
    assert tasks.env.open == 0


@pytest.mark.parametrize("kind", [Climb, Reused])
def test_environments_in_other_processes_that_reuse_their_array_are_refused_before_training(kind):
    class Tasks(Climbs):
        def make_vec(self, parameters, rng=None):
            made = [partial(self.env, stride) for stride in parameters["stride"]]
            return Seeded(AsyncVectorEnv(made, autoreset_mode=AutoresetMode.SAME_STEP))

    Tasks.make = None
    if kind is Reused:
        with pytest.raises(
            EnvError, match="reuses the array of its observations, of which AsyncVectorEnv gives"
        ):
            make_family(lambda: Tasks(kind))
        return
    with closing(make_family(lambda: Tasks(kind)).make_vec({"stride": np.array([1, 2])})) as env:
        env.reset()
        for _ in range(3):
            *_, infos = env.step(np.ones(2, int))
        assert infos["final_obs"][:, 1].tolist() == [3, 3]


def test_an_error_of_a_vector_environment_is_one_line():
    class Fails(PointVectorEnv):
        def step(self, actions):
            self.count = getattr(self, "count", 0) + 1
            return super().step(actions) if self.count < 27 else 1 / 0

    env = native(Fails)
    env.reset()
    text = r"step 27 after the reset failed in the task {'target': 1.0}, also alone .row 0 of 2.: Zero"
    with pytest.raises(EnvError, match=text) as caught:
        for _ in range(27):
            env.step(np.ones((2, 1), np.float32))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("not_finite", [True, False])
def test_one_of_many_tasks_that_fails_is_named(not_finite):
    """What a task draws is the same when it is played again without the others."""

    class Fails(PointVectorEnv):
        total = 0.0

        def advance(self, actions, rng):
            seen, reward = super().advance(actions, rng)
            self.total = self.total + rng.random(self.num_envs)
            bad = (self.parameters["target"] == 7) & (self.total > 1.5)
            if bad.any() and not not_finite:
                raise FloatingPointError("stiff")
            return seen, np.where(bad, np.nan, reward)

    target = np.arange(20, dtype=np.float32)
    draws = np.random.default_rng(3)
    expected = 1 + int((draws.random((9, 20))[:, 7].cumsum() > 1.5).argmax())
    points = Points()
    points.make_vec = lambda parameters, rng=None: Fails(points, None, 10, parameters, rng)
    env = make_family(lambda: points).make_vec({"target": target}, np.random.default_rng(3))
    env.reset()
    with pytest.raises(EnvError, match=rf"step {expected} .* failed in the task {{'target': 7.0}}"):
        for _ in range(50):
            env.step(np.ones((20, 1), np.float32))
