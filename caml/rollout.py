"""Episodes to learn from: P policies with P agents at once, B episodes each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from caml.config import Config
from caml.policy import Policies, inputs
from common.rollout import final_observations
from common.runs.seeding import SharedStream, stream
from envs.problem import Problem


@dataclass
class Trajectories:
    """B episodes of each of P policies, with one agent a policy; nothing counts where `alive` is false."""

    observation: np.ndarray  # [T, P, B, D]
    action: np.ndarray  # [T, P, B]
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

    def close(self) -> None:
        """Close the environments."""
        self.env.close()


@torch.no_grad()
def collect(policies: Policies, env: VectorEnv, num_steps: int, rng: Any) -> Trajectories:
    """One episode in each of `env`'s P * B environments, B in a row for each policy; cut after `num_steps`.

    `rng` draws as `rng.standard_exponential(shape, dtype)` with first axis P.
    """
    P, B = len(policies), env.num_envs // len(policies)
    space = env.single_observation_space
    observed = inputs(env.reset()[0], space)
    D, A = observed.shape[-1], policies.num_actions
    # The largest of logits plus Gumbel noise is a draw from their softmax.
    exponential = torch.from_numpy(rng.standard_exponential((P, num_steps, B, A), np.float32))
    gumbel = exponential.transpose(0, 1).contiguous().log_().neg_().numpy()
    observation = np.zeros((num_steps, P * B, D), np.float32)
    final = np.zeros((P * B, D), np.float32)
    action = np.zeros((num_steps, P * B), np.int64)
    reward = np.zeros((num_steps, P * B), np.float32)
    alive = np.zeros((num_steps, P * B), bool)
    running = np.ones(P * B, bool)
    for t in range(num_steps):
        logits = policies(torch.from_numpy(observed).view(P, B, D)).numpy()
        observation[t], alive[t] = observed, running
        action[t] = (logits + gumbel[t]).argmax(-1).ravel()
        observed, gained, terminated, truncated, infos = env.step(action[t])
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
        action[:T].reshape(T, P, B),
        reward[:T].reshape(T, P, B),
        alive[:T].reshape(T, P, B),
        final.reshape(P, B, D),
    )
