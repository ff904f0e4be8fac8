import torch
from hypothesis import given
from hypothesis import strategies as st

from common.gae import gae


def test_hand_computed():
    rewards = torch.tensor([[1.0], [2.0], [3.0]])
    values = torch.tensor([[0.5], [1.0], [1.5]])
    # gamma 0.5, lambda 0.5: deltas 1+0.5-0.5=1, 2+0.75-1=1.75, 3-1.5=1.5
    expected = [1 + 0.25 * (1.75 + 0.25 * 1.5), 1.75 + 0.25 * 1.5, 1.5]
    assert torch.allclose(gae(rewards, values, 0.5, 0.5)[:, 0], torch.tensor(expected))


def test_lambda_one_is_the_discounted_return_minus_the_value():
    rewards, values = torch.randn(7, 3), torch.randn(7, 3)
    returns, running = torch.empty(7, 3), torch.zeros(3)
    for t in reversed(range(7)):
        running = rewards[t] + 0.9 * running
        returns[t] = running
    assert torch.allclose(gae(rewards, values, 0.9, 1.0), returns - values, atol=1e-5)


@given(cut_at=st.integers(0, 4))
def test_a_cut_separates_what_comes_before_from_what_comes_after(cut_at):
    rewards, values = torch.randn(6, 2), torch.randn(6, 2)
    cut = torch.zeros(6, 2)
    cut[cut_at] = 1
    whole = gae(rewards, values, 0.9, 0.8, cut=cut)
    head = gae(rewards[: cut_at + 1], values[: cut_at + 1], 0.9, 0.8)
    tail = gae(rewards[cut_at + 1 :], values[cut_at + 1 :], 0.9, 0.8)
    assert torch.allclose(whole, torch.cat([head, tail]), atol=1e-6)


def test_value_after_the_last_step_is_used():
    advantage = gae(torch.tensor([[1.0]]), torch.tensor([[0.25]]), 0.5, 0.9, next_value=torch.tensor([4.0]))
    assert advantage.item() == 1.0 + 0.5 * 4.0 - 0.25
