"""Memories that look back at every step of the meta-episode: SNAIL and a Transformer.

Both follow the interface of `common.memory`. `step` keeps what it will look at again in tensors that
`initial_state` allocates for `max_len` steps, and writes into them: a state can be stepped once only, and
no gradient flows through `step`.
"""

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

State = tuple[torch.Tensor, ...]


class AttentiveMemory(nn.Module):
    """What both have in common: caches `[N, max_len, ...]` behind a position, and their limit."""

    max_len: int
    cache_sizes: list[tuple[int, ...]]  # of one step of one meta-episode

    def initial_state(self, batch: int, device: torch.device | str | None = None) -> State:
        """The position (on the CPU, where it is read) and empty caches, each `[batch, max_len, size]`."""
        weight = next(self.parameters())
        device = weight.device if device is None else device
        caches = [weight.new_zeros(batch, self.max_len, *size, device=device) for size in self.cache_sizes]
        return (torch.zeros((), dtype=torch.int64), *caches)

    def repeat(self, state: State, times: int) -> State:
        """A copy of the state, `times` of each meta-episode, one behind the other."""
        position, *caches = state
        return (position.clone(), *(cache.repeat(times, *[1] * (cache.ndim - 1)) for cache in caches))

    def advance(self, x: torch.Tensor, t: int, caches: list[torch.Tensor]) -> torch.Tensor:
        """Step number `t`, written into the caches: `x [N, D]` -> `y [N, H]`."""
        raise NotImplementedError

    def check_length(self, num_steps: int) -> None:
        """Raise ValueError for more steps than the memory was built for."""
        if num_steps > self.max_len:
            raise ValueError(f"{num_steps} steps: this {type(self).__name__} was built for {self.max_len}")

    @torch.no_grad()
    def step(self, x: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        """`x [N, D]` -> `(y [N, H], state)`; raises ValueError beyond `max_len` steps."""
        position, *caches = state
        t = int(position)
        self.check_length(t + 1)
        return self.advance(x, t, caches), (position + 1, *caches)


def attend(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Softmax attention of the one `query [N, h, d]` to `keys, values [N, t, h, d]` -> `[N, h, d]`."""
    # In the caches' own precision: casting all of them at each step would cost more than attending.
    with torch.autocast(query.device.type, enabled=False):
        query = query.to(keys.dtype).unsqueeze(2)
        read = F.scaled_dot_product_attention(query, keys.transpose(1, 2), values.transpose(1, 2))
    return read.squeeze(2)


def attend_causally(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Softmax attention of each step of `query [T, N, h, d]` to itself and those before -> `[T, N, h, d]`."""
    query, keys, values = (part.permute(1, 2, 0, 3) for part in (query, keys, values))
    return F.scaled_dot_product_attention(query, keys, values, is_causal=True).permute(2, 0, 1, 3)


class DenseBlock(nn.Module):
    """Gated causal convolution over two steps, `dilation` apart; its output is to join its input."""

    def __init__(self, num_inputs: int, num_filters: int, dilation: int):
        super().__init__()
        self.num_inputs, self.dilation = num_inputs, dilation
        self.now = nn.Linear(num_inputs, 2 * num_filters)
        self.past = nn.Linear(num_inputs, 2 * num_filters, bias=False)

    def forward(self, x: torch.Tensor, past: torch.Tensor | None = None) -> torch.Tensor:
        """Activations `[..., num_filters]` from inputs now and those of `dilation` steps ago.

        `past` is None where there were none; over time (`x [T, N, C]`) it lacks the first `dilation` steps.
        """
        out = self.now(x)
        if past is not None:
            past = self.past(past)  # before it is padded, since the filters are fewer than the inputs
            out = out + (F.pad(past, (0, 0, 0, 0, self.dilation, 0)) if x.ndim == 3 else past)
        content, gate = out.chunk(2, dim=-1)
        return torch.tanh(content) * torch.sigmoid(gate)


class SNAIL(AttentiveMemory):
    """Simple neural attentive learner (Mishra et al. 2018, arXiv 1707.03141, section 3).

    An embedding, two TC blocks (dense gated causal convolutions of dilation 1, 2, 4, ... until they span
    `max_len`), each followed by one causal attention block. Every block appends its output to its input. With
    `num_features` 256 the filters, keys and values have 32 units each.
    """

    def __init__(self, input_size: int, num_features: int, max_len: int):
        super().__init__()
        self.max_len = max_len
        self.num_filters = max(num_features // 8, 1)
        num_dilations = max(math.ceil(math.log2(max_len)), 1)
        self.embed = nn.Linear(input_size, num_features)
        self.blocks, channels, self.cache_sizes = nn.ModuleList(), num_features, []
        for _ in range(2):
            for i in range(num_dilations):
                self.blocks.append(DenseBlock(channels, self.num_filters, 2**i))
                channels += self.num_filters
            self.blocks.append(nn.Linear(channels, 3 * self.num_filters))  # query, key, value
            channels += self.num_filters
            self.cache_sizes += 2 * [(1, self.num_filters)]
        # Dense connections: the inputs of every convolution are the first channels of one and the same array.
        self.cache_sizes.append((channels - self.num_filters,))
        self.output_size = channels

    def advance(self, x: torch.Tensor, t: int, caches: list[torch.Tensor]) -> torch.Tensor:
        """Step number `t`, written into the caches."""
        here, attended, channels = self.embed(x), iter(caches[:-1]), caches[-1]
        for block in self.blocks:
            if isinstance(block, DenseBlock):
                back = t - block.dilation
                out = block(here, channels[:, back, : block.num_inputs] if back >= 0 else None)
            else:
                query, key, value = block(here)[:, None].chunk(3, dim=-1)
                keys, values = next(attended), next(attended)
                keys[:, t], values[:, t] = key, value
                out = attend(query, keys[:, : t + 1], values[:, : t + 1])[:, 0]
            here = torch.cat([here, out], dim=-1)
        channels[:, t] = here[:, : channels.shape[-1]]
        return here

    def unroll(self, x: torch.Tensor) -> torch.Tensor:
        """`x [T, N, D]` -> `y [T, N, H]` from the empty memory; raises ValueError if T exceeds `max_len`."""
        self.check_length(len(x))
        here = self.embed(x)
        for block in self.blocks:
            if isinstance(block, DenseBlock):
                out = block(here, here[: -block.dilation] if block.dilation < len(here) else None)
            else:
                parts = block(here)[:, :, None].chunk(3, dim=-1)
                out = attend_causally(*parts)[:, :, 0]
            here = torch.cat([here, out], dim=-1)
        return here


class DecoderLayer(nn.Module):
    """Causal self-attention and a feed-forward network, each normalised before and added after."""

    def __init__(self, num_features: int, num_heads: int, num_layers: int):
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm, self.feedforward_norm = nn.LayerNorm(num_features), nn.LayerNorm(num_features)
        self.query_key_value = nn.Linear(num_features, 3 * num_features)
        self.project = nn.Linear(num_features, num_features)
        self.expand = nn.Linear(num_features, 4 * num_features)
        self.contract = nn.Linear(4 * num_features, num_features)
        with torch.no_grad():  # so that the sum over layers begins with the scale of its first term
            self.project.weight /= math.sqrt(2 * num_layers)
            self.contract.weight /= math.sqrt(2 * num_layers)

    def forward(self, x: torch.Tensor, look: Callable[..., torch.Tensor]) -> torch.Tensor:
        """`look` maps query, key, value `[..., h, d]` to what was read `[..., h, d]`."""
        parts = self.query_key_value(self.attention_norm(x)).unflatten(-1, (3 * self.num_heads, -1))
        x = x + self.project(look(*parts.chunk(3, dim=-2)).flatten(-2))
        return x + self.contract(F.gelu(self.expand(self.feedforward_norm(x))))


class Transformer(AttentiveMemory):
    """Causal pre-norm Transformer decoder with learned positions (Vaswani et al. 2017; Radford et al. 2019).

    `num_layers` layers of four heads, or two or one where four do not divide `num_features`.
    """

    def __init__(self, input_size: int, num_features: int, max_len: int, num_layers: int = 2):
        super().__init__()
        self.max_len, self.output_size = max_len, num_features
        num_heads = math.gcd(4, num_features)
        self.embed = nn.Linear(input_size, num_features)
        self.positions = nn.Parameter(0.02 * torch.randn(max_len, num_features))
        layers = [DecoderLayer(num_features, num_heads, num_layers) for _ in range(num_layers)]
        self.layers, self.norm = nn.ModuleList(layers), nn.LayerNorm(num_features)
        self.cache_sizes = [(num_heads, num_features // num_heads) for _ in range(2 * num_layers)]

    def advance(self, x: torch.Tensor, t: int, caches: list[torch.Tensor]) -> torch.Tensor:
        """Step number `t`, written into the caches."""
        here = self.embed(x) + self.positions[t]
        for layer, keys, values in zip(self.layers, caches[::2], caches[1::2], strict=True):

            def look(
                query: torch.Tensor,
                key: torch.Tensor,
                value: torch.Tensor,
                keys: torch.Tensor = keys,
                values: torch.Tensor = values,
            ) -> torch.Tensor:
                keys[:, t], values[:, t] = key, value
                return attend(query, keys[:, : t + 1], values[:, : t + 1])

            here = layer(here, look)
        return self.norm(here)

    def unroll(self, x: torch.Tensor) -> torch.Tensor:
        """`x [T, N, D]` -> `y [T, N, H]` from the empty memory; raises ValueError if T exceeds `max_len`."""
        self.check_length(len(x))
        here = self.embed(x) + self.positions[: len(x), None]
        for layer in self.layers:
            here = layer(here, attend_causally)
        return self.norm(here)
