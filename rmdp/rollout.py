"""Acting in training: k policies in m environments each, side by side; every rank has its share of the m."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mpi_utils.comm import Piece
from rmdp.policy import Policies


@dataclass
class Steps:
    """What happened in an iteration of T steps, as tensors `[k, T, m, ...]` of all ranks' environments."""

    observation: torch.Tensor  # [k, T, m, D]
    final_observation: torch.Tensor  # [k, T, m, D] where the step itself led to
    action: torch.Tensor  # [k, T, m, ...]
    log_prob: torch.Tensor  # [k, T, m]
    outcome: torch.Tensor  # [k, T, m, O] what rewards are made from
    terminated: torch.Tensor  # [k, T, m] bool
    truncated: torch.Tensor  # [k, T, m] bool
    following: torch.Tensor  # [k, m, D] observations after the last step

    @property
    def done(self) -> torch.Tensor:
        """Where an episode ended, `[k, T, m]`."""
        return self.terminated | self.truncated


def environment_numbers(num_policies: int, own: slice) -> np.ndarray:
    """Global numbers `[own * k]` of a rank's environments: number e * k + j is policy j's environment e."""
    return np.arange(own.start * num_policies, own.stop * num_policies)


class Environments:
    """This rank's environments `own`, a slice of 0..m-1, of each of k policies; all step together.

    `env` has one for each of `environment_numbers`, and steps as `envs.shared_reward_env`; None if there are
    none. `outcome_size` numbers are kept of each step.
    """

    def __init__(
        self,
        env: Any,
        num_policies: int,
        num_envs: int,
        own: slice,
        spaces: tuple[Any, Any],
        outcome_size: int,
    ):
        self.env, self.k, self.m, self.own = env, num_policies, num_envs, own
        self.num_own = own.stop - own.start
        self.observation: Any = None if env is None else env.reset()
        observation_space, action_space = spaces
        self.observation_size, self.outcome_size = observation_space.shape[0], outcome_size
        self.action_size = 1 if hasattr(action_space, "n") else action_space.shape[0]

    @torch.no_grad()
    def play(self, policies: Policies, num_steps: int, rng: Any, comm: Any) -> Steps:
        """Act for `num_steps`, noise from the shared stream `rng`; a collective, all ranks get all steps."""
        k, m, D, A = self.k, self.m, self.observation_size, self.action_size
        widths = (D, D, A, 1, self.outcome_size, 1, 1)
        # One buffer for everything, so that one reduction gathers it: rows of other ranks are zero.
        table = np.zeros((k, num_steps + 1, m, sum(widths)), np.float32)
        noise = rng.random((self.num_own, num_steps, k, policies.num_outputs), np.float32)
        noise = torch.from_numpy(noise).permute(1, 2, 0, 3)  # [T, k, own, .]
        mine = table[:, :, self.own]
        parts = np.split(mine, np.cumsum(widths)[:-1], axis=-1)
        observation, final, action, log_prob, outcome, terminated, truncated = parts
        for t in range(num_steps if self.num_own else 0):
            seen = by_policy(self.observation, k)
            distribution = policies(policies.normaliser(torch.from_numpy(seen)))
            chosen = distribution.sample(noise[t])
            log_prob[:, t, :, 0] = distribution.log_prob(chosen).numpy()
            observation[:, t] = seen
            action[:, t] = chosen.numpy().reshape(k, self.num_own, A)
            flat = chosen.transpose(0, 1).reshape(self.num_own * k, *chosen.shape[2:]).numpy()
            step = self.env.step(flat)
            self.observation = step.observation
            final[:, t] = by_policy(step.final_observation, k)
            outcome[:, t] = by_policy(step.outcome, k)
            terminated[:, t, :, 0] = by_policy(step.terminated, k)
            truncated[:, t, :, 0] = by_policy(step.truncated, k)
        if self.num_own:
            observation[:, num_steps] = by_policy(self.observation, k)
        comm.allreduce_(table)
        observation, final, action, log_prob, outcome, terminated, truncated = torch.from_numpy(table).split(
            widths, dim=-1
        )
        done = slice(0, num_steps)
        return Steps(
            observation[:, done],
            final[:, done],
            action[:, done, :, 0].long() if policies.discrete else action[:, done],
            log_prob[:, done, :, 0],
            outcome[:, done],
            terminated[:, done, :, 0] > 0,
            truncated[:, done, :, 0] > 0,
            observation[:, num_steps],
        )

    def get_state(self, comm: Any) -> dict[str, Any]:
        """The states of all ranks' environments, `[m, k, ...]`; a collective."""
        mine = {} if self.env is None else self.env.get_state()
        if comm.in_pieces:
            own = {name: a.reshape(self.num_own, self.k, *a.shape[1:]) for name, a in mine.items()}
            return {name: Piece(a, self.own, self.m, 0) for name, a in own.items()}
        layout = comm.bcast_object({name: (a.shape[1:], a.dtype.str) for name, a in mine.items()})
        state = {}
        for name, (shape, dtype) in layout.items():  # rank 0 always has an environment
            everyone = np.zeros((self.m, self.k, *shape), dtype)
            if mine:
                everyone[self.own] = mine[name].reshape(self.num_own, self.k, *shape)
            comm.allreduce_(everyone.reshape(-1).view(np.uint8))  # bytes: zeros plus one's own, of any type
            state[name] = everyone
        return state

    def set_state(self, state: dict[str, np.ndarray]) -> None:
        """Continue from `get_state`, at any number of ranks."""
        if self.env is not None:
            mine = {name: a[self.own].reshape(-1, *a.shape[2:]) for name, a in state.items()}
            self.observation = self.env.set_state(mine)


def by_policy(rows: np.ndarray, num_policies: int) -> np.ndarray:
    """Rows of environments `[own * k, ...]` as `[k, own, ...]`."""
    return rows.reshape(-1, num_policies, *rows.shape[1:]).swapaxes(0, 1)
