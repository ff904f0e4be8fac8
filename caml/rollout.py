"""Episodes to learn from: P policies with P agents at once, B episodes each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from caml.config import Config
from caml.policy import Policies, inputs
from common.baselines import RandomActions
from common.rollout import Recorder, final_observations, play, to_space
from common.runs.seeding import SharedStream, stream
from envs.problem import Problem


@dataclass
class Trajectories:
    """B episodes of each of P policies, with one agent a policy; nothing counts where `alive` is false."""

    observation: np.ndarray  # [T, P, B, D]
    action: np.ndarray  # [T, P, B], of Gaussian policies [T, P, B, A] before they are clipped
    reward: np.ndarray  # [T, P, B], 0 after the end
    alive: np.ndarray  # [T, P, B] bool: the step belongs to the episode
    final_observation: np.ndarray  # [P, B, D] where the last step led to

    def returns(self) -> np.ndarray:
        """Sums of rewards `[P, B]`."""
        return self.reward.sum(0, dtype=np.float64)

    def last_rewards(self) -> np.ndarray:
        """Rewards of the last steps `[P, B]`, the quantity of the paper's Figure 1."""
        last = self.alive.sum(0) - 1
        return np.take_along_axis(self.reward, last[None], axis=0)[0].astype(np.float64)

    def first_states(self, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each policy's first episode the states in which it acted `[P, num_steps, D]`, 0 after the end,
        and how many they are `[P]`.
        """
        alive = self.alive[:, :, 0]
        states = np.zeros((alive.shape[1], num_steps, self.observation.shape[-1]), np.float32)
        states[:, : len(alive)] = (self.observation[:, :, 0] * alive[..., None]).swapaxes(0, 1)
        return states, alive.sum(0)


class Rollouts:
    """Environments of a rank's agents, B for each agent and all stepped together, with streams of their own.

    `agents` are the numbers of all ranks' agents in `problem`, repeats allowed, of which this rank has the
    share `own` (None: all). What is drawn in an iteration does not depend on how they are shared.
    """

    def __init__(
        self,
        problem: Problem,
        agents: np.ndarray,
        config: Config,
        iteration: int = 0,
        own: slice | None = None,
    ):
        self.total, self.own = len(agents), own or slice(0, len(agents))
        self.num_agents = self.own.stop - self.own.start
        self.config, self.horizon = config, problem.horizon
        self.iteration, self.plays = iteration, 0
        self.dynamics = self.shared(self.stream("environment"), config.num_rollouts)
        rows = problem.rows(agents[self.own].repeat(config.num_rollouts))
        self.env = problem.family.make_vec(rows, self.dynamics)
        self.num_steps = np.zeros(self.num_agents, np.int64)  # played with each agent so far

    def stream(self, purpose: str) -> np.random.Generator:
        """The stream of the next play: how much one draws depends on the longest of the rank's episodes."""
        return stream(self.config.seed, purpose, self.iteration, self.plays)

    def shared(self, generator: np.random.Generator, rows: int) -> SharedStream:
        """A stream of which this rank holds its agents' part, `rows` rows for each."""
        share = slice(self.own.start * rows, self.own.stop * rows)
        return SharedStream(generator, self.total * rows, share)

    def play(self, policies: Policies) -> Trajectories:
        """Episodes `[T, P, B]` of a policy for each agent, or `[T, P * B, 1]` of one for each environment."""
        self.dynamics.generator = self.stream("environment")
        acting = self.shared(self.stream("acting"), len(policies) // self.num_agents)
        try:
            played = collect(policies, self.env, self.horizon, acting)
        except BaseException:
            self.close()
            raise
        self.plays += 1
        self.num_steps += played.alive.sum((0, 2)).reshape(self.num_agents, -1).sum(1)
        return played

    def play_randomly(self) -> np.ndarray:
        """Mean return and last reward `[2, P]` of uniform actions, by the streams of the next play."""
        self.dynamics.generator = self.stream("environment")
        acting = self.shared(self.stream("acting"), self.config.num_rollouts)
        record = Recorder()
        actor = RandomActions(self.env.single_action_space, acting)
        played = play(self.env, actor, self.horizon, record)
        last = np.stack(record.reward)[played.lengths - 1, np.arange(len(played.lengths))]
        return np.stack([played.returns, last]).reshape(2, self.num_agents, -1).mean(2)

    def close(self) -> None:
        """Close the environments."""
        self.env.close()


@torch.no_grad()
def collect(policies: Policies, env: VectorEnv, num_steps: int, rng: Any) -> Trajectories:
    """One episode in each of `env`'s P * B environments, B in a row for each policy; cut after `num_steps`.

    `rng` draws as `rng.standard_exponential(shape, dtype)` or `rng.standard_normal` with first axis P.
    """
    P, B = len(policies), env.num_envs // len(policies)
    space = env.single_observation_space
    observed = inputs(env.reset()[0], space)
    D, A = observed.shape[-1], policies.num_outputs
    noise = noise_of(policies, (P, num_steps, B, A), rng)
    observation = np.zeros((num_steps, P * B, D), np.float32)
    final = np.zeros((P * B, D), np.float32)
    width, kind = ((A,), np.float32) if policies.gaussian else ((), np.int64)
    action = np.zeros((num_steps, P * B, *width), kind)
    reward = np.zeros((num_steps, P * B), np.float32)
    alive = np.zeros((num_steps, P * B), bool)
    running = np.ones(P * B, bool)
    for t in range(num_steps):
        outputs = policies(torch.from_numpy(observed).view(P, B, D)).numpy()
        observation[t], alive[t] = observed, running
        drawn = outputs + noise[t]
        action[t] = drawn.reshape(P * B, A) if policies.gaussian else drawn.argmax(-1).ravel()
        given = to_space(action[t], env.single_action_space)
        observed, gained, terminated, truncated, infos = env.step(given)
        reward[t] = np.where(running, gained, 0)
        ended = running & (terminated | truncated)
        if ended.any():
            final[ended] = inputs(final_observations(observed, infos, ended)[ended], space)
            running = running & ~ended
        observed = inputs(observed, space)
        if not running.any():
            break
    final[running] = observed[running]
    T = t + 1
    return Trajectories(
        observation[:T].reshape(T, P, B, D),
        action[:T].reshape(T, P, B, *width),
        reward[:T].reshape(T, P, B),
        alive[:T].reshape(T, P, B),
        final.reshape(P, B, D),
    )


def noise_of(policies: Policies, shape: tuple[int, int, int, int], rng: Any) -> np.ndarray:
    """What is added to outputs, `[T, P, B, A]` for a `shape` (P, T, B, A).

    That is normal noise times the policy's deviations, or Gumbel noise, with which the largest of logits is a
    draw from their softmax.
    """
    if policies.gaussian:
        normal = torch.from_numpy(rng.standard_normal(shape, np.float32))
        scaled = normal * policies.log_std.exp()[..., 0][:, None, None]
        return scaled.transpose(0, 1).contiguous().numpy()
    exponential = torch.from_numpy(rng.standard_exponential(shape, np.float32))
    return exponential.transpose(0, 1).contiguous().log_().neg_().numpy()
