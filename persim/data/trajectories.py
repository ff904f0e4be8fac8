"""Episodes of many agents, all played at once, and the logs that come of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from common.protocols import Actor
from common.rollout import Recorder, play
from persim.data.behaviour import BehaviourPolicy
from persim.data.transitions import Transitions


@dataclass(frozen=True, eq=False)
class Trajectories:
    """E episodes of T steps; a state stays as it is after its episode's end, and nothing there counts."""

    states: np.ndarray  # [E, T + 1, d] float64
    actions: np.ndarray  # [E, T] int64 or [E, T, a] float32
    rewards: np.ndarray  # [E, T], 0 after the end
    alive: np.ndarray  # [E, T] bool: the step belongs to the episode

    def returns(self) -> np.ndarray:
        """Sums of rewards [E], added up step by step."""
        return self.rewards.cumsum(1)[:, -1]


def episodes(
    family: Any, parameters: dict[str, np.ndarray], start: np.ndarray, actor: Actor, num_steps: int
) -> Trajectories:
    """One episode of each agent in `parameters` {name: [E]} from `start` [E, d], cut after `num_steps`.

    This loop is not `common.rollout.play`: predictions are held against states in float64, of which an
    environment shows only float32; a rank plays some of the starts that are drawn for all; and simulators
    serve as dynamics, too. The actor sees the states in float64, and who is still running.
    """
    state, running = start, np.ones(len(start), bool)
    states, steps = [state], []
    reward, done = None, None
    for _ in range(num_steps):
        action = actor.act(state, reward, done, running)
        following = family.advance(state, action, parameters)
        reward = np.where(running, family.reward(state, action, following), 0.0)
        steps.append((action, reward, running))
        state = np.where(running[:, None], following, state)
        done = running & family.terminated(state)
        running = running & ~done
        states.append(state)
    return Trajectories(
        np.stack(states, axis=1), *(np.stack(part, axis=1) for part in zip(*steps, strict=True))
    )


class Follows:
    """A behaviour policy, which sees states in float32, as what acts in `episodes`."""

    def __init__(self, policy: BehaviourPolicy, rng: np.random.Generator) -> None:
        self.policy, self.rng = policy, rng

    def reset(self, num: int) -> None:
        """Begin `num` episodes; a policy remembers nothing."""

    def act(
        self,
        observation: np.ndarray,
        reward: np.ndarray | None = None,
        done: np.ndarray | None = None,
        running: np.ndarray | None = None,
    ) -> np.ndarray:
        """Actions of all rows: what is drawn at a step does not depend on which episodes have ended."""
        return self.policy(observation.astype(np.float32), self.rng)


def trajectories(
    family: Any,
    parameters: dict[str, np.ndarray],
    policy: BehaviourPolicy,
    rng: np.random.Generator,
    num_steps: int,
) -> Trajectories:
    """One episode of each agent in `parameters` {name: [E]} of a `Dynamics` family, cut after `num_steps`.

    `policy(state [E, d] float32, rng) -> action [E] or [E, a]`.
    """
    start = family.start(rng, len(next(iter(parameters.values()))))
    return episodes(family, parameters, start, Follows(policy, rng), num_steps)


def log_dynamics(
    family: Any, parameters: dict[str, np.ndarray], policy: BehaviourPolicy, rng: np.random.Generator
) -> Transitions:
    """One episode of each of n agents {name: [n]}, until it ends by itself or by the time limit.

    Dynamics run in float64; recorded is what an observer of float32 sees.
    """
    played = trajectories(family, parameters, policy, rng, family.max_episode_len)
    steps = played.states[:, :-1], played.actions, played.rewards, played.states[:, 1:]
    return as_transitions(played.alive, *steps, list(family.state_names), parameters)


def log_episodes(
    family: Any, parameters: dict[str, np.ndarray], actor: Actor, rng: Any, num_steps: int
) -> Transitions:
    """One episode of each of n agents {name: [n, ...]} of any family with `make_vec`, cut after `num_steps`.

    Environments draw from `rng`. Whoever acts may be a behaviour policy, as `Follows(policy, its_own_rng)`.
    """
    env, record = family.make_vec(parameters, rng), Recorder()
    try:
        play(env, actor, num_steps, record)
    finally:
        env.close()
    alive, state, action, reward, next_state = (
        np.stack(part, axis=1)
        for part in (
            record.running,
            record.observation,
            record.action,
            record.reward,
            record.next_observation,
        )
    )
    names = list(getattr(family, "state_names", [f"state_{i}" for i in range(state.shape[2])]))
    covariates = parameters if all(np.ndim(values) == 1 for values in parameters.values()) else {}
    return as_transitions(alive, state, action, reward, next_state, names, covariates)


def as_transitions(
    alive: np.ndarray,
    state: np.ndarray,
    action: np.ndarray,
    reward: np.ndarray,
    next_state: np.ndarray,
    state_names: list[str],
    covariates: dict[str, np.ndarray],
) -> Transitions:
    """The steps that are `alive` [n, T] of arrays [n, T, ...], with agents called by their numbers."""
    rows = agent, time = alive.nonzero()
    action = action[rows]
    discrete = action.ndim == 1
    return Transitions(
        names=[str(i) for i in range(len(alive))],
        agent=agent,
        time=time,
        state=state[rows].astype(np.float32),
        action=action.astype(np.int64 if discrete else np.float32),
        reward=reward[rows].astype(np.float32),
        next_state=next_state[rows].astype(np.float32),
        state_names=state_names,
        action_names=["action"] if discrete else [f"action_{i}" for i in range(action.shape[1])],
        covariates={name: np.asarray(value, np.float64) for name, value in covariates.items()} or None,
    )
