"""BCQ and CQL, and fitted-Q evaluation, by d3rlpy: the only file that knows this library."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete

from common.errors import UserError
from common.rollout import stretch, to_space
from common.runs.seeding import stream
from persim.data.behaviour import BehaviourPolicy, Layers
from persim.data.transitions import Transitions

ALGORITHMS = ("bcq", "cql")
LEAST_SCALE = 1e-6  # a coordinate that never moves is not blown up


@dataclass(frozen=True)
class DiscreteSettings:
    """For discrete actions, mostly those of PerSim's discrete BCQ (the authors' code, March 2021).

    It learns at 1e-5 for up to 1e6 steps, with targets that follow at a rate of 0.005. Thousands of steps
    need more: the learning rate is the one of CQL's values (Kumar et al. 2020), which after 3,000 steps gave
    higher returns than the 1e-3 of PerSim's DQN, and targets are copied more often.
    """

    hidden: tuple[int, ...] = (256, 256)  # units of each network's layers
    batch_size: int = 128
    discount: float = 0.99
    learning_rate: float = 3e-4
    target_interval: int = 50  # steps between two copies to the target network
    threshold: float = 0.3  # BCQ: an action counts if it is that likely, relative to the likeliest
    logit_penalty: float = 1e-2  # BCQ: of the imitator (code of Fujimoto et al. 2019, arXiv 1910.01708)
    conservatism: float = 1.0  # CQL: weight of its penalty (d3rlpy; Kumar et al. 2020: 1 to 4)


@dataclass(frozen=True)
class ContinuousSettings:
    """For actions in -1..1.

    BCQ's are those of Fujimoto et al. 2019 (arXiv 1812.02900), CQL's those of Kumar et al. 2020 (arXiv
    2006.04779), without its Lagrangian version and with BCQ's smaller minibatches.
    """

    hidden: tuple[int, ...] = (256, 256)  # units of each network's layers (d3rlpy)
    batch_size: int = 100
    discount: float = 0.99
    target_rate: float = 0.005  # how fast targets follow
    candidates: int = 10  # BCQ: actions of which it takes the best; CQL: those of its penalty
    bcq_learning_rate: float = 1e-3  # of all its networks
    perturbation: float = 0.05  # BCQ: the most that an imitated action is moved
    pessimism: float = 0.75  # BCQ: weight of the lower of two values
    divergence_weight: float = 0.5  # BCQ: how much the imitator's latents are held to a normal
    actor_learning_rate: float = 1e-4  # CQL: of policy and temperature
    critic_learning_rate: float = 3e-4  # CQL
    conservatism: float = 5.0  # CQL: weight of its penalty


def train(
    algorithm: str,
    data: Transitions | Sequence[Transitions],
    family: Any,
    num_steps: int,
    seed: int,
    settings: DiscreteSettings | ContinuousSettings | None = None,
) -> BehaviourPolicy:
    """The greedy `policy(state [E, d], rng) -> action [E] or [E, a]` after `num_steps` gradient steps.

    `data` are `Transitions`, or several in a list, of which the agents do not matter. Values stop at states
    where the family ends an episode and go on behind all others, such as those at a time limit. States are
    standardised by the data. BCQ's continuous policy draws its candidates from `rng`. Global random
    generators stay as they are. Raises `UserError` for an unknown algorithm, no transitions, and without
    d3rlpy (extra [baselines]).
    """
    if algorithm not in ALGORITHMS:
        raise UserError(f"algorithm {algorithm!r}: choose one of {', '.join(ALGORITHMS)}")
    parts = data if isinstance(data, Sequence) else [data]
    state, action, reward, next_state = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("state", "action", "reward", "next_state")
    )
    if not len(state):
        raise UserError(f"{algorithm}: there are no transitions to learn from; give at least one")
    discrete = isinstance(family.action_space, Discrete)
    settings = settings or (DiscreteSettings() if discrete else ContinuousSettings())
    mean, scale = state.mean(0, dtype=np.float64), state.std(0, dtype=np.float64)
    scale = np.where(scale > LEAST_SCALE, scale, 1.0)

    def standardise(state: np.ndarray) -> np.ndarray:
        return ((state - mean) / scale).astype(np.float32)

    def in_units(action: np.ndarray) -> np.ndarray:
        centre, half = stretch(family.action_space)
        return (action - centre) / half

    columns = {
        "observations": standardise(state),
        "actions": (action if discrete else in_units(action)).reshape(len(state), -1).astype(np.float32),
        "rewards": reward[:, None].astype(np.float32),
        "next_observations": standardise(next_state),
        "terminals": np.asarray(family.terminated(next_state))[:, None].astype(np.float32),
    }
    act = _learn(algorithm, columns, family.action_space, num_steps, seed, settings)
    return lambda state, rng: to_space(act(standardise(state), rng), family.action_space)


class GivenActions:
    """A policy as fitted-Q evaluation asks for it, whose next actions are those of the minibatch."""

    def __init__(self) -> None:
        self.impl, self.actions = self, torch.zeros(0)

    def predict_best_action(self, observations: torch.Tensor) -> torch.Tensor:
        """The actions that were set for these observations."""
        return self.actions


def fitted_q(trial: Any, actions: np.ndarray, latents: np.ndarray, num_steps: int, seed: int) -> np.ndarray:
    """Values [n] of a policy by fitted-Q evaluation (Le et al. 2019, arXiv 1903.08738), after `num_steps`.

    `actions` [n, K, T + 1, ...] are the policy's along the episodes of `trial`, before each step and after
    the last. One function serves all agents: it sees the state, the agent's `latents` [n, r] and the time,
    so that returns need no discount. Raises `UserError` without d3rlpy.
    """
    log, episodes, family = trial.log, trial.episodes, trial.family
    agent, place = np.nonzero(episodes.there)
    lengths, horizon = episodes.lengths[agent, place], episodes.horizon[agent, place]
    of = np.repeat(np.arange(len(agent)), lengths)  # the episode of each step
    time = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    rows, who, most = episodes.rows[agent, place][of] + time, agent[of], horizon.max()
    mean, scale = log.state.mean(0, np.float64), log.state.std(0, dtype=np.float64)
    scale = np.where(scale > LEAST_SCALE, scale, 1.0)

    def seen(state: np.ndarray, agents: np.ndarray, time: np.ndarray) -> np.ndarray:
        parts = [(state - mean) / scale, latents[agents], time[:, None] / most]
        return np.concatenate(parts, axis=1).astype(np.float32)

    reward = np.asarray(family.reward(log.state[rows], log.action[rows], log.next_state[rows]), np.float64)
    unit = most * (np.sqrt(np.square(reward).mean()) or 1.0)
    over = time + 1 >= horizon[of]
    if hasattr(family, "terminated"):
        over = over | np.asarray(family.terminated(log.next_state[rows]))
    columns = {
        "observations": seen(log.state[rows], who, time),
        "actions": log.action[rows].reshape(len(rows), -1).astype(np.float32),
        "rewards": (reward / unit)[:, None].astype(np.float32),
        "next_observations": seen(log.next_state[rows], who, time + 1),
        "next_actions": actions[who, place[of], time + 1].reshape(len(rows), -1).astype(np.float32),
        "terminals": over[:, None].astype(np.float32),
    }
    first = seen(log.state[episodes.rows[agent, place]], agent, np.zeros(len(agent)))
    chosen = actions[agent, place, 0].reshape(len(agent), -1)
    value = _fit(columns, first, chosen, family.action_space, num_steps, seed) * unit
    return np.bincount(agent, value, log.num_agents) / episodes.there.sum(1)


def _fit(
    columns: dict[str, np.ndarray],
    first: np.ndarray,
    chosen: np.ndarray,
    space: Any,
    num_steps: int,
    seed: int,
) -> np.ndarray:
    """What the library's function says [B] of the actions `chosen` in the observations `first` [B, d]."""
    d3rlpy, batch = library()
    from d3rlpy.ope import FQE, DiscreteFQE, FQEConfig

    discrete, settings = isinstance(space, Discrete), DiscreteSettings()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(stream(seed, "weights").integers(2**62)))
        policy = GivenActions()
        config = FQEConfig(
            learning_rate=settings.learning_rate,
            gamma=1.0,
            target_update_interval=settings.target_interval,
            encoder_factory=d3rlpy.models.VectorEncoderFactory(list(settings.hidden)),
        )
        learner: Any = (DiscreteFQE if discrete else FQE)(algo=policy, config=config)
        learner.create_impl(first.shape[1:], int(space.n if discrete else space.shape[0]))
        rng, N = stream(seed, "minibatches"), len(columns["rewards"])
        ones = np.ones((settings.batch_size, 1), np.float32)
        for _ in range(num_steps):
            rows = rng.integers(N, size=settings.batch_size)
            drawn = {name: column[rows] for name, column in columns.items()}
            policy.actions = torch.from_numpy(drawn["next_actions"])
            if discrete:
                policy.actions = policy.actions[:, 0].long()
            learner.update(batch(**drawn, intervals=ones, transitions=()))
    network = learner.impl.modules.q_funcs[0]
    if discrete:
        return forward(layers(network), first)[np.arange(len(first)), chosen[:, 0].astype(int)]
    return forward(layers(network), np.concatenate([first, chosen], axis=1).astype(np.float32))[:, 0]


