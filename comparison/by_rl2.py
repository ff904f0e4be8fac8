"""RL^2 on a population: a memory that has met its agents, and adapts to each within a few episodes."""

import numpy as np
import torch

from common.runs.seeding import stream
from comparison.config import RL2, recipe
from comparison.problem import Padded, People, Rows, outcome, test
from mpi_utils.comm import Comm
from rl2.config import Config, check_config
from rl2.learner import Learner


def run(people: People, settings, seed: int) -> dict:
    """Train on meta-episodes of agents of the population, adapt to each of them, test."""
    found = recipe(RL2, people.environment, "max_pol_iters", settings.effort)
    episodes = found.pop("episodes")
    config = Config(
        environment=people.environment,
        meta_episode_len=episodes * people.horizon,
        num_features=64,
        meta_episodes_per_policy_update=80,
        meta_episodes_per_learner_batch=20,
        ppo_opt_epochs=4,
        discount_gamma=0.99,
        gae_lambda=0.95,
        adam_lr=2e-3,
        ppo_ent_coef=0.01,
        seed=seed,
        **found,
    )
    learner = Learner(check_config(config), Comm())
    learner.family = rows = Rows(people)
    for i in range(config.max_pol_iters):
        learner.train_iteration(i)
    memories, spent = adapt(people, learner.policy, episodes - 1, seed)
    curve = []
    for memory, steps in zip(memories, spent, strict=True):
        act = acting(learner.policy, memory, settings.episodes)
        curve.append((steps, test(people, act, settings.episodes, seed)[0]))
    facts = {"iterations": config.max_pol_iters, "meta_episodes": config.max_pol_iters * 80}
    return outcome(
        curve[-1][1],
        train_steps=rows.steps,
        new_agent_steps=curve[-1][0],
        policies=1,
        curve=curve,
        facts=facts,
    )


@torch.no_grad()
def adapt(people: People, policy, num_episodes: int, seed: int):
    """What is remembered of each agent after 0, 1, ... episodes with it, and the steps that they took."""
    env = Padded(people.family.make_vec(people.parameters, stream(seed, "evaluation", 1)), people.horizon)
    state, last = policy.initial_state(people.n), None
    observation, memories, spent = env.reset()[0], [(state, last)], [0.0]
    for _ in range(num_episodes):
        for _ in range(people.horizon):
            action, seen, state = advance(policy, observation, last, state)
            observation, reward, _, done, _ = env.step(action.numpy())
            last = seen, action, torch.from_numpy(reward), torch.from_numpy(done).float()
        memories.append((state, last))
        spent.append(env.counter.steps / people.n)
    return memories, spent


def advance(policy, observation, last, state):
    """The most likely actions, the observations as tensors, and the next state of the memory."""
    seen = torch.as_tensor(observation)
    distribution, _, state = policy.step(policy.features(seen, last), seen, state)
    return distribution.mode(), seen, state


def acting(policy, memory, times: int):
    """An `act` for `test` that goes on, `times` for each agent, from what is remembered of it."""
    state, last = memory
    state = tuple(part.repeat(1, times, 1) for part in state)
    if last is not None:
        last = tuple(part.repeat(times, *[1] * (part.ndim - 1)) for part in last)
    held = {"state": state, "last": last}

    @torch.no_grad()
    def act(observation, reward, running):
        if reward is not None:
            paid = torch.as_tensor(np.where(running, reward, 0.0), dtype=torch.float32)
            held["last"] = (*held["last"][:2], paid, torch.zeros(len(reward)))
        action, seen, held["state"] = advance(policy, observation, held["last"], held["state"])
        held["last"] = (seen, action, None, None)
        return action.numpy()

    return act
