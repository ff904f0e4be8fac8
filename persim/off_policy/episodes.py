"""The episodes of a log, side by side: what a policy's value is held against."""

import dataclasses
from typing import Any

import numpy as np

from common.protocols import Actor
from persim.data.transitions import Transitions


@dataclasses.dataclass(frozen=True)
class LoggedEpisodes:
    """Up to K episodes of each of n agents of a log; an episode is a run of steps without a gap."""

    rows: np.ndarray
    """[n, K] int64, the row of the log with which an episode begins."""
    lengths: np.ndarray
    """[n, K] int64, its logged steps; 0 where an agent has fewer episodes."""
    horizon: np.ndarray
    """[n, K] int64, the steps that a policy has: as many as were logged, or all where the episode ended."""
    returns: np.ndarray
    """[n, K] float64, sums of logged rewards; 0 where there is no episode."""

    @property
    def there(self) -> np.ndarray:
        """Which of them are episodes, [n, K] bool."""
        return self.lengths > 0


def episodes_of(log: Transitions, family: Any, horizon: int, most: int, seen: int) -> LoggedEpisodes:
    """The first `most` episodes of each agent of a log, whose states are those of the `planned` family.

    `horizon` is how many steps an episode has at most; steps go on in one another by the first `seen`
    coordinates, as a learned reward begins anew with each.
    """
    begins = np.unique(log.starts(seen))
    lengths = np.diff(np.append(begins, len(log)))
    last = begins + lengths - 1
    ended = np.asarray(family.terminated(log.next_state[last])) if hasattr(family, "terminated") else False
    rewards = np.asarray(family.reward(log.state, log.action, log.next_state), np.float64)
    returns = np.add.reduceat(rewards, begins)
    agent = log.agent[begins]
    place = np.arange(len(begins)) - np.searchsorted(agent, agent)  # among the agent's own
    kept = place < most
    shape = log.num_agents, int(place[kept].max()) + 1
    kinds = {"rows": np.int64, "lengths": np.int64, "horizon": np.int64, "returns": np.float64}
    found = {name: np.zeros(shape, kind) for name, kind in kinds.items()}
    every = np.where(ended, np.maximum(lengths, horizon), lengths)
    columns = {"rows": begins, "lengths": lengths, "horizon": every, "returns": returns}
    for name, values in columns.items():
        found[name][agent[kept], place[kept]] = values[kept]
    return LoggedEpisodes(**found)


def actions_along(log: Transitions, episodes: LoggedEpisodes, actor: Actor, seen: int) -> np.ndarray:
    """What `actor` would do at each state of the log, given what was logged before.

    Returns actions [n, K, T + 1, ...], at the states before each of T steps and after the last; the actor is
    shown the first `seen` coordinates of states, and the logged rewards.
    """
    n, K = episodes.rows.shape
    T = int(episodes.lengths.max())
    rows, lengths = (part.T.ravel() for part in (episodes.rows, episodes.lengths))  # agents in turn
    actor.reset(n * K)
    actions, reward, done = [], None, None
    for t in range(T + 1):
        at = rows + np.minimum(t, np.maximum(lengths - 1, 0))
        state = np.where((t < lengths)[:, None], log.state[at], log.next_state[at])[:, :seen]
        actions.append(np.array(actor.act(state.astype(np.float64), reward, done, t <= lengths)))
        reward, done = log.reward[at], np.zeros(n * K, bool)
    found = np.stack(actions, axis=1)
    return found.reshape(K, n, *found.shape[1:]).swapaxes(0, 1)
