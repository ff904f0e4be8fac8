"""VariBAD: beliefs, the ELBO's parts, the buffer, and that a belief finds what is hidden."""

import csv
import dataclasses
import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete
from torch.distributions import Independent, Normal, kl_divergence

from common.errors import UserError
from common.runs import checkpoint
from common.runs.seeding import stream
from envs.problem import Problem
from envs.task_env import TaskVectorEnv
from mpi_utils.comm import Comm
from rl2.config import Config
from rl2.learner import Learner
from rl2.vae import (
    Decoders,
    Draws,
    Encoder,
    Steps,
    encoder_inputs,
    gaussian_kl,
    kl_to_previous,
    negative_elbo,
)
from tests.helpers import runs
from tests.helpers.launch import command
from tests.rl2.test_continuous import poles
from tests.rl2.test_learner import TINY, OneOf, made

SETTINGS = {"architecture": "varibad", "encoder_features": 6, "vae_updates": 3, "vae_buffer": 2}
BELIEFS = dataclasses.replace(TINY, **SETTINGS, latent_size=2, elbo_terms=4, elbo_steps=0)
POINTS = dataclasses.replace(BELIEFS, environment="envs.examples:point_family")
GRID = dataclasses.replace(BELIEFS, environment="grid_navi", reward_decoder="heads", meta_episode_len=20)
POLES = dataclasses.replace(BELIEFS, environment="cart_pole", episodes=2, meta_episode_len=120)


def test_divergences_by_hand():
    """N(1, 4) from N(0, 1), (4 + 1 - 1 - log 4) / 2; then N(0, 1) from it, (1/4 + 1/4 - 1 + log 4) / 2."""
    mean, log_variance = torch.tensor([[1.0], [0.0]]), torch.tensor([[math.log(4)], [0.0]])
    found = kl_to_previous(mean, log_variance)
    np.testing.assert_allclose(found, [(4 - math.log(4)) / 2, (math.log(4) - 0.5) / 2], rtol=1e-6)
    wide = torch.randn(4, 5, 7, 3, generator=torch.Generator().manual_seed(0))
    one, other = (
        Independent(Normal(m, (0.5 * v).exp()), 1) for m, v in ((wide[0], wide[1]), (wide[2], wide[3]))
    )
    torch.testing.assert_close(gaussian_kl(*wide), kl_divergence(one, other))


def constant(layer, value):
    """Make a layer give `value`, whatever it is given."""
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.as_tensor(value))


def three_steps(reward, length):
    """A meta-episode of three steps in each of two tasks, of the point."""
    reward, length = torch.tensor(reward), torch.tensor(length)
    nothing = torch.zeros(3, 2, 1)
    return Steps(nothing, nothing + 0.5, nothing, reward, torch.zeros(3, 2), length)


def test_the_loss_by_hand():
    """A belief N(1, 4) throughout, rewards predicted as 2: KL is that to N(0, 1) once, and 0 after it."""
    config = dataclasses.replace(POINTS, latent_size=1, decode="both")
    features = made(POINTS).policy.features
    encoder, decoders = Encoder(config, features.size), Decoders(config, features)
    constant(encoder.mean, [1.0])
    constant(encoder.log_variance, [math.log(4)])
    constant(decoders.reward.rest[-1], [2.0])
    constant(decoders.state.rest[-1], [0.1])
    steps = three_steps([[2.0, 0.0], [3.0, 0.0], [5.0, 0.0]], [3, 2])
    draws = Draws(None, None, torch.zeros(2, 3, 1))
    loss, parts = negative_elbo(encoder, decoders, features, steps, draws, 0.5)
    kl = (4 - math.log(4)) / 2
    assert parts["kl"].item() == pytest.approx((kl / 3 + kl / 2) / 2)
    assert parts["reward"].item() == pytest.approx(((0 + 1 + 9) / 3 + 4) / 2)
    assert parts["state"].item() == pytest.approx((0.5 - 0.1) ** 2)
    assert loss.item() == pytest.approx(
        sum(parts[n].item() for n in ("reward", "state")) + 0.5 * parts["kl"].item()
    )
    sampled = Draws(torch.tensor([[0.0], [0.99]]), torch.tensor([[0.5], [0.5]]), torch.zeros(2, 1, 1))
    _, parts = negative_elbo(encoder, decoders, features, steps, sampled, 0.5)
    assert parts["reward"].item() == pytest.approx((1 + 4) / 2)  # step 1 of 3, step 1 of 2


