"""Memories: what a policy remembers of a meta-episode, behind one small interface.

Every memory is an `nn.Module` with `output_size` and four methods:

- `initial_state(batch) -> state`: the empty memory of `batch` meta-episodes, a tuple of tensors.
- `repeat(state, times) -> state`: a copy for `times * N` meta-episodes, one behind the other.
- `step(x [N, D], state) -> (y [N, H], state)`: one step of N meta-episodes, used while acting.
- `unroll(x [T, N, D]) -> y [T, N, H]`: whole meta-episodes from the empty memory, used while learning.

Stepping T times and unrolling give the same numbers up to rounding.
"""

import torch
from torch import nn

from common.memory_attention import SNAIL, State, Transformer


class LSTM(nn.Module):
    """Long short-term memory.

    `span` is the number of steps worth remembering. The gates start with time constants spread over 1..span
    ("chrono" initialisation: Tallec & Ollivier 2018, arXiv 1804.11188, eq. 16): forget bias log u, input bias
    -log u, u uniform in [1, span - 1]. With the usual forget bias of 1 a fresh cell loses 99 % within 15
    steps, and credit cannot reach further back. `span=0` gives that usual initialisation.
    """

    def __init__(self, input_size: int, num_features: int, span: int):
        super().__init__()
        self.output_size = num_features
        self.core = nn.LSTM(input_size, num_features)
        with torch.no_grad():
            self.core.get_parameter("bias_ih_l0").zero_()
            self.core.get_parameter("bias_hh_l0").zero_()
            # PyTorch's order: i, f, g, o.
            input_gate, forget_gate, *_ = self.core.get_parameter("bias_ih_l0").split(num_features)
            if span:
                forget_gate.copy_(torch.empty(num_features).uniform_(1, max(span - 1, 2)).log())
                input_gate.copy_(-forget_gate)
            else:
                forget_gate.fill_(1.0)

    def initial_state(self, batch: int) -> State:
        """The empty memory of `batch` meta-episodes."""
        zeros = self.core.get_parameter("weight_hh_l0").new_zeros(1, batch, self.output_size)
        return zeros, zeros

    def repeat(self, state: State, times: int) -> State:
        """A copy for `times * N` meta-episodes."""
        return tuple(part.repeat(1, times, 1) for part in state)

    def step(self, x: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """One step `[N, D]` -> `[N, H]`."""
        y, state = self.core(x[None], state)
        return y[0], state

    def unroll(self, x: torch.Tensor) -> torch.Tensor:
        """Whole meta-episodes `[T, N, D]` -> `[T, N, H]`."""
        return self.core(x)[0]


class GRU(nn.Module):
    """Gated recurrent unit (the paper's memory); `span` as in `LSTM`, on the update gate."""

    def __init__(self, input_size: int, num_features: int, span: int):
        super().__init__()
        self.output_size = num_features
        self.core = nn.GRU(input_size, num_features)
        with torch.no_grad():
            self.core.get_parameter("bias_ih_l0").zero_()
            self.core.get_parameter("bias_hh_l0").zero_()
            # PyTorch's order: r, z, n; z keeps.
            keep = self.core.get_parameter("bias_ih_l0").split(num_features)[1]
            keep.copy_(torch.empty(num_features).uniform_(1, max(span - 1, 2)).log() if span else 1.0)

    def initial_state(self, batch: int) -> State:
        """The empty memory of `batch` meta-episodes."""
        return (self.core.get_parameter("weight_hh_l0").new_zeros(1, batch, self.output_size),)

    def repeat(self, state: State, times: int) -> State:
        """A copy for `times * N` meta-episodes."""
        return tuple(part.repeat(1, times, 1) for part in state)

    def step(self, x: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """One step `[N, D]` -> `[N, H]`."""
        y, h = self.core(x[None], state[0])
        return y[0], (h,)

    def unroll(self, x: torch.Tensor) -> torch.Tensor:
        """Whole meta-episodes `[T, N, D]` -> `[T, N, H]`."""
        return self.core(x)[0]


class NoMemory(nn.Module):
    """Remembers nothing: a layer of tanh units on the step's own input."""

    def __init__(self, input_size: int, num_features: int):
        super().__init__()
        self.output_size = num_features
        self.core = nn.Sequential(nn.Linear(input_size, num_features), nn.Tanh())

    def initial_state(self, batch: int) -> State:
        """Nothing."""
        return ()

    def repeat(self, state: State, times: int) -> State:
        """Nothing."""
        return state

    def step(self, x: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """One step `[N, D]` -> `[N, H]`."""
        return self.core(x), state

    def unroll(self, x: torch.Tensor) -> torch.Tensor:
        """Whole meta-episodes `[T, N, D]` -> `[T, N, H]`."""
        return self.core(x)


def make_memory(
    architecture: str, input_size: int, num_features: int, meta_episode_len: int, span: int
) -> LSTM | GRU | SNAIL | Transformer | NoMemory:
    """The memory named by `--architecture`; `span` is used by the gated ones only."""
    if architecture == "none":
        return NoMemory(input_size, num_features)
    if architecture == "lstm":
        return LSTM(input_size, num_features, span)
    if architecture == "gru":
        return GRU(input_size, num_features, span)
    attention = {"snail": SNAIL, "transformer": Transformer}[architecture]
    return attention(input_size, num_features, meta_episode_len)
