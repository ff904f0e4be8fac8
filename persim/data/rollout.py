"""Episodes of many agents, recorded as transitions."""

import numpy as np

from persim.data.trajectories import trajectories
from persim.data.transitions import Transitions


def play(family, parameters, policy, rng) -> Transitions:
    """One episode of each of n agents {name: [n]}, until it ends by itself or by the time limit.

    `policy(state [n, d] float32, rng)` gives actions [n] or [n, a]. Dynamics run in float64; recorded is
    what an observer of float32 sees.
    """
    played = trajectories(family, parameters, policy, rng, family.max_episode_len)
    rows = agent, time = played.alive.nonzero()
    action = played.actions[rows]
    discrete = action.ndim == 1
    return Transitions(
        names=[str(i) for i in range(len(played.alive))],
        agent=agent,
        time=time,
        state=played.states[:, :-1][rows].astype(np.float32),
        action=action.astype(np.int64 if discrete else np.float32),
        reward=played.rewards[rows].astype(np.float32),
        next_state=played.states[:, 1:][rows].astype(np.float32),
        state_names=list(family.state_names),
        action_names=["action"] if discrete else [f"action_{i}" for i in range(action.shape[1])],
        covariates={name: np.asarray(value, np.float64) for name, value in parameters.items()},
    )