def _learn(
    algorithm: str, columns: dict[str, np.ndarray], space: Any, num_steps: int, seed: int, settings: Any
) -> BehaviourPolicy:
    """What acts on standardised states, after minibatches of `columns` {name: [N, ...]}."""
    d3rlpy, batch = library()
    discrete = isinstance(space, Discrete)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(stream(seed, "weights").integers(2**62)))
        kind = "Discrete" if discrete else ""
        config = getattr(d3rlpy.algos, f"{kind}{algorithm.upper()}Config")
        chosen = (_discrete if discrete else _continuous)(d3rlpy, algorithm, settings)
        learner = config(batch_size=settings.batch_size, gamma=settings.discount, **chosen).create("cpu:0")
        learner.create_impl(columns["observations"].shape[1:], int(space.n if discrete else space.shape[0]))
        rng, N = stream(seed, "minibatches"), len(columns["rewards"])
        ones = np.ones((settings.batch_size, 1), np.float32)
        for _ in range(num_steps):
            rows = rng.integers(N, size=settings.batch_size)
            drawn = {name: column[rows] for name, column in columns.items()}
            # Next actions serve other algorithms of the library.
            learner.update(batch(**drawn, next_actions=drawn["actions"], intervals=ones, transitions=()))
    networks = learner.impl.modules
    if discrete:
        return _best(layers(learner.impl.q_function[0]), getattr(networks, "imitator", None), settings)
    if algorithm == "cql":
        actor = layers(networks.policy)[:-1]  # the last are the deviations
        return lambda x, rng: np.tanh(forward(actor, x))
    decoder, perturb, value = map(layers, (networks.vae_decoder, networks.policy, networks.q_funcs[0]))
    return _best_candidate(decoder, perturb, value, settings)


