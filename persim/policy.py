"""Episodes in the true environment, acted in by a planner on a model."""

import numpy as np

from common.runs.seeding import stream
from persim.planning.lookup_table import tabulate
from persim.planning.planner import make_planner


def play(family, parameters, model, num_episodes: int, seed, comm, settings=None, agents=None, tables=True):
    """Returns [n, num_episodes] of the agents `parameters` {name: [n]}, on every rank; a collective.

    `model.at(agents [E])` gives the models with which the planner acts for them; there the agents have the
    numbers `agents` [n], by default 0..n-1. Episodes are shared over ranks, and so are a rank's planned
    together; each has a start and candidates of its own. One that ends leaves the others' work. With
    `tables`, a simulator is looked up in tables where `tabulate` finds that as good.

    A model that infers agents from what they do has `memory(N)` instead of `at`: what it knows of N episodes.
    Its `at(episodes [E])` gives the models, and its `observe(episodes, state, action, next_state)` is told of
    every step.
    """
    n = len(next(iter(parameters.values())))
    agents = np.arange(n) if agents is None else np.asarray(agents)
    total = n * num_episodes
    with comm.agree():
        planner = make_planner(family, total, seed, settings)
    model = tabulate(model, family, agents) if tables else model
    memory = model.memory(total) if hasattr(model, "memory") else None
    # Pairs are numbered by episode, then agent: every rank has short and long ones.
    pairs = np.arange(total)[comm.share(total)]
    state = family.start(stream(seed, "evaluation"), total)[pairs]
    returns = np.zeros(total)
    for _ in range(family.max_episode_len):
        if not len(pairs):
            break
        own = {name: values[pairs % n] for name, values in parameters.items()}
        known = (model, agents[pairs % n]) if memory is None else (memory, pairs)
        action = planner.plan(*known, state, pairs)
        following = family.advance(state, action, own)
        if memory is not None:
            memory.observe(pairs, state, action, following)
        returns[pairs] += family.reward(state, action, following)
        running = ~family.terminated(following)
        state, pairs = following[running], pairs[running]
    return comm.allreduce_(returns).reshape(num_episodes, n).T.copy()
