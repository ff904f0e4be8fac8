import pytest
import torch
from torch.nn import functional as F

from common.memory_attention import SNAIL, DenseBlock, Transformer, attend, attend_causally

BOTH = pytest.mark.parametrize("architecture", [SNAIL, Transformer])


def build(architecture, max_len, num_features=16):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return architecture(5, num_features, max_len)


def inputs(T, N, seed=1):
    return torch.randn(T, N, 5, generator=torch.Generator().manual_seed(seed))


def step_through(memory, x):
    state, outputs = memory.initial_state(x.shape[1]), []
    for row in x:
        y, state = memory.step(row, state)
        outputs.append(y)
    return torch.stack(outputs)


@BOTH
@pytest.mark.parametrize("max_len, T", [(1, 1), (2, 2), (3, 3), (16, 16), (17, 17), (50, 33)])
@pytest.mark.parametrize("num_features", [6, 64])
def test_stepping_equals_unrolling(architecture, max_len, T, num_features):
    memory, x = build(architecture, max_len, num_features), inputs(T, 3)
    y = memory.unroll(x)
    assert y.shape == (T, 3, memory.output_size)
    torch.testing.assert_close(step_through(memory, x), y.detach(), atol=1e-5, rtol=1e-5)


@BOTH
def test_the_future_leaves_the_past_alone_and_the_past_reaches_the_end(architecture):
    T = 21
    memory, x = build(architecture, T), inputs(T, 2)
    y = memory.unroll(x)
    for t in range(T):
        changed = x.clone()
        changed[t] += 1
        difference = (memory.unroll(changed) - y).abs().amax(dim=(1, 2))
        assert difference[:t].max() == 0 if t else True
        assert difference[t] > 1e-4 and difference[-1] > 1e-6


@BOTH
def test_meta_episodes_do_not_mix(architecture):
    memory, x = build(architecture, 9), inputs(9, 4)
    y = step_through(memory, x)
    torch.testing.assert_close(step_through(memory, x[:, [2, 0]]), y[:, [2, 0]], atol=1e-6, rtol=1e-5)


@BOTH
def test_more_steps_than_the_memory_holds_are_refused(architecture):
    memory, x = build(architecture, 4), inputs(5, 2)
    message = f"^5 steps: this {architecture.__name__} was built for 4$"
    with pytest.raises(ValueError, match=message):
        memory.unroll(x)
    with pytest.raises(ValueError, match=message):
        step_through(memory, x)


@BOTH
def test_a_step_computes_its_own_row_only(architecture):
    """No layer sees the steps before: only the caches do, and they keep their memory."""
    memory, x = build(architecture, 8), inputs(8, 3)
    rows = []
    for module in memory.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda _, args, __: rows.append(tuple(args[0].shape[:-1])))
    state = memory.initial_state(3)
    places = [cache.data_ptr() for cache in state[1:]]
    for row in x:
        _, state = memory.step(row, state)
    assert set(rows) == {(3,)}
    assert [cache.data_ptr() for cache in state[1:]] == places
    assert all(cache.shape[:2] == (3, 8) for cache in state[1:])


@BOTH
def test_a_new_meta_episode_begins_empty(architecture):
    memory, x = build(architecture, 6), inputs(6, 2)
    torch.testing.assert_close(step_through(memory, x), step_through(memory, x), atol=0, rtol=0)


@BOTH
def test_every_parameter_learns(architecture):
    memory = build(architecture, 8)
    memory.unroll(inputs(8, 4)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in memory.parameters())


@BOTH
def test_bfloat16_stepping_follows_unrolling(architecture):
    memory, x = build(architecture, 20), inputs(20, 4)
    with torch.autocast("cpu", torch.bfloat16):
        stepped, unrolled = step_through(memory, x), memory.unroll(x)
    exact = memory.unroll(x)
    for y in (stepped, unrolled):
        assert (y.float() - exact).abs().max() < 0.05 * exact.abs().max()


@BOTH
def test_a_sign_shown_first_is_recalled_at_the_end(architecture):
    memory, generator = build(architecture, 12, 32), torch.Generator().manual_seed(3)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        readout = torch.nn.Linear(memory.output_size, 1)
    optimiser = torch.optim.Adam([*memory.parameters(), *readout.parameters()], lr=3e-3)
    for _ in range(120):
        x = torch.randn(12, 64, 5, generator=generator)
        logits = readout(memory.unroll(x)[-1])[:, 0]
        loss = F.binary_cross_entropy_with_logits(logits, (x[0, :, 2] > 0).float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x = torch.randn(12, 500, 5, generator=generator)
    right = (readout(step_through(memory, x)[-1])[:, 0] > 0) == (x[0, :, 2] > 0)
    assert right.float().mean() > 0.9


def test_dense_block_by_hand():
    block = DenseBlock(1, 1, dilation=2)
    with torch.no_grad():
        block.now.weight.copy_(torch.tensor([[1.0], [0.0]]))  # content: the input now ...
        block.past.weight.copy_(torch.tensor([[10.0], [0.0]]))  # ... and ten times that of two steps ago
        block.now.bias.copy_(torch.tensor([0.0, 0.0]))  # gate: half open
    x = torch.tensor([0.1, 0.2, 0.3, 0.4])[:, None, None]
    expected = 0.5 * torch.tensor([0.1, 0.2, 0.3 + 1.0, 0.4 + 2.0]).tanh()
    torch.testing.assert_close(block(x, x[:-2])[:, 0, 0], expected)
    torch.testing.assert_close(block(x[3], x[1])[0, 0], expected[3])


def test_attention_by_hand():
    """Equal keys give the mean of the values so far; a key that matches the query wins."""
    values = torch.tensor([1.0, 3.0, 8.0])[:, None, None, None]
    zeros = torch.zeros(3, 1, 1, 1)
    torch.testing.assert_close(attend_causally(zeros, zeros, values).flatten(), torch.tensor([1.0, 2.0, 4.0]))
    keys = torch.tensor([0.0, 50.0, 0.0])[None, :, None, None]
    read = attend(torch.ones(1, 1, 1), keys, values.transpose(0, 1))
    torch.testing.assert_close(read.flatten(), torch.tensor([3.0]))


def test_snail_spans_the_meta_episode_by_convolution_alone():
    """The receptive field of the dilations reaches max_len with as few layers as possible."""
    for max_len, num_dilations in ((2, 1), (16, 4), (17, 5), (100, 7)):
        blocks = [block for block in SNAIL(5, 16, max_len).blocks if isinstance(block, DenseBlock)]
        assert [block.dilation for block in blocks] == 2 * [2**i for i in range(num_dilations)]
        reach = 1 + sum(block.dilation for block in blocks[:num_dilations])
        assert reach >= max_len > reach // 2
