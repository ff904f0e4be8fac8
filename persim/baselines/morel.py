"""MOReL: an ensemble from the data, a pessimistic MDP made of it, and a policy learnt inside."""

import dataclasses
import io
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
from gymnasium.spaces import Discrete

from common.config import AT_LEAST_ZERO, POSITIVE, UNIT_INTERVAL, check
from common.errors import UserError
from common.rollout import to_space
from common.runs.seeding import stream
from envs.problem import Problem
from mpi_utils.comm import Comm
from persim.baselines.pessimistic import Pessimism, PessimisticMDP, disagreement, predict
from persim.config import NETWORKS, Config, check_config
from persim.data.behaviour import Layers
from persim.data.transitions import Transitions
from persim.learner import Learner, positive
from persim.planning.candidate_returns import AgentModel

NUM_ENVS = 64


@dataclass(frozen=True)
class Settings:
    """MOReL's budgets and its pessimism, the same for one policy for all agents and for one for each."""

    num_models: int = 4
    """Members of the ensemble (the authors: 4)."""
    model_iters: Annotated[int, POSITIVE] = 50
    """Iterations of its training, of 100 gradient steps each; all else is PerSim's, with one factor."""
    model_batch_size: Annotated[int, POSITIVE] = 256
    """Transitions of a gradient step, other ones for each member (the authors: 256)."""
    networks: dict[str, int] = field(default_factory=dict)
    """Sizes of its members' networks other than PerSim's usual ones, by the names of PerSim's settings."""
    threshold: Annotated[float, POSITIVE] = 1.0
    """Members may disagree by this times the most that they do on the data."""
    offset: Annotated[float, POSITIVE] = 1.0
    """By how much the reward of a step in HALT is below that of any step of the data, and below an ended
    episode's; for ever, that is offset / (1 - gamma) less in all."""
    gamma: Annotated[float, UNIT_INTERVAL] = 0.99
    """Discount."""
    spread: Annotated[float, UNIT_INTERVAL] = 0.5
    """Part of the episodes that start anywhere in the data, not where its trajectories start (the authors'
    mix: a half)."""
    horizon: Annotated[int, AT_LEAST_ZERO] = 0
    """Steps of an episode in the model; 0: the environment's own limit."""

    num_steps: Annotated[int, POSITIVE] = 200_000
    """Steps in the pessimistic MDP from which the policy is learnt, in whole updates of 4096."""
    num_epochs: Annotated[int, POSITIVE] = 5
    """Passes of PPO over what it has collected."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """PPO's at the start; it falls linearly to zero."""
    entropy_coef: Annotated[float, AT_LEAST_ZERO] = 0.0
    """PPO's weight of the policy's entropy."""
    features: tuple[int, ...] = (64, 64)
    """Units of the policy's hidden layers, and of the value's."""


class Greedy:
    """A policy of `layers`, weights [in, out] and biases [out] with tanh between, for any number of agents.

    Its action is the largest output (Discrete), or the outputs, stretched from -1..1 to the Box.
    """

    def __init__(self, space: Any, layers: Layers) -> None:
        self.space, self.layers = space, layers

    def __call__(self, state: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Actions [E] int64 or [E, a] float32 in `state` [E, d] float32; nothing is drawn."""
        x = state
        for weight, bias in self.layers[:-1]:
            x = np.tanh(x @ weight + bias)
        weight, bias = self.layers[-1]
        x = x @ weight + bias
        return x.argmax(-1) if isinstance(self.space, Discrete) else to_space(x, self.space)


def train(data: Transitions, family: Any, settings: Settings, seed: int) -> Greedy:
    """The policy of MOReL from the transitions `data` (Kidambi et al. 2020, arXiv 2005.05951).

    It knows of no agents: who acted plays no part but in where trajectories start. The policy is the last
    one. Raises `UserError` for settings that cannot work and where stable-baselines3 is not installed.
    """
    check_settings(settings)
    try:
        with redirect_stderr(io.StringIO()):  # an old gym that happens to be installed would speak up
            from persim.baselines import ppo
    except ImportError:
        text = "stable-baselines3 is missing; pip install 'personalised-meta-rl[behaviour]'"
        raise UserError(text) from None
    mdp = make_mdp(train_ensemble(data, family, settings, seed), data, family, settings, seed)
    mean, scale = data.state.mean(0, np.float64), positive(data.state.std(0, np.float64))
    number = int(stream(seed, "weights", index=settings.num_models).integers(2**31))
    return Greedy(family.action_space, ppo.learn(mdp, mean, scale, settings, number))


def check_settings(settings: Settings) -> None:
    """Refuse settings that cannot work, each with one line."""
    check(settings)
    if settings.num_models < 2:
        raise UserError(f"--num_models {settings.num_models}: one alone never disagrees; give at least 2")
    if settings.gamma == 1:
        raise UserError("--gamma 1.0: HALT would cost without end; give less")


def train_ensemble(data: Transitions, family: Any, settings: Settings, seed: int) -> AgentModel:
    """The M members, trained as PerSim's are but with one factor for everybody, ready to be stepped."""
    environment = family.name if family.name in NETWORKS else "unknown"
    chosen: dict[str, Any] = {
        "num_models": settings.num_models,
        "max_iters": settings.model_iters,
        "batch_size": settings.model_batch_size,
        **settings.networks,
    }
    config = dataclasses.replace(
        Config.defaults({"environment": environment}),
        num_agents=data.num_agents,
        pooled=True,
        refit=False,
        seed=seed,
        **chosen,
    )
    problem = Problem(environment, family, data.covariates, log=data)
    learner = Learner(check_config(config, with_data=False), Comm(), problem)
    for i in range(settings.model_iters):
        learner.train_iteration(i)
    return learner.simulator.at([0])


def make_mdp(
    model: AgentModel, data: Transitions, family: Any, settings: Settings, seed: int
) -> PessimisticMDP:
    """The pessimistic MDP of an ensemble; its threshold and penalty follow from the data."""
    apart = disagreement(predict(model, data.state, data.action))
    first = np.diff(data.agent, prepend=-1) != 0
    pessimism = Pessimism(
        threshold=settings.threshold * float(apart.max()),
        penalty=min(float(data.reward.min()), 0.0) - settings.offset,
        gamma=settings.gamma,
        horizon=settings.horizon or family.max_episode_len,
        spread=settings.spread,
    )
    rng = stream(seed, "environment")
    return PessimisticMDP(family, model, data.state[first], data.state, pessimism, NUM_ENVS, rng)
