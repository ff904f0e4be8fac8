"""Episodes of a Dynamics family, all played at once."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Trajectories:
    """E episodes of T steps; a state stays as it is after its episode's end, and nothing there counts."""

    states: np.ndarray  # [E, T + 1, d] float64
    actions: np.ndarray  # [E, T] int64 or [E, T, a] float32
    rewards: np.ndarray  # [E, T], 0 after the end
    alive: np.ndarray  # [E, T] bool: the step belongs to the episode

    def returns(self) -> np.ndarray:
        """Sums of rewards [E]."""
        return self.rewards.sum(1)


def trajectories(family, parameters, policy, rng, num_steps: int) -> Trajectories:
    """One episode of each agent in `parameters` {name: [E]}, cut after `num_steps`.

    `policy(state [E, d], rng) -> action [E] or [E, a]` sees the true state in float32. What is drawn at a
    step does not depend on which episodes have ended.
    """
    num_episodes = len(next(iter(parameters.values())))
    state, running = family.start(rng, num_episodes), np.ones(num_episodes, bool)
    states, steps = [state], []
    for _ in range(num_steps):
        action = policy(state.astype(np.float32), rng)
        following = family.advance(state, action, parameters)
        reward = np.where(running, family.reward(state, action, following), 0.0)
        steps.append((action, reward, running))
        state = np.where(running[:, None], following, state)
        running = running & ~family.terminated(state)
        states.append(state)
    return Trajectories(
        np.stack(states, axis=1), *(np.stack(part, axis=1) for part in zip(*steps, strict=True))
    )