def test_a_sample_is_mean_and_deviation():
    """m = 1 + 2 e, and a reward predicted as m: the error of reward 0 is m squared."""
    config = dataclasses.replace(POINTS, latent_size=1, reward_decoder="arrival")
    features = made(POINTS).policy.features
    encoder, decoders = Encoder(config, features.size), Decoders(config, features)
    constant(encoder.mean, [1.0])
    constant(encoder.log_variance, [math.log(4)])
    for module in decoders.reward.modules():
        if isinstance(module, torch.nn.Linear):
            with torch.no_grad():
                module.weight.zero_()
                module.weight[0, 0] = 1.0
                if module.bias is not None:
                    module.bias.zero_()
    decoders.reward.of_step.weight.data.zero_()
    steps = three_steps([[0.0, 0.0]] * 3, [3, 3])
    draws = Draws(torch.zeros(2, 1), None, torch.tensor([[[1.5]], [[0.0]]]))
    _, parts = negative_elbo(encoder, decoders, features, steps, draws, 0.0)
    assert parts["reward"].item() == pytest.approx((16 + 1) / 2)


def test_heads_tell_whether_rewards_are_above_0_where_they_are():
    features = made(GRID).policy.features
    decoders = Decoders(GRID, features)
    logits = torch.zeros(25)
    logits[7] = math.log(3)  # 3/4
    constant(decoders.reward.rest[-1], logits)
    cells = torch.tensor([[7, 7, 3]])
    steps = Steps(cells, cells, 0 * cells, torch.tensor([[1.0, -0.1, -0.1]]), 0 * cells, torch.tensor([3]))
    found = decoders.errors(torch.zeros(1, 2, 2), steps)["reward"].detach()
    np.testing.assert_allclose(found[0, 1], [-math.log(0.75), -math.log(0.25), math.log(2)], rtol=1e-5)
    with pytest.raises(UserError, match="--reward_decoder heads needs discrete observations"):
        made(dataclasses.replace(POINTS, reward_decoder="heads"))


def test_next_states_that_are_discrete_by_cross_entropy():
    features = made(BELIEFS).policy.features
    decoders = Decoders(dataclasses.replace(BELIEFS, decode="state"), features)
    constant(decoders.state.rest[-1], torch.tensor([0.5, 0.25, 0.25]).log())
    cells = torch.tensor([[0, 1]])
    steps = Steps(cells, 1 - cells, 0 * cells, cells.float(), 0 * cells, torch.tensor([2]))
    found = decoders.errors(torch.zeros(1, 1, 2), steps)
    np.testing.assert_allclose(found["state"][0, 0].detach(), [math.log(4), math.log(2)], rtol=1e-6)
    assert set(found) == {"state"}


@pytest.mark.parametrize(
    "config", [BELIEFS, POINTS, dataclasses.replace(POINTS, normalise_observations=True)]
)
def test_beliefs_in_training_are_those_of_acting(config):
    learner = made(config)
    if config.normalise_observations:
        learner.train_iteration(0)
    batch = learner.collect(1)
    learner.vae.buffer.add(batch)
    columns = torch.arange(learner.num_rows) % learner.num_minibatches
    held = torch.arange(learner.num_rows) * learner.num_minibatches + columns
    steps = learner.vae.buffer.take(columns + learner.num_minibatches * config.normalise_observations)
    assert torch.equal(steps.reward, batch.reward[:, held])
    features, encoder = learner.policy.features, learner.policy.encoder
    mean, log_variance = encoder.unroll(encoder_inputs(features, steps))
    acting = batch.inputs[:, held, features.num_observations :]
    torch.testing.assert_close(torch.cat([mean, log_variance], -1), acting)


