"""The population that all methods share, and how what a method made of it is evaluated."""

from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Discrete

from common.errors import UserError
from common.evaluation import worst_decile
from common.protocols import Actor
from common.rollout import play
from common.runs.seeding import stream
from envs import Population, Problem, load_factory, make_family

GROUP = "group"  # the parameter that says which group an agent is of
USUAL_LEN = 200  # steps of an episode where a user's environment does not say


class Evaluated(NamedTuple):
    """E episodes of each of n agents."""

    returns: np.ndarray  # [n, E]
    measures: dict[str, np.ndarray]  # {name: [n, E]}: what environments report of them


Curve = list[tuple[float, Evaluated]]  # steps spent on a new agent, and what is reached after them


def load_problem(path: str, environment: str = "", max_episode_len: int = 0) -> Problem:
    """The agents in a file of `envs.Population`, with episodes of at most `max_episode_len` steps.

    0 is the environment's own limit. A user's module:factory must be named as `environment`, too. Raises
    `UserError`.
    """
    population = Population.load(path)
    name = population.environment
    if ":" in name and environment != name:
        raise UserError(
            f"the population lives in {name!r}, code of yours: name it again, --environment {name}"
        )
    limit = {"max_episode_len": max_episode_len} if max_episode_len and ":" not in name else {}
    family = make_family(load_factory(name) if ":" in name else name, **limit)
    usual = family.max_episode_len if getattr(family, "declares_length", True) else USUAL_LEN
    return Problem(name, family, family.check(population.parameters), max_episode_len or usual)


def num_groups(problem: Problem) -> int:
    """How many groups the agents have; 0 if no parameter says which."""
    values = problem.rows(slice(None)).get(GROUP)
    return 0 if values is None or values.ndim != 1 else len(np.unique(values))


def evaluate_actor(problem: Problem, actor: Actor, num_episodes: int, seed: int) -> Evaluated:
    """E fresh starts of each agent, the same whoever acts.

    The actor gets E * n rows, row e * n + i being start e of agent i. The starts of fewer episodes are the
    first of those of more.
    """
    agents = problem.rows(np.tile(np.arange(problem.num_agents), num_episodes))
    with closing(problem.family.make_vec(agents, stream(seed, "evaluation"))) as env:
        episodes = play(env, actor, problem.horizon)
    reached = {"": episodes.returns, **episodes.measures}
    each = {name: values.reshape(num_episodes, -1).T.copy() for name, values in reached.items()}
    return Evaluated(each.pop(""), each)


class Exploring:
    """Acts as another actor does, and at random in a share `epsilon` of the steps of each row."""

    def __init__(self, actor: Actor, space: Any, epsilon: float, rng: np.random.Generator):
        self.actor, self.space, self.epsilon, self.rng = actor, space, epsilon, rng

    def reset(self, num: int) -> None:
        """Begin `num` rows."""
        self.actor.reset(num)

    def act(
        self, observation: np.ndarray, reward: Any, done: Any, running: np.ndarray | None = None
    ) -> np.ndarray:
        """Actions [num, ...] for observations [num, ...]."""
        action = np.array(self.actor.act(observation, reward, done, running))
        anything = self.rng.random(len(action)) < self.epsilon
        if isinstance(self.space, Discrete):
            action[anything] = self.rng.integers(self.space.n, size=anything.sum()) + self.space.start
        else:
            action[anything] = self.rng.uniform(
                self.space.low, self.space.high, (anything.sum(), *action.shape[1:])
            )
        return action


def outcome(
    tested: Evaluated,
    *,
    train_steps: float,
    new_agent_steps: float,
    policies: int,
    curve: Curve,
    learning: Curve,
    groups: Any = None,
    **more: Any,
) -> dict[str, Any]:
    """What is stored of a method: the mean return of each agent, what environments report, and what it costs.

    `curve` has returns by the steps spent on a new agent, `learning` by those of training.
    """
    agents = tested.returns.mean(1)
    return {
        "returns": agents.tolist(),
        "mean": float(agents.mean()),
        "worst_decile": worst_decile(agents),
        "measures": summary(tested.measures),
        "train_steps": int(train_steps),
        "new_agent_steps": float(new_agent_steps),
        "policies": int(policies),
        "curve": points(curve),
        "learning": points(learning),
        "groups": None if groups is None else [int(group) for group in groups],
        **more,
    }


def points(curve: Curve) -> list[dict[str, float]]:
    """A curve as it is stored."""
    return [
        {
            "steps": float(steps),
            "mean": float(tested.returns.mean(1).mean()),
            "worst_decile": worst_decile(tested.returns.mean(1)),
        }
        for steps, tested in curve
    ]


def summary(measures: dict[str, np.ndarray]) -> dict[str, float]:
    """Means over agents of measures {name: [n, E]}; of the first also over the tenth with the lowest."""
    found: dict[str, float] = {}
    for name, values in measures.items():
        agents = [own.mean() for own in (row[np.isfinite(row)] for row in values) if own.size]
        if not agents:
            continue
        found[name] = float(np.mean(agents))
        if len(found) == 1:
            found[f"{name}, lowest tenth"] = worst_decile(agents)
    return found