def _discrete(d3rlpy: Any, algorithm: str, settings: Any) -> dict[str, Any]:
    """The library's names of settings for discrete actions."""
    chosen = {
        "encoder_factory": d3rlpy.models.VectorEncoderFactory(list(settings.hidden)),
        "learning_rate": settings.learning_rate,
        "target_update_interval": settings.target_interval,
    }
    if algorithm == "cql":
        return {**chosen, "alpha": settings.conservatism}
    return {
        **chosen,
        "action_flexibility": settings.threshold,
        "beta": settings.logit_penalty,
        "share_encoder": False,
    }


def _continuous(d3rlpy: Any, algorithm: str, settings: Any) -> dict[str, Any]:
    """The library's names of settings for continuous actions."""
    encoder = d3rlpy.models.VectorEncoderFactory(list(settings.hidden))
    chosen = {
        "actor_encoder_factory": encoder,
        "critic_encoder_factory": encoder,
        "tau": settings.target_rate,
        "n_action_samples": settings.candidates,
    }
    if algorithm == "cql":
        return {
            **chosen,
            "actor_learning_rate": settings.actor_learning_rate,
            "temp_learning_rate": settings.actor_learning_rate,
            "critic_learning_rate": settings.critic_learning_rate,
            "alpha_learning_rate": 0.0,
            "conservative_weight": settings.conservatism,
        }
    return {
        **chosen,
        **{f"{role}_learning_rate": settings.bcq_learning_rate for role in ("actor", "critic", "imitator")},
        "imitator_encoder_factory": encoder,
        "beta": settings.divergence_weight,
        "action_flexibility": settings.perturbation,
        "lam": settings.pessimism,
    }


def _best(value: Layers, imitator: Any, settings: Any) -> BehaviourPolicy:
    """The action of the highest value, for BCQ among those that the data's agents may have taken."""
    imitator = imitator and layers(imitator)

    def act(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        values = forward(value, x)
        if imitator:
            likely = forward(imitator, x)
            values[likely < likely.max(1, keepdims=True) + np.log(settings.threshold)] = -np.inf
        return values.argmax(1)

    return act


def _best_candidate(decoder: Layers, perturb: Layers, value: Layers, settings: Any) -> BehaviourPolicy:
    """BCQ's continuous action: of imitated ones, each moved a little, the one of the highest value."""

    def act(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        (E, _), k, a = x.shape, settings.candidates, decoder[-1][1].shape[-1]
        noise = rng.standard_normal((E * k, 2 * a), dtype=np.float32).clip(-0.5, 0.5)
        x = np.repeat(x, k, axis=0)
        action = forward(decoder, np.concatenate([x, noise], 1))
        moved = np.tanh(forward(perturb, np.concatenate([x, action], 1)))
        action = (action + np.float32(settings.perturbation) * moved).clip(-1, 1)
        best = forward(value, np.concatenate([x, action], 1)).reshape(E, k).argmax(1)
        return action.reshape(E, k, a)[np.arange(E), best]

    return act


def layers(network: torch.nn.Module) -> Layers:
    """Weights [in, out] and biases [out] of a network's linear layers, in order."""
    linear = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
    return [(layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy()) for layer in linear]


def forward(layers: Layers, x: np.ndarray) -> np.ndarray:
    """Outputs [E, out] of layers with ReLU between them, for inputs [E, in]."""
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight + bias, 0)
    weight, bias = layers[-1]
    return x @ weight + bias


def library() -> tuple[Any, Any]:
    """d3rlpy and its type of minibatches; raises `UserError` where it is not installed."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # Gym, which it imports, tells that it is old
            import d3rlpy
            from d3rlpy.dataset import TransitionMiniBatch
    except ImportError:
        text = "BCQ, CQL and fitted-Q evaluation need d3rlpy; pip install 'personalised-meta-rl[baselines]'"
        raise UserError(text) from None
    return d3rlpy, TransitionMiniBatch
