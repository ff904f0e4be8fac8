"""Which medoid is chosen: turns, and halving by hand."""

import numpy as np
import pytest
import torch

from caml.medoid_selection import halving_rounds, successive_halving
from caml.policy import Policies


@pytest.mark.parametrize(
    "many, episodes, rounds",
    [
        (6, 10, [(6, 1), (3, 1)]),
        (5, 10, [(5, 1), (3, 1), (2, 1)]),
        (6, 40, [(6, 2), (3, 4), (2, 8)]),
        (2, 10, [(2, 5)]),
        (1, 10, []),
        (12, 10, [(10, 1)]),
    ],
)
def test_rounds_of_halving(many, episodes, rounds):
    assert halving_rounds(many, episodes) == rounds
    assert sum(a * b for a, b in rounds) <= episodes


class Returns:
    def __init__(self, values):
        self.values = values

    def returns(self):
        return self.values


def test_halving_keeps_the_better_half_and_counts_all_episodes():
    medoids = Policies({"head.bias": torch.arange(5.0).reshape(5, 1, 1)})
    # Two agents; the reward with medoid a in round r.
    reward = np.array(
        [[[1, 2, 3, 4, 5], [0, 0, 3, 3, 0], [0, 0, 0, 2, 0]], [[5, 4, 3, 2, 1], [1, 1, 4, 0, 0], [9] * 5]]
    )
    asked = []

    def play(number, policies, episodes):
        left = policies.tensors["head.bias"][:, 0, 0].long().numpy().reshape(2, -1)
        asked.append(left.tolist())
        return Returns(np.stack([reward[j, number, own] for j, own in enumerate(left)])[..., None])

    best = successive_halving(medoids, 2, 10, play)
    # Agent 0: 3 and 2 lead with 7 and 6, then 3 gets 9. Agent 1: 2 has 7, 0 has 6, then both get 9.
    assert asked == [[[0, 1, 2, 3, 4]] * 2, [[4, 3, 2], [0, 1, 2]], [[3, 2], [2, 0]]]
    assert best.tolist() == [3, 2]


def test_one_medoid_is_the_best_without_an_episode():
    medoids = Policies({"head.bias": torch.zeros(1, 1, 1)})
    assert successive_halving(medoids, 3, 10, None).tolist() == [0, 0, 0]