def test_what_a_step_led_to_is_kept_at_the_end_of_an_episode_too():
    batch = made(dataclasses.replace(POINTS, meta_episode_len=25)).collect(0)
    inner = batch.done[:-1, :, None] == 0
    assert torch.equal(batch.reached[:-1][inner], batch.observation[1:][inner])
    assert (batch.observation[10] == 0).all() and (batch.reached[9] != 0).all()  # the point starts anew at 0


def test_ppo_leaves_the_encoder_alone_and_the_vae_the_policy():
    learner = made(POINTS)
    batch = learner.collect(0)
    encoder, acting = (
        {n: t.clone() for n, t in m.state_dict().items()}
        for m in (learner.policy.encoder, learner.policy.acting)
    )
    learner.update(0, batch, learner.estimate(batch))
    assert not runs.differing(encoder, learner.policy.encoder.state_dict())
    assert runs.differing(
        acting, moved := {n: t.clone() for n, t in learner.policy.acting.state_dict().items()}
    )
    learner.vae.train_iteration(0, batch)
    assert runs.differing(encoder, learner.policy.encoder.state_dict())
    assert not runs.differing(moved, learner.policy.acting.state_dict())


def test_beliefs_enter_normalised_by_those_of_earlier_iterations():
    learner = made(POINTS)
    learner.train_iteration(0)
    learner, other = made(POINTS), learner
    batch = learner.collect(0)
    beliefs = batch.inputs[..., 1:].flatten(0, 1).double()
    np.testing.assert_allclose(other.policy.moments.mean, beliefs.mean(0), atol=1e-6)
    np.testing.assert_allclose(other.policy.moments.variance, beliefs.var(0, correction=0), rtol=1e-4)
    x = other.policy.normalised(batch.inputs)
    assert abs(x[..., 1:].mean()) < 1e-4 and torch.equal(x[..., :1], batch.inputs[..., :1])


def test_the_buffer_holds_the_last_iterations():
    learner = made(BELIEFS)  # rows of 3, two iterations
    batches = [learner.collect(i) for i in range(3)]
    buffer, sizes = learner.vae.buffer, []
    for batch in batches:
        buffer.add(batch)
        sizes.append(buffer.size)
    assert sizes == [3, 6, 6]
    for block, batch in ((0, batches[2]), (1, batches[1])):
        for column in range(3):
            steps = buffer.take(torch.full((4,), 3 * block + column))
            chosen = torch.arange(4) * 3 + column
            for name in ("observation", "action", "reward", "done", "reached"):
                assert torch.equal(getattr(steps, name), getattr(batch, name)[:, chosen]), name
            assert steps.length.tolist() == [10] * 4


def test_episodes_that_end_early_are_as_long_as_they_were():
    learner = poles(POLES)
    batch = learner.collect(0)
    learner.vae.buffer.add(batch)
    steps = learner.vae.buffer.take(torch.zeros(learner.num_rows, dtype=torch.long))
    held = torch.arange(learner.num_rows) * learner.num_minibatches
    assert torch.equal(steps.length, batch.live.sum(0)[held]) and len(steps.reward) == steps.length.max()
    metrics = learner.train_iteration(0)
    assert all(math.isfinite(value) for value in metrics.values())


def test_ranks_hold_their_rows_of_one_buffer_and_draw_alike():
    whole = made(BELIEFS)
    for i in range(2):
        whole.vae.buffer.add(whole.collect(i))
    state = whole.vae.buffer.state_dict(Comm())
    for rank in range(3):
        part = made(BELIEFS, OneOf(rank, 3))
        for i in range(2):
            part.vae.buffer.add(part.collect(i))
        held = {name: array[part.rows] for name, array in state["arrays"].items()}
        assert not runs.differing(part.vae.buffer.held, held)
        again = made(BELIEFS, OneOf(rank, 3)).vae.buffer
        again.load_state_dict(state)
        assert again.added == 2 and not runs.differing(again.held, held)


class Arms:
    """A bandit without noise: two arms, each worth U(-1, 1), that tell it when they are drawn."""

    name, max_episode_len = "arms", 4
    observation_space, action_space = Discrete(1), Discrete(2)

    def sample(self, rng, n):
        return {"worth": 2 * rng.random((n, 2), np.float32) - 1}

    def check(self, parameters):
        return parameters

    def make_vec(self, parameters, rng=None):
        return ArmsEnv(self, None, self.max_episode_len, parameters, rng)


