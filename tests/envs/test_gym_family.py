import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from gymnasium.vector import AutoresetMode

from envs import EnvError, make_family
from envs.examples import CartPoles, Points, PointVectorEnv, cart_pole_family, point_family


class Walk(gymnasium.Env):
    """A sound environment; the broken ones below differ from it in one thing."""

    observation_space = Box(-100.0, 100.0, (2,), np.float32)
    action_space = Discrete(2)

    def __init__(self, task):
        self.goal, self.position = task["goal"], None

    def observe(self):
        return np.array([self.position, 0], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.steps = self.np_random.normal(), 0
        return self.observe(), {}

    def step(self, action):
        self.position += 0.1 if action == 1 else -0.1
        self.steps += 1
        return self.observe(), -abs(float(self.position - self.goal)), False, self.steps == 5, {}


class Walks:
    env = Walk

    def sample(self, rng, n):
        return {"goal": rng.uniform(-1, 1, n)}

    def make(self, task):
        return self.env(task)


def walks(**attributes):
    """A factory of walks whose environment class has `attributes` replaced."""
    tasks = Walks()
    tasks.env = type("Broken", (Walk,), attributes)
    return lambda: tasks


def results(*, observation=None, reward=0.0, terminated=False, truncated=False, info=None, extra=()):
    def step(self, action):
        seen = self.observe() if observation is None else observation
        return seen, reward, terminated, truncated, {} if info is None else info, *extra

    return {"step": step}


def global_randomness(self, *, seed=None, options=None):
    self.position, self.steps = np.random.default_rng().normal(), 0
    return self.observe(), {}


def failing(self, action):
    raise RuntimeError("the robot\nis on fire")


def old_step(self, action):
    return self.observe(), 0.0, False, {}


def old_reset(self, *, seed=None, options=None):
    return np.zeros(2, np.float32)


BROKEN_ENVS = {
    "tuple too short": ({"step": old_step}, "step returned 4 values, not 5"),
    "tuple too long": (results(extra=(1,)), "step returned 6 values, not 5"),
    "no tuple": ({"step": lambda self, a: None}, "step returned NoneType values"),
    "old reset": ({"reset": old_reset}, "reset must return"),
    "reset without seed": ({"reset": lambda self: (np.zeros(2, np.float32), {})}, "reset failed: TypeError"),
    "wrong shape": (results(observation=np.zeros(3, np.float32)), r"float32 \(3,\); the space is float32"),
    "wrong dtype": (results(observation=np.zeros(2)), r"float64 \(2,\); the space is float32"),
    "list": (results(observation=[0.0, 0.0]), "a list as observation"),
    "out of bounds": (results(observation=np.full(2, 101, np.float32)), "outside Box"),
    "nan observation": (results(observation=np.full(2, np.nan, np.float32)), "not finite"),
    "nan reward": (results(reward=float("nan")), "reward nan"),
    "array reward": (results(reward=np.zeros(2)), "must be one finite number"),
    "no reward": (results(reward=None), "reward None"),
    "integer flag": (results(terminated=0), "terminated is 0; it must be a bool"),
    "no info": (results(info=[]), "info is a list"),
    "unseeded": ({"reset": global_randomness}, "observations differ for the same seed"),
    "exception": ({"step": failing}, "step failed: RuntimeError: the robot is on fire"),
    "no action space": ({"action_space": None}, "has no action_space"),
    "dict space": ({"observation_space": Dict({"a": Discrete(2)})}, "observation space is Dict"),
    "image": ({"observation_space": Box(0, 1, (8, 8))}, r"shape \(8, 8\); flatten"),
    "unbounded action": ({"action_space": Box(-np.inf, np.inf, (1,))}, "infinite bound"),
}


@pytest.mark.promise("E1 broken environments refused")
@pytest.mark.parametrize("change, message", BROKEN_ENVS.values(), ids=BROKEN_ENVS.keys())
def test_a_broken_environment_is_refused_in_one_line(change, message):
    with pytest.raises(EnvError, match=message) as caught:
        make_family(walks(**change))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


class Changed:
    """Replaces methods of a sound user family."""

    def __init__(self, tasks, **methods):
        self.tasks = tasks
        vars(self).update(methods)

    def __getattr__(self, name):
        return getattr(self.tasks, name)


def differing_spaces(task):
    env = Walk(task)
    env.observation_space = Box(-100 - abs(float(task["goal"])), 100, (2,), np.float32)
    return env


def unseeded_sample(rng, n):
    return {"goal": np.random.default_rng().random(n)}


BROKEN_TASKS = {
    "no sample": (lambda: object(), r"object has no sample\(rng, n\)"),
    "no make": (lambda: type("Tasks", (), {"sample": Walks.sample})(), "neither make"),
    "factory fails": (lambda: 1 / 0, "the factory failed: ZeroDivisionError"),
    "sample fails": (lambda: Changed(Walks(), sample=lambda rng: {}), "sample.* failed: TypeError"),
    "sample list": (lambda: Changed(Walks(), sample=lambda rng, n: [1] * n), "wrong list"),
    "sample short": (lambda: Changed(Walks(), sample=lambda rng, n: {"goal": [0]}), "1 rows for 3 tasks"),
    "sample nan": (lambda: Changed(Walks(), sample=lambda rng, n: {"goal": [np.nan] * n}), "not finite"),
    "sample unseeded": (lambda: Changed(Walks(), sample=unseeded_sample), "draw from rng only"),
    "make fails": (lambda: Changed(Walks(), make=lambda task: Walk({})), r"make\(task\) failed: KeyError"),
    "make nothing": (lambda: Changed(Walks(), make=lambda task: None), "gave NoneType; return"),
    "endless": (lambda: Changed(Walks(), max_episode_len=float("inf")), "max_episode_len is inf"),
    "spaces differ": (lambda: Changed(Walks(), make=differing_spaces), "spaces"),
}


@pytest.mark.promise("E1 broken environments refused")
@pytest.mark.parametrize("factory, message", BROKEN_TASKS.values(), ids=BROKEN_TASKS.keys())
def test_a_broken_family_is_refused_in_one_line(factory, message):
    with pytest.raises(EnvError, match=message) as caught:
        make_family(factory)
    assert "\n" not in str(caught.value)


class NextStep(PointVectorEnv):
    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}


