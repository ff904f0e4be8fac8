"""Factors of agents that were in no data, from a few of their steps or from their covariates."""

import numpy as np
import torch

from persim.factor_posterior import Steps, refit
from persim.new_agents import from_covariates, from_steps
from tests.persim.test_simulator import drawn


def steps_of(simulator, factor, T, seed=0):
    """T steps without noise of K agents with factors [r] that all members share, by member 0's encoders."""
    g = torch.Generator().manual_seed(seed)
    K = len(factor)
    state = torch.randn(K, T, simulator.state_size, generator=g)
    action = torch.randint(simulator.num_actions, (K, T), generator=g)
    model = simulator.at(factor=factor[None])
    following = torch.stack(
        [model.step(state[None, :, t, None], action[:, t, None])[0, :, 0] for t in range(T)], 1
    )
    return state.numpy(), action.numpy(), following.numpy()


def test_a_factor_is_recovered_from_few_steps_without_noise():
    simulator = drawn(num_models=1, num_agents=40)
    simulator.agent.data.normal_(generator=torch.Generator().manual_seed(3))
    simulator.noise[:] = 1e-4
    factor = torch.tensor([[0.5, -1.0, 0.3], [1.5, 0.2, -0.7]])
    found = from_steps(simulator, *steps_of(simulator, factor, 6))
    np.testing.assert_allclose(found[0], factor, atol=2e-2)
    counts = np.arange(9) < np.array([[6], [9]])
    state, action, following = steps_of(simulator, factor, 9)
    whole = from_steps(simulator, state[:1, :6], action[:1, :6], following[:1, :6])
    following[0, 6:] = 99.0  # after the end, which must not count
    cut = from_steps(simulator, state, action, following, counts)
    np.testing.assert_allclose(cut[:, 0], whole[:, 0], atol=1e-5)


def test_without_evidence_it_is_the_mean_agent():
    simulator = drawn(num_agents=40)
    none = np.zeros((1, 0, 2), np.float32), np.zeros((1, 0), np.int64), np.zeros((1, 0, 2), np.float32)
    mean = simulator.factors().mean(1).detach()
    np.testing.assert_allclose(from_steps(simulator, *none)[:, 0], mean, atol=1e-5)
    simulator.noise[:] = 1e6  # steps that say nothing
    factor = torch.tensor([[5.0, -1.0, 0.3]])
    one = drawn(num_models=1)
    np.testing.assert_allclose(from_steps(simulator, *steps_of(one, factor, 5))[:, 0], mean, atol=1e-5)


def test_factors_follow_from_covariates():
    """Of all agents but new ones, with factors that are smooth in two covariates, one of them by 1 / x."""
    simulator, rng = drawn(num_agents=300), np.random.default_rng(0)

    def factors(covariates):
        force, length = torch.from_numpy(covariates["force"]), torch.from_numpy(covariates["length"])
        return torch.stack([force, 1 / length, force / length], dim=1).float()

    def sample(n):
        return {"force": rng.uniform(2, 18, n), "length": rng.uniform(0.15, 0.85, n)}

    known, new = sample(300), sample(20)
    simulator.agent.data[:] = factors(known) - simulator.agent_bias.data
    found, expected = from_covariates(simulator, known, new), factors(new)
    assert found.shape == (2, 20, 3)
    spread = factors(known).std(0)
    assert ((found - expected).abs() / spread).max() < 0.02
    few = {name: values[:4] for name, values in known.items()}
    simulator = drawn(num_agents=4)
    assert from_covariates(simulator, few, new).isfinite().all()


def test_refitting_follows_the_other_agents_where_own_steps_leave_a_factor_open():
    """Factors lie on a line; agent 0 took one action only, which tells but one direction of its factor."""
    simulator, g = drawn(num_models=1, num_agents=40), torch.Generator().manual_seed(5)
    where = torch.randn(40, generator=g)
    where[0] = 1.5
    factor = torch.tensor([1.0, 0.5, -1.0]) + where[:, None] * torch.tensor([0.7, -1.0, 0.4])
    state, action, following = steps_of(simulator, factor, 30)
    with torch.no_grad():
        simulator.action[:, 1] = torch.tensor([1.0, 0.0, 0.0]) - simulator.action_bias[:, 0]
    state[0], action[0] = state[1], 1
    one = simulator.at(factor=factor[None, :1])
    following[0] = one.step(torch.from_numpy(state[0])[None, None], torch.ones(1, 30, dtype=torch.long))[0, 0]
    state[1:], action[1:], following[1:] = steps_of(simulator, factor[1:], 30)
    simulator.noise[:] = 1e-5
    with torch.no_grad():
        simulator.agent.copy_(factor - simulator.agent_bias)
        simulator.agent[0, 0, 1:] += torch.tensor([3.0, -3.0])  # what its own steps cannot tell
    rows = np.repeat(np.arange(40), 30)
    steps = Steps(rows, 40, *(array.reshape(1200, *array.shape[2:]) for array in (state, action, following)))
    found = refit(simulator, steps)
    assert (simulator.factors()[0, 0] - factor[0]).abs().max() > 2
    np.testing.assert_allclose(found[0], factor, atol=0.02)
    steps.next_state[5::30] += 50.0  # each agent once has an impact
    np.testing.assert_allclose(refit(simulator, steps)[0], factor, atol=0.1)
