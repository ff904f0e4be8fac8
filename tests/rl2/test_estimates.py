"""Ends of meta-episodes, time limits inside and what stands for the rest, by hand."""

import torch

from common.gae import gae
from rl2.estimates import live_steps, meta_gae, so_far

DONE = torch.tensor([[0.0, 1, 0], [1, 1, 0], [0, 1, 0], [1, 0, 1]])  # [4, 3]
LIVE = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 0, 1], [1, 0, 1]], dtype=torch.bool)


def played():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, generator=generator), torch.randn(4, 3, generator=generator)


def test_steps_count_up_to_the_end_of_the_last_episode():
    assert torch.equal(live_steps(DONE, 2), LIVE)
    one = [[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 1]]
    assert torch.equal(live_steps(DONE, 1), torch.tensor(one, dtype=torch.bool))


def test_sums_of_rewards_so_far():
    found = so_far(torch.tensor([[1.0, 0], [2, 4], [3, 0]]), 0.5)
    assert torch.equal(found, torch.tensor([[1, 0], [2.5, 4], [4.25, 2]]))


def test_nothing_flows_back_from_behind_the_end():
    reward, value = played()
    found = meta_gae(reward, value, 0.9, 0.8, live=LIVE)
    torch.testing.assert_close(found[:, ::2], gae(reward, value, 0.9, 0.8)[:, ::2])
    torch.testing.assert_close(found[:2, 1], gae(reward[:2], value[:2], 0.9, 0.8)[:, 1])
    assert (found[2:, 1] == 0).all()
    torch.testing.assert_close(meta_gae(reward, value, 0.9, 0.8), gae(reward, value, 0.9, 0.8))


def test_the_value_of_going_on_stands_for_what_would_follow():
    reward, value, behind = *played(), torch.tensor([10.0, 20, 30])
    found = meta_gae(reward, value, 0.9, 0.8, live=LIVE, next_value=behind)
    whole = gae(reward, value, 0.9, 0.8, behind)
    torch.testing.assert_close(found[:, ::2], whole[:, ::2])
    torch.testing.assert_close(found[:2, 1], gae(reward[:2], value[:2], 0.9, 0.8, value[2])[:, 1])
    torch.testing.assert_close(meta_gae(reward, value, 0.9, 0.8, next_value=behind), whole)


def test_nothing_follows_a_fall_that_ends_the_meta_episode():
    reward, value, behind = *played(), torch.tensor([10.0, 20, 30])
    fallen = torch.tensor([[0.0, 1, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]])  # the first ends by time
    found = meta_gae(reward, value, 0.9, 0.8, live=LIVE, next_value=behind, fallen=fallen)
    by_time = meta_gae(reward, value, 0.9, 0.8, live=LIVE, next_value=behind)
    torch.testing.assert_close(found[:, 0], by_time[:, 0])
    torch.testing.assert_close(found[:, 1:], meta_gae(reward, value, 0.9, 0.8, live=LIVE)[:, 1:])


def test_a_time_limit_inside_cuts_where_a_value_follows():
    reward, value = torch.tensor([[1.0], [2], [3]]), torch.tensor([[0.5], [1], [1.5]])
    cut = torch.tensor([[0.0], [1], [1]])
    # gamma = lambda = 0.5: deltas 1 + 0.5 - 0.5, 2 + 0.75 - 1, and at the end 3 - 1.5 or 3 + 2 - 1.5.
    for behind, last in ((None, 1.5), (torch.tensor([4.0]), 3.5)):
        found = meta_gae(reward, value, 0.5, 0.5, cut=cut, next_value=behind)[:, 0]
        torch.testing.assert_close(found, torch.tensor([1 + 0.25 * 1.75, 1.75, last]))
