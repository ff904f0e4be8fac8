"""Tests in environments whose dynamics are no functions of what is observed: they are played."""

from contextlib import closing
from typing import Any

import numpy as np

from common.evaluation import Row
from common.progress import at
from common.rollout import play
from common.runs.seeding import SharedStream, stream
from mpi_utils.comm import Comm
from persim.config import Config
from persim.data import behaviour
from persim.data.trajectories import Follows, log_episodes
from persim.history import with_history
from persim.learned_reward import with_reward
from persim.policy import Actor, make_actor
from persim.simulator import Simulator
from persim.testing import held_out_log, prediction, report


class Numbered:
    """An actor whose episodes are numbered from `first`: another rank has those before."""

    def __init__(self, actor: Actor, first: int) -> None:
        self.actor, self.first, self.act = actor, first, actor.act

    def reset(self, num: int) -> None:
        """Begin `num` episodes."""
        self.actor.reset(num, self.first)


def evaluate(
    config: Config,
    simulator: Simulator,
    data: dict[str, Any],
    family: Any,
    chosen: np.ndarray,
    settings: Any,
    comm: Comm,
) -> list[Row]:
    """Rows on the agents `chosen` [n]: predictions of a fresh log, and what planning returns; a collective.

    What environments report of an episode are further rows, by its name as metric.
    """
    tested = family.check({name: np.asarray(values)[chosen] for name, values in data["covariates"].items()})
    labels = [data["names"][i] for i in chosen]
    make_rows = report.Rows(config.dataset, "pooled" if config.pooled else "persim")
    policy = Follows(behaviour.load(family).behaviour(tested), stream(settings.seed, "acting"))
    rng = stream(settings.seed, "evaluation", 1)
    log = log_episodes(family, tested, policy, rng, family.max_episode_len)
    log = with_history(with_reward(log), simulator.history)
    spans = [held_out_log.spans(log, i, 0)[: settings.trajectories] for i in range(len(chosen))]
    task = held_out_log.windows(log, spans)
    models = simulator.at(np.zeros_like(chosen) if config.pooled else chosen)
    predicted = prediction.predict(models, task)
    rows = make_rows.predictions(labels, *prediction.only(simulator.target_size - 1, task, predicted))
    if not settings.episodes:
        return rows
    at("planning on the simulators")
    sizes = {"horizon": settings.horizon, "num_candidates": settings.num_candidates}
    actor = make_actor(config, family, simulator, chosen, seed=settings.seed, **sizes)
    for name, values in play_shared(family, tested, actor, settings.episodes, settings.seed, comm).items():
        rows += make_rows.returns("", labels, values, name)
    return rows


def play_shared(
    family: Any, tested: dict[str, np.ndarray], actor: Actor, num_episodes: int, seed: int, comm: Comm
) -> dict[str, np.ndarray]:
    """{name: [n, num_episodes]}: "return", and what environments report, of each agent; a collective.

    Episodes are shared over ranks, and are the same at any number of them.
    """
    n = len(next(iter(tested.values())))
    total = n * num_episodes
    share = comm.share(total)
    pairs, found = np.arange(total)[share], dict[str, np.ndarray]()
    if len(pairs):
        own = {name: values[pairs % n] for name, values in tested.items()}
        rng = SharedStream(stream(seed, "evaluation"), total, share)
        with closing(family.make_vec(own, rng)) as env:
            played = play(env, Numbered(actor, int(pairs[0])), family.max_episode_len)
        found = {"return": played.returns, **played.measures}
    parts = [part for part in comm.allgather_object(found) if part]
    return {
        name: np.concatenate([part[name] for part in parts]).reshape(num_episodes, n).T for name in parts[0]
    }
