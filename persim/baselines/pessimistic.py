"""The pessimistic MDP of MOReL: an ensemble in which to leave what is known ends the episode badly."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from persim.planning.candidate_returns import AgentModel


def predict(model: AgentModel, state: np.ndarray, action: np.ndarray) -> torch.Tensor:
    """What follows `state` [B, d] float32 under `action` [B] or [B, a], by each of M members: [M, B, d]."""
    return model.step(torch.from_numpy(state)[None, None], torch.from_numpy(action)[None])[:, 0]


def disagreement(following: torch.Tensor) -> np.ndarray:
    """How far apart the two members are that differ most, for predictions `following` [M, B, d]: [B]."""
    points = following.transpose(0, 1).contiguous()
    exact = "donot_use_mm_for_euclid_dist"  # distances are tiny beside the states themselves
    return torch.cdist(points, points, compute_mode=exact).flatten(1).amax(1).numpy()


@dataclass(frozen=True)
class Pessimism:
    """Where episodes end that the data say nothing of, and what that costs."""

    threshold: float
    """The largest disagreement of members that counts as known, in the data's units."""
    penalty: float
    """Reward of each step in HALT."""
    gamma: float
    """Discount, in which one step is 1 - gamma of the value of always the same reward."""
    horizon: int
    """Steps after which an episode is cut, which is no end."""
    spread: float
    """Part of the episodes that start anywhere in the data rather than where its trajectories start."""


class PessimisticMDP:
    """E episodes at once of the P-MDP (Kidambi et al. 2020, arXiv 2005.05951).

    Rewards are scaled by 1 - gamma. Where members disagree too much the next state is HALT, which is never
    left and whose every step is rewarded by the penalty: so the reward is `penalty` at once, all that HALT is
    worth, and the episode has ended. An episode is played by one member, drawn at its start (the authors'
    code: as many episodes by each), from a row of `starts` [K, d] or of `states` [N, d], both float32.
    Episodes that are over begin anew within `step`.
    """

    def __init__(
        self,
        family: Any,
        model: AgentModel,
        starts: np.ndarray,
        states: np.ndarray,
        settings: Pessimism,
        num_envs: int,
        rng: np.random.Generator,
    ) -> None:
        self.family, self.model, self.settings, self.rng = family, model, settings, rng
        self.starts, self.states, self.num_envs = starts, states, num_envs

    def reset(self) -> np.ndarray:
        """Begin all episodes; their states [E, d]."""
        self.state = np.empty((self.num_envs, self.states.shape[1]), np.float32)
        self.elapsed, self.member = np.zeros(self.num_envs, int), np.zeros(self.num_envs)
        self.begin(np.ones(self.num_envs, bool))
        return self.state

    def begin(self, over: np.ndarray) -> None:
        """Start the episodes `over` [E] bool."""
        count = over.sum()
        anywhere = self.rng.random(count) < self.settings.spread
        usual, any_row = (self.rng.integers(len(rows), size=count) for rows in (self.starts, self.states))
        self.state[over] = np.where(anywhere[:, None], self.states[any_row], self.starts[usual])
        self.member[over], self.elapsed[over] = self.rng.random(count), 0

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rewards, terminated and truncated [E] of `action` [E] or [E, a], and the states [E, d] it led to.

        `self.state` is then where the episodes go on, begun anew where one is over. A state that ended in
        HALT is what the member said.
        """
        settings, following = self.settings, predict(self.model, self.state, action)
        known = disagreement(following) <= settings.threshold  # what is no number is not known
        member = (self.member * len(following)).astype(int)
        reached = following.numpy()[member, np.arange(self.num_envs)]
        reward = (1 - settings.gamma) * self.family.reward(self.state, action, reached)
        reward = np.where(known, reward, settings.penalty).astype(np.float32)
        self.elapsed += 1
        terminated = ~known | self.family.terminated(reached)
        truncated = ~terminated & (self.elapsed >= settings.horizon)
        self.state = reached.copy()
        self.begin(terminated | truncated)
        return reward, terminated, truncated, reached
