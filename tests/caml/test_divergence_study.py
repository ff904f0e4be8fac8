"""The divergence study, with the least that shows what it is for."""

import numpy as np

from caml.config import Config
from caml.divergence_study import divergence_study
from envs import make_family
from envs.problem import Problem


def test_divergences_find_the_groups_once_policies_have_learnt():
    family = make_family("particle")
    agents = family.population(np.random.default_rng(0))
    start, learnt = divergence_study(Config(), Problem("particle", family, agents), (0, 10))
    assert (start.update, learnt.update) == (0, 10)
    assert abs(start.scores["adjusted_rand_index"]) < 0.2
    assert learnt.scores["adjusted_rand_index"] > 0.9
    assert start.last_rewards.mean() < -1.0 and learnt.last_rewards.mean() > -0.4
    assert learnt.divergences.shape == (24, 24) and learnt.returns.shape == learnt.labels.shape == (24,)
    within = agents["group"][:, None] == agents["group"]
    assert learnt.divergences[within].mean() < learnt.divergences[~within].mean() / 4
