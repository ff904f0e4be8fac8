"""The benchmark of RL^2 counts its steps and tells where their time goes."""

import numpy as np
import pytest
import torch

from benchmarks.throughput import config_from
from benchmarks.throughput_rl2 import measure
from mpi_utils.comm import Comm
from rl2.config import Config
from rl2.learner import Learner
from rl2.problem import make_problem

TINY = "--num_features 8 --meta_episodes_per_policy_update 8 --meta_episodes_per_learner_batch 4"


@pytest.mark.parametrize(
    ("flags", "most"),
    [
        ("--environment grid_navi --meta_episode_len 30", 8 * 30),
        ("--environment walker_params", 8 * 400),  # walkers fall sooner
    ],
)
def test_steps_and_the_shares_of_their_time(flags, most):
    _, config = config_from(["rl2", *flags.split(), *TINY.split()], Comm())
    found = measure(config, Comm())
    shares = found["microseconds_a_step"]
    assert set(shares) == {"environment", "policy", "update"} and min(shares.values()) > 0
    seconds = sum(shares.values()) / 1e6
    assert found["steps_per_s"] == pytest.approx(1 / seconds, rel=0.02)
    steps = found["update_samples_per_s"] / config.num_epochs * shares["update"] * 1e-6
    assert steps == pytest.approx(1, rel=0.02)  # samples are epochs times steps that count
    assert found["steps_per_s"] * found["iteration_s"] < 1.5 * most + 100


def test_the_peer_computes_the_same_loss():
    jnp = pytest.importorskip("jax.numpy")
    pytest.importorskip("optax")
    from benchmarks.peers import jax_rl2 as peer

    config = Config(
        transition_encoder="plain", readout="linear", num_features=8, precision="float32",
        gamma=peer.GAMMA, gae_lambda=peer.LAMBDA, clip_range=peer.CLIP, entropy_coef=peer.ENTROPY,
        reward_scale=peer.REWARD_SCALE, normalise_advantages=False,
        meta_episodes_per_policy_update=6, meta_episodes_per_learner_batch=6,
    )  # fmt: skip
    learner = Learner(config, Comm(), make_problem(config, Comm()))
    batch = learner.collect(0)
    estimates = learner.estimate(batch)
    with torch.no_grad():
        for p in learner.policy.parameters():  # away from what was played, so that ratios are not all 1
            p += 0.05 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    expected, _ = learner.loss(batch.columns(torch.arange(6)), *estimates)

    core, out = learner.policy.actor.memory.core, learner.policy.actor.out
    weights = {
        "input": core.weight_ih_l0.T, "memory": core.weight_hh_l0.T,
        "bias": core.bias_ih_l0 + core.bias_hh_l0, "out": out.weight.T, "out_bias": out.bias,
    }  # fmt: skip
    weights = {name: jnp.asarray(value.detach().numpy()) for name, value in weights.items()}
    played = (batch.inputs, batch.action, batch.log_prob, batch.reward, batch.value)
    steps = peer.Steps(*(jnp.asarray(x.numpy()) for x in played))
    advantage = peer.advantages(steps)
    assert np.allclose(advantage, estimates[0], atol=1e-5)
    assert float(peer.loss(weights, steps, advantage, advantage + steps.value)) == pytest.approx(
        expected.item(), abs=1e-5
    )