class ReusedArray(PointVectorEnv):
    def advance(self, actions, rng):
        self.position += np.float32(0.01) * actions
        return self.position, np.zeros(self.num_envs)


class WideRewards(PointVectorEnv):
    def advance(self, actions, rng):
        return self.position.copy(), np.zeros((self.num_envs, 1))


class NoFinalObs(PointVectorEnv):
    def step(self, actions):
        return *super().step(actions)[:4], {}


class Scalars(PointVectorEnv):
    def advance(self, actions, rng):
        return np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs)


class Unseeded(PointVectorEnv):
    def advance(self, actions, rng):
        return self.position.copy(), np.random.default_rng().random(self.num_envs)


BROKEN_VECTORS = {
    NextStep: "SAME_STEP",
    ReusedArray: "return new arrays",
    WideRewards: "one finite number a task",
    NoFinalObs: "final_obs",
    Scalars: r"observations float32 \(3,\); they must be an array float32 \(3, 1\)",
    Unseeded: "rewards differ for the same seed",
}


@pytest.mark.promise("E1 broken environments refused")
@pytest.mark.parametrize("env, message", BROKEN_VECTORS.items())
def test_a_broken_vector_environment_is_refused_in_one_line(env, message):
    points = Points()
    broken = Changed(points, make_vec=lambda parameters, rng=None: env(points, None, 10, parameters, rng))
    with pytest.raises(EnvError, match=message) as caught:
        make_family(lambda: broken)
    assert "\n" not in str(caught.value)


