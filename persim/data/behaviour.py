"""Behaviour and test policies: shipped as small saves, they act without what trained them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete

from common.errors import UserError
from common.rollout import to_space
from common.runs import checkpoint
from common.shipped import shipped
from envs.diabetes import Diabetes
from envs.diabetes.physiology import basal_rate

FOLDER = shipped("checkpoints/behaviour")
BehaviourPolicy = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Layers = list[tuple[np.ndarray, np.ndarray]]
TEST_EPSILON = 0.01  # DQN's policies go on exploring in tests (the authors' code)


def random_policy(family: Any) -> BehaviourPolicy:
    """Uniform actions, as `policy(state [E, d], rng) -> action`."""
    space = family.action_space

    def policy(state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if isinstance(space, Discrete):
            return (space.n * rng.random(len(state))).astype(np.int64)
        noise = rng.random((len(state), *space.shape), dtype=np.float32)
        return space.low + (space.high - space.low) * noise

    return policy


class Policy:
    """k policies that act for E agents at once, as `policy(state [E, d], rng) -> action [E] or [E, a]`.

    Agent e is assigned to policy `policy_of[e]`. A policy is a network of `layers`, pairs of weights
    [k, in, out] and biases [k, 1, out], with ReLU between them; its action is the largest output (Discrete)
    or the outputs' tanh, stretched to the Box. With probability `epsilon` the action is uniform instead.
    """

    def __init__(self, family: Any, layers: Layers, policy_of: np.ndarray, epsilon: float = 0.0) -> None:
        self.space = family.action_space
        self.random, self.layers, self.epsilon = random_policy(family), layers, epsilon
        counts = np.bincount(policy_of, minlength=len(layers[0][0]))
        order = np.argsort(policy_of, kind="stable")
        column = np.empty_like(order)
        column[order] = np.arange(len(order)) - (counts.cumsum() - counts)[policy_of[order]]
        # Agents of one policy sit side by side, so that each network runs once, on its own agents only.
        self.seat, self.size = (policy_of, column), (len(counts), int(counts.max()))

    def greedy(self, state: np.ndarray) -> np.ndarray:
        """Actions without exploration."""
        x = np.zeros((*self.size, state.shape[-1]), np.float32)
        x[self.seat] = state
        for weight, bias in self.layers[:-1]:
            x = np.maximum(x @ weight + bias, 0)
        weight, bias = self.layers[-1]
        x = (x @ weight + bias)[self.seat]
        return x.argmax(-1) if isinstance(self.space, Discrete) else to_space(np.tanh(x), self.space)

    def __call__(self, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        explores, random = rng.random(len(state)) < self.epsilon, self.random(state, rng)
        best = self.greedy(state)
        return np.where(explores.reshape(-1, *[1] * (best.ndim - 1)), random, best)


class Doses:
    """Behaviour of diabetes patients: half to the whole own basal rate, and more in a few steps, at random.

    Doses follow from nothing that is seen, so that what they do can be told from what unseen meals do.
    """

    about = "doses around the own basal rate, at random"
    SHARE, LOW, HIGH = 0.15, 3.0, 9.0  # of steps with more: how many, and basal rates

    def __init__(self, family: Any) -> None:
        self.family = family

    def behaviour(self, parameters: dict[str, np.ndarray], epsilon: float = 0.0) -> BehaviourPolicy:
        """Of E patients {name: [E]}."""
        basal = basal_rate(parameters)

        def policy(state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            more, size = rng.random((2, len(state)))
            times = np.where(more < self.SHARE, self.LOW + (self.HIGH - self.LOW) * size, (1 + size) / 2)
            return self.family.actions(times * basal, basal)

        return policy


@dataclass(frozen=True, eq=False)
class Trained:
    """P policies of one family: one for each of its behaviour agents, then the test policy.

    `layers` as in `Policy`, with k = P; `agents` {name: [P]} are the agents that they were trained on; each
    of `cards` tells what its policy reached, and how.
    """

    family: Any
    layers: Layers
    agents: dict[str, np.ndarray]
    cards: list[dict]
    about = "policies that come with the environment, a fifth of their actions random"

    def behaviour(self, parameters: dict[str, np.ndarray], epsilon: float = 0.0) -> Policy:
        """Of each of E agents {name: [E]}: the policy of the nearest behaviour agent."""
        layers = [(weight[:-1], bias[:-1]) for weight, bias in self.layers]
        return Policy(self.family, layers, self.nearest(parameters), epsilon)

    def test(self, num_agents: int) -> Policy:
        """The test policy, trained on the default agent, for E agents."""
        layers = [(weight[-1:], bias[-1:]) for weight, bias in self.layers]
        return Policy(self.family, layers, np.zeros(num_agents, np.int64), test_epsilon(self.family))

    def nearest(self, parameters: dict[str, np.ndarray]) -> np.ndarray:
        """Numbers [E] of the nearest behaviour agents, covariates measured in their ranges."""
        distance = sum(
            ((np.asarray(parameters[name])[:, None] - self.agents[name][:-1]) / (high - low)) ** 2
            for name, (low, high) in self.family.covariates.items()
        )
        return distance.argmin(1)


def test_epsilon(family: Any) -> float:
    """How often the test policy of a family acts at random."""
    return TEST_EPSILON if isinstance(family.action_space, Discrete) else 0.0


def num_policies(family: Any) -> int:
    """Of a family: one for each behaviour agent and the test policy."""
    return len(next(iter(family.behaviour_agents.values()))) + 1


def load(family: Any, folder: str | Path = FOLDER) -> Any:
    """All policies of a family in its save in `folder`, as `Trained`; `Doses` of diabetes patients.

    Raises `UserError` where they are not, or not yet all, and for a save that is none.
    """
    if isinstance(family, Diabetes):
        return Doses(family)
    trained, wanted = load_some(family, folder), num_policies(family)
    if len(trained.cards) != wanted:
        have = f"{len(trained.cards)} of {wanted} policies of {family.name} are there"
        command = f"python -m experiments.behaviour --environment {family.name}"
        raise UserError(f"{folder}: {have}; train them with {command}")
    return trained


def load_some(family: Any, folder: str | Path = FOLDER) -> Trained:
    """What `save` wrote last, or no policies; nothing in the files is run. All else raises `UserError`."""
    path, skipped = checkpoint.newest_valid(Path(folder) / family.name)
    if path is None and skipped:
        raise UserError(skipped[0])
    if path is None:
        return Trained(family, [], {name: np.zeros(0) for name in family.covariates}, [])
    try:
        return _trained(family, checkpoint.load(path)[1])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        kind = " ".join(f"{type(error).__name__}: {error}"[:200].split())
        raise UserError(f"{path}: not policies of {family.name} ({kind}); use another save") from None


def save(trained: Trained, folder: str | Path = FOLDER) -> None:
    """Write policies as a save whose step is their number, completely or not at all."""
    layers = [list(layer) for layer in trained.layers]
    state = {"layers": layers, "agents": trained.agents, "cards": trained.cards}
    checkpoint.save(Path(folder) / trained.family.name, len(trained.cards), state)
    checkpoint.prune(Path(folder) / trained.family.name, keep=1)


def join(first: Trained, second: Trained) -> Trained:
    """The policies of both, which are networks of the same sizes."""
    if not first.cards:
        return second
    pairs = zip(first.layers, second.layers, strict=True)
    layers = [
        (np.concatenate([weight, more]), np.concatenate([bias, more_bias]))
        for (weight, bias), (more, more_bias) in pairs
    ]
    agents = {name: np.concatenate([values, second.agents[name]]) for name, values in first.agents.items()}
    return Trained(first.family, layers, agents, first.cards + second.cards)


def _trained(family: Any, state: dict[str, Any]) -> Trained:
    """The policies in a decoded save; raises any of a few errors where there are none."""
    layers = [(weight, bias) for weight, bias in state["layers"]]
    agents, cards = family.check(state["agents"]), list(state["cards"])
    width = family.observation_space.shape[0]
    for weight, bias in layers:
        following = weight.shape[-1]
        if weight.shape != (len(cards), width, following) or bias.shape != (len(cards), 1, following):
            raise ValueError(f"weights of shape {list(weight.shape)}, biases {list(bias.shape)}")
        if weight.dtype != np.float32 or bias.dtype != np.float32:
            raise ValueError("numbers of another kind than float32")
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise ValueError("numbers that are not finite")
        width = following
    space = family.action_space
    wanted = space.n if isinstance(space, Discrete) else space.shape[0]
    if width != wanted:
        raise ValueError(f"{width} outputs instead of {wanted}")
    if any(len(values) != len(cards) for values in agents.values()):
        raise ValueError("as many agents as cards are needed")
    return Trained(family, layers, agents, cards)
