import pytest
import torch

from common.memory import LSTM, make_memory


@pytest.mark.parametrize("architecture", ["lstm", "gru", "snail", "transformer"])
def test_stepping_equals_unrolling_and_the_past_is_not_changed_by_the_future(architecture):
    torch.manual_seed(0)
    memory = make_memory(architecture, input_size=5, num_features=8, meta_episode_len=12, span=12)
    x = torch.randn(12, 3, 5)
    whole = memory.unroll(x)
    state = memory.initial_state(3)
    for t in range(12):
        y, state = memory.step(x[t], state)
        assert torch.allclose(y, whole[t], atol=1e-5), t
    assert whole.shape == (12, 3, memory.output_size)
    changed = x.clone()
    changed[7] += 1
    again = memory.unroll(changed)
    assert torch.equal(again[:7], whole[:7]) or torch.allclose(again[:7], whole[:7], atol=1e-6)
    assert not torch.allclose(again[7:], whole[7:], atol=1e-4)


def half_life(memory: LSTM, steps: int) -> torch.Tensor:
    """What fraction of a cell's content is left after `steps` steps of silence."""
    h, c = memory.initial_state(1)
    for _ in range(steps):
        _, (h, c_next) = memory.step(torch.zeros(1, 4), (torch.zeros_like(h), c + 1 if c.eq(0).all() else c))
        c = c_next
    return c.flatten()


def test_span_keeps_memories_alive():
    torch.manual_seed(0)
    assert half_life(LSTM(4, 64, span=100), 30).mean() > 0.3
    assert half_life(LSTM(4, 64, span=0), 30).mean() < 0.01
