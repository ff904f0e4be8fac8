import math

import numpy as np
import torch

from common.distributions import Categorical, DiagonalGaussian


def test_categorical_sampling_follows_its_probabilities():
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0])
    n = 40000
    noise = torch.from_numpy(np.random.default_rng(0).random((n, 4), dtype=np.float32))
    drawn = torch.bincount(Categorical(logits.expand(n, 4)).sample(noise), minlength=4) / n
    p = logits.softmax(0)
    assert ((drawn - p).abs() < 4 * (p * (1 - p) / n).sqrt()).all()


def test_categorical_matches_torch():
    logits = torch.randn(7, 3)
    ours, theirs = Categorical(logits), torch.distributions.Categorical(logits=logits)
    action = torch.randint(3, (7,))
    assert torch.allclose(ours.log_prob(action), theirs.log_prob(action))
    assert torch.allclose(ours.entropy(), theirs.entropy())
    assert (ours.mode() == logits.argmax(-1)).all()


def test_noise_at_its_ends_gives_valid_actions():
    for value in (0.0, float(np.nextafter(np.float32(1), np.float32(0)))):
        noise = torch.full((2, 3), value)
        assert (Categorical(torch.zeros(2, 3)).sample(noise) < 3).all()
        assert DiagonalGaussian(torch.zeros(2, 3), torch.zeros(3)).sample(noise).isfinite().all()


def test_gaussian_matches_torch_and_samples_normally():
    mean, log_std = torch.randn(9, 2), torch.tensor([0.3, -1.0])
    ours = DiagonalGaussian(mean, log_std)
    theirs = torch.distributions.Normal(mean, log_std.exp())
    action = torch.randn(9, 2)
    assert torch.allclose(ours.log_prob(action), theirs.log_prob(action).sum(-1), atol=1e-5)
    assert torch.allclose(ours.entropy(), theirs.entropy().sum(-1), atol=1e-5)
    n = 40000
    noise = torch.from_numpy(np.random.default_rng(1).random((n, 2), dtype=np.float32))
    z = DiagonalGaussian(torch.zeros(n, 2), torch.zeros(2)).sample(noise)
    assert (z.mean(0).abs() < 4 / math.sqrt(n)).all() and ((z.std(0) - 1).abs() < 0.02).all()
