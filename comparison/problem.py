"""The population that all methods share, and how what a method made of it is tested."""

import functools
import hashlib
from types import SimpleNamespace

import numpy as np

from common.errors import UserError
from common.runs.seeding import stream
from envs import Population, load_factory, make_family

USUAL_LEN = 200  # steps of an episode where a user's environment does not say


class People:
    """n agents of one environment: their `parameters` {name: [n, ...]}, its `family`, and its `horizon`."""

    def __init__(self, population: Population, environment: str = "", max_episode_len: int = 0):
        name = population.environment
        if ":" in name and environment != name:
            raise UserError(
                f"the population lives in {name!r}, code of yours: name it again, --environment {name}"
            )
        self.environment, self.n = name, len(population)
        limit = {"max_episode_len": max_episode_len} if max_episode_len and ":" not in name else {}
        self.family = make_family(load_factory(name) if ":" in name else name, **limit)
        known = getattr(self.family, "declares_length", True)
        self.horizon = max_episode_len or (self.family.max_episode_len if known else USUAL_LEN)
        self.family.max_episode_len = self.horizon
        if not hasattr(self.family.action_space, "n"):
            raise UserError(f"{name}: its actions are no Discrete space; CAML cannot act there")
        self.parameters = self.family.check(population.parameters)

    @functools.cached_property
    def digest(self) -> str:
        """What the population is, as a few hexadecimal digits."""
        whole = hashlib.sha256(f"{self.environment} {self.horizon}".encode())
        for name, values in self.parameters.items():
            whole.update(f" {name} {values.dtype} {values.shape} ".encode() + values.tobytes())
        return whole.hexdigest()[:16]

    def rows(self, index) -> dict[str, np.ndarray]:
        """Parameters of the agents `index`."""
        return {name: values[index] for name, values in self.parameters.items()}


def test(people: People, act, episodes: int, seed: int, agents=None):
    """Returns and steps [n, E] of E fresh starts of each agent, the same whoever acts.

    `act(observation [N, D], reward [N] or None, running [N]) -> actions [N]` gets N = E * n rows, row
    e * n + i being start e of agent i; reward is what the step before paid, None at first. The starts of
    fewer episodes are the first of those of more.
    """
    agents = np.arange(people.n) if agents is None else np.asarray(agents)
    n = len(agents)
    everyone = {name: np.concatenate([values] * episodes) for name, values in people.rows(agents).items()}
    env = people.family.make_vec(everyone, stream(seed, "evaluation"))
    seen, reward, running = np.asarray(env.reset()[0]), None, np.ones(episodes * n, bool)
    total, steps = np.zeros(episodes * n), np.zeros(episodes * n)
    for _ in range(people.horizon):
        action = np.asarray(act(seen, reward, running))
        seen, reward, terminated, truncated, _ = env.step(action)
        seen, reward = np.asarray(seen), np.asarray(reward, np.float64)
        total += np.where(running, reward, 0.0)
        steps += running
        running = running & ~(terminated | truncated)
        if not running.any():
            break
    env.close()
    return total.reshape(episodes, n).T.copy(), steps.reshape(episodes, n).T.copy()


class Padded:
    """A vectorised environment whose episodes all last `horizon` steps: after its end one pays nothing.

    A memory that plays several episodes in a row is to get several, not more by ending them soon. While an
    episode is over, the last observation stays. `count()` tells the steps that were really taken.
    """

    def __init__(self, env, horizon: int, counter=None):
        self.env, self.horizon, self.num_envs = env, horizon, env.num_envs
        self.single_action_space = env.single_action_space
        self.single_observation_space = env.single_observation_space
        self.counter = counter if counter is not None else SimpleNamespace(steps=0)

    def reset(self, **_):
        self.elapsed, self.over = 0, np.zeros(self.num_envs, bool)
        self.held = np.asarray(self.env.reset()[0]).copy()
        return self.held.copy(), {}

    def step(self, actions):
        seen, reward, terminated, truncated, infos = self.env.step(actions)
        seen, live = np.array(seen), ~self.over
        self.counter.steps += int(live.sum())
        reward = np.where(live, reward, 0.0).astype(np.float32)
        ended = live & (terminated | truncated)
        if ended.any():
            seen[ended] = np.stack(list(infos["final_obs"][ended]))
        seen[self.over] = self.held[self.over]
        self.over, self.held, self.elapsed = self.over | ended, seen, self.elapsed + 1
        none = np.zeros(self.num_envs, bool)
        if self.elapsed < self.horizon:
            return seen.copy(), reward, none, none, {}
        first, _ = self.reset()
        return first, reward, none, ~none, {"final_obs": seen, "_final_obs": ~none}


class Rows:
    """A family whose tasks are drawn from the population's agents, each as likely; episodes are `Padded`."""

    def __init__(self, people: People):
        self.people, self.steps = people, 0
        self.observation_space = people.family.observation_space
        self.action_space = people.family.action_space

    def sample(self, rng, n: int) -> dict[str, np.ndarray]:
        return self.people.rows((rng.random(n) * self.people.n).astype(np.int64))

    def make_vec(self, parameters, rng=None) -> Padded:
        return Padded(self.people.family.make_vec(parameters, rng), self.people.horizon, self)


def outcome(returns, *, train_steps, new_agent_steps, policies, curve=(), groups=None, **more) -> dict:
    """What a cell stores of a method: returns [n, E] as the mean of each agent, and what they cost.

    `curve` has rows (steps spent on a new agent, returns [n, E] after them).
    """
    points = [point(steps, values) for steps, values in curve]
    each = returns.mean(1)
    return {
        "returns": each.tolist(),
        "mean": float(each.mean()),
        "worst_decile": worst_decile(each),
        "train_steps": int(train_steps),
        "new_agent_steps": float(new_agent_steps),
        "policies": int(policies),
        "curve": points,
        "groups": None if groups is None else [int(g) for g in groups],
    } | more


def point(steps, returns) -> dict:
    """One point of an adaptation curve."""
    each = returns.mean(1)
    return {"steps": float(steps), "mean": float(each.mean()), "worst_decile": worst_decile(each)}


def worst_decile(each) -> float:
    """The mean return of the tenth of the agents who get least, at least one."""
    return float(np.sort(each)[: -(-len(each) // 10)].mean())