class ArmsEnv(TaskVectorEnv):
    def load(self, parameters):
        self.worth = parameters["worth"]

    def start(self):
        return np.zeros(self.num_envs, np.int64)

    def advance(self, actions, rng):
        return self.start(), self.worth[np.arange(self.num_envs), actions]


def test_a_belief_finds_what_was_tried_and_no_more():
    """Rewards of arms that were drawn are told to a few hundredths of their variance, of others not."""
    config = dataclasses.replace(
        Config(environment="bandit"),
        **{"architecture": "varibad", "encoder_features": 32, "latent_size": 2, "num_features": 8},
        **{"meta_episode_len": 4, "elbo_terms": 0, "elbo_steps": 0, "kl_weight": 0.001, "vae_updates": 60},
        **{"meta_episodes_per_policy_update": 256, "meta_episodes_per_learner_batch": 64},
        **{"vae_learning_rate": 5e-3, "precision": "float32"},
    )
    learner = Learner(config, Comm(), Problem("arms", Arms()))
    found = [learner.vae.train_iteration(i, learner.collect(i)) for i in range(8)]
    assert found[-1]["vae/reward_error"] < 0.7 * found[0]["vae/reward_error"]
    batch = learner.collect(100)
    with torch.no_grad():
        last = batch.inputs[-1, :, 1 : 1 + config.latent_size]
        arms = torch.arange(2).expand(256, 2)
        worth = torch.from_numpy(Arms().sample(stream(config.seed, "tasks", 100), 256)["worth"])
        steps = Steps(0 * arms, 0 * arms, arms, worth, arms, torch.full((256,), 2))
        error = learner.vae.decoders.errors(last[:, None], steps)["reward"][:, 0]
    tried = (batch.action[:-1, :, None] == torch.arange(2)).any(0)
    assert 300 < tried.sum() < 500
    assert error[tried].mean() < 0.1 / 3 and 0.8 / 3 < error[~tried].mean() < 1.3 / 3  # 1/3: the variance


def test_defaults_of_the_suite_belong_to_the_method():
    given = {"environment": "walker_params"}
    assert Config.defaults(given | {"architecture": "varibad"}).decode == "state"
    assert Config.defaults(given).decode == "reward" and Config.defaults(given).episodes == 2
    with pytest.raises(UserError, match="--kl_weight: has an effect only with --architecture varibad"):
        runs.settings("rl2", "--kl_weight", "1")


@pytest.mark.mpi
@pytest.mark.slow
def test_ranks_agree_and_evaluation_plays_more_episodes(tmp_path):
    flags = "--architecture varibad --environment sparse_point_robot --meta_episode_len 200 --vae_updates 2 "
    flags += "--encoder_features 6 --vae_buffer 2 --checkpoint_interval 1 --eval_interval 2 --eval_tasks 5"
    tables = []
    for ranks in (1, 2):
        done = command(
            ranks, "train", *runs.flags("rl2", tmp_path, f"at_{ranks}", *flags.split(), "--max_iters", 4)
        )
        assert done.code == 0, done.output
        with (tmp_path / f"at_{ranks}" / "metrics.csv").open() as file:
            tables.append(list(csv.DictReader(file)))
    for mine, theirs in zip(*tables, strict=True):
        for name in (name for name in mine if not name.startswith("time/") and mine[name]):
            assert float(theirs[name]) == pytest.approx(float(mine[name]), rel=2e-3, abs=1e-4), name
    # Two ranks, stopped after two iterations and continued by one: what they held is put together.
    state = checkpoint.open_run(tmp_path / "at_2" / "step_00000002", "rl2")[1]
    assert state["vae"]["buffer"]["arrays"]["reward"].shape == (6, 4, 200)
    shown = command(
        1, "evaluate", tmp_path / "at_2", "--episodes", 3, "--instances", 5, "--baselines", "none"
    )
    assert shown.code == 0 and "varibad" in shown.output, shown.output
