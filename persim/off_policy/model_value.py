"""The value of a policy inside the simulators: each member of the ensemble is a world of its own."""

from typing import Any, NamedTuple

import numpy as np
import torch

from common.protocols import Actor
from mpi_utils.comm import Comm
from persim import policy
from persim.agent_models import AgentModels
from persim.data.transitions import Transitions
from persim.off_policy.episodes import LoggedEpisodes


class ModelValue(NamedTuple):
    """What came of the episodes of n agents in each of M members."""

    returns: np.ndarray  # [M, n, K]
    unlike: np.ndarray  # [n], the share of steps at which the log has no data (`Support`)


def model_value(
    models: AgentModels,
    family: Any,
    log: Transitions,
    episodes: LoggedEpisodes,
    actor: Actor,
    seen: int,
    support: Any,
    comm: Comm,
) -> ModelValue:
    """Returns of `actor` from the first state of each logged episode on, for as many steps; a collective.

    `actor` has n agents, in the log's order, and is shown the first `seen` coordinates of states. Episodes
    are shared over ranks.
    """
    n, K = episodes.rows.shape
    M, own = len(models.factor), comm.share(K)
    k = own.stop - own.start
    returns, unlike = np.zeros((M, n, K)), np.zeros((2, n))
    if k:
        start = log.state[episodes.rows[:, own]]  # [n, k, D]
        state = torch.from_numpy(np.broadcast_to(start, (M, *start.shape)).copy())
        running = np.broadcast_to(episodes.there[:, own], (M, n, k)).copy()
        first = (own.start * M * n,) if isinstance(actor, policy.Actor) else ()
        actor.reset(k * M * n, *first)
        reward, done = None, None
        for t in range(int(episodes.horizon[:, own].max())):
            running &= t < episodes.horizon[:, own]
            if not running.any():
                break
            observation = in_rows(state[..., :seen].double().numpy())
            action = actor.act(observation, reward, done, in_rows(running))
            action = from_rows(np.asarray(action), (M, n, k))
            following = models.step(state, torch.from_numpy(np.ascontiguousarray(action)))
            gained = np.broadcast_to(family.reward(state, torch.from_numpy(action), following), (M, n, k))
            gained = np.where(running & np.isfinite(gained), gained, 0.0)
            returns[:, :, own] += gained
            one = slice(t % M, t % M + 1)  # members are much alike in this, and each has its turn
            unlike += support.count(state[one].numpy(), action[one], running[one])
            ended = np.asarray(family.terminated(following)) if hasattr(family, "terminated") else False
            reward, done = in_rows(gained), in_rows(running & ended)
            running = running & ~np.asarray(ended)
            state = torch.where(torch.from_numpy(running)[..., None], following, state)
    comm.allreduce_(returns)
    comm.allreduce_(unlike)
    return ModelValue(returns, unlike[0] / np.maximum(unlike[1], 1))


def in_rows(values: np.ndarray) -> np.ndarray:
    """[M, n, k, ...] as an actor's rows [k * M * n, ...]: agents take turns, episodes are the slowest."""
    return values.transpose(2, 0, 1, *range(3, values.ndim)).reshape(-1, *values.shape[3:])


def from_rows(rows: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """What `in_rows` made, as [M, n, k, ...] again."""
    M, n, k = shape
    values = rows.reshape(k, M, n, *rows.shape[1:])
    return values.transpose(1, 2, 0, *range(3, values.ndim))
