"""RL^2 on a population: a memory that has met its agents, and adapts to each within a few episodes."""

import numpy as np

from common.runs.seeding import stream
from comparison.config import RL2, recipe
from comparison.problem import Padded, People, Rows, outcome, test
from envs.problem import Problem
from mpi_utils.comm import Comm
from rl2.config import Config, check_config
from rl2.learner import Learner
from rl2.policy import Actor


def run(people: People, settings, seed: int) -> dict:
    """Train on meta-episodes of agents of the population, adapt to each of them, test."""
    found = recipe(RL2, people.environment, "max_iters", settings.effort)
    episodes = found.pop("episodes")
    config = Config(
        environment=people.environment,
        meta_episode_len=episodes * people.horizon,
        num_features=64,
        meta_episodes_per_policy_update=80,
        meta_episodes_per_learner_batch=20,
        num_epochs=4,
        gamma=0.99,
        gae_lambda=0.95,
        learning_rate=2e-3,
        entropy_coef=0.01,
        seed=seed,
        **found,
    )
    rows = Rows(people)
    problem = Problem(people.environment, rows, people.parameters, people.horizon)
    learner = Learner(check_config(config), Comm(), problem)
    for i in range(config.max_iters):
        learner.train_iteration(i)
    actor = learner.actor()
    memories, spent = adapt(people, actor, episodes - 1, seed)
    curve = []
    for memory, steps in zip(memories, spent, strict=True):
        actor.start_from(memory)
        actor.reset(people.n * settings.episodes)
        curve.append((steps, test(people, acting(actor), settings.episodes, seed)[0]))
    facts = {"iterations": config.max_iters, "meta_episodes": config.max_iters * 80}
    return outcome(
        curve[-1][1],
        train_steps=rows.steps,
        new_agent_steps=curve[-1][0],
        policies=1,
        curve=curve,
        facts=facts,
    )


def adapt(people: People, actor: Actor, num_episodes: int, seed: int):
    """What is remembered of each agent after 0, 1, ... episodes with it, and the steps that they took."""
    env = Padded(people.family.make_vec(people.parameters, stream(seed, "evaluation", 1)), people.horizon)
    actor.reset(people.n)
    memories, spent = [actor.remembered()], [0.0]
    observation, reward, done = env.reset()[0], None, None
    for _ in range(num_episodes):
        for _ in range(people.horizon):
            action = actor.act(observation, reward, done)
            observation, reward, _, done, _ = env.step(action)
        memories.append(actor.remembered(reward, done))
        spent.append(env.counter.steps / people.n)
    return memories, spent


def acting(actor: Actor):
    """An `act` for `test`: one more episode, in which nothing ends."""

    def act(observation, reward, running):
        return actor.act(observation, reward, None if reward is None else np.zeros(len(reward), bool))

    return act