def test_the_number_of_envs_must_be_the_number_of_tasks():
    points = Points()
    one = Changed(points, make_vec=lambda p, rng=None: points.make_vec({"target": p["target"][:1]}, rng))
    with pytest.raises(EnvError, match="1 envs for 3 tasks"):
        make_family(lambda: one)


def test_single_environments_reset_in_the_same_step():
    family = make_family(Walks)
    env = family.make_vec({"goal": np.array([0.5, -0.5])}, np.random.default_rng(0))
    start, _ = env.reset()
    for _ in range(4):
        assert not np.logical_or(*env.step(np.array([1, 0]))[2:4]).any()
    observations, rewards, _, truncated, infos = env.step(np.array([1, 0]))
    assert truncated.all()
    final = np.stack(infos["final_obs"])
    np.testing.assert_allclose(final[:, 0], start[:, 0] + [0.5, -0.5], atol=1e-5)
    np.testing.assert_allclose(rewards, -abs(final[:, 0] - [0.5, -0.5]), atol=1e-5)
    assert not np.allclose(observations, final)  # the next episode has begun elsewhere


def test_each_task_has_its_own_poles():
    parameters = {"length": np.array([0.3, 0.9]), "force": np.array([5.0, 15.0])}
    env = make_family(cart_pole_family).make_vec(parameters)
    env.reset(seed=0)
    assert env.get_attr("length") == (0.3, 0.9)
    np.testing.assert_allclose(env.get_attr("polemass_length"), [0.03, 0.09])  # the pole weighs 0.1 kg
    velocity = env.step(np.array([1, 1]))[0][:, 1]
    assert velocity[1] > 2 * velocity[0] > 0  # three times the push on the same cart
    assert set(CartPoles().sample(np.random.default_rng(0), 2)) == {"length", "force"}


def test_points_by_hand():
    env = make_family(point_family).make_vec({"target": np.array([0.5, -0.5], np.float32)})
    assert env.reset(seed=0)[0].tolist() == [[0], [0]]
    observations, rewards, *_ = env.step(np.array([[1.0], [-0.5]], np.float32))
    np.testing.assert_allclose(observations, [[0.2], [-0.1]], atol=1e-6)
    np.testing.assert_allclose(rewards, [-0.3, -0.4], atol=1e-6)
    observations, *_ = env.step(np.array([[9.0], [0.0]], np.float32))  # clipped to 1
    np.testing.assert_allclose(observations, [[0.4], [-0.1]], atol=1e-6)
    for _ in range(7):
        assert not env.step(np.zeros((2, 1), np.float32))[3].any()
    observations, _, terminated, truncated, infos = env.step(np.zeros((2, 1), np.float32))
    assert truncated.all() and not terminated.any() and observations.tolist() == [[0], [0]]
    np.testing.assert_allclose(infos["final_obs"], [[0.4], [-0.1]], atol=1e-6)


@pytest.mark.parametrize(
    "name, sizes, message",
    [
        ("bandits", {}, "unknown environment 'bandits'; known are bandit, tabular_mdp"),
        ("bandit", {"num_actions": 0}, "num_actions is 0"),
        ("bandit", {"num_states": 3}, "bandit has no setting 'num_states'; it has num_actions"),
        ("tabular_mdp", {"num_states": -1}, "num_states is -1"),
        ("tabular_mdp", {"max_episode_len": 2.5}, "max_episode_len is 2.5"),
        ("tabular_mdp", {"num_actions": True}, "num_actions is True"),
        ("tabular_mdp", {"noise_scale": float("nan")}, "noise_scale is nan"),
    ],
)
def test_unknown_names_and_sizes_are_refused(name, sizes, message):
    with pytest.raises(EnvError, match=message) as caught:
        make_family(name, **sizes)
    assert "\n" not in str(caught.value)
