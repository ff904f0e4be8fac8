import numpy as np
import pytest

from envs import FAMILIES, Problem, make_family
from envs.protocols import Dynamics, SharedRewardFamily, TaskFamily
from tests.helpers.simglucose import needs_simglucose

EACH = [pytest.param(name, marks=needs_simglucose if "diabetes" in name else ()) for name in FAMILIES]


@pytest.mark.parametrize("name", EACH)
def test_every_family_has_a_name_a_population_and_environments(name):
    family, rng = make_family(name), np.random.default_rng
    assert isinstance(family, TaskFamily) and family.name == name and family.max_episode_len >= 1
    agents = family.check(family.sample(rng(0), 4))
    env = family.make_vec(agents, rng(1))
    assert env.single_observation_space == family.observation_space
    assert env.single_action_space == family.action_space
    env.action_space.seed(0)
    env.reset()
    observation, reward, *ends, _ = env.step(env.action_space.sample())
    assert len(observation) == 4 and reward.shape == (4,) and all(end.shape == (4,) for end in ends)


def test_what_kind_a_family_is():
    kinds = {name: make_family(name) for name in FAMILIES}
    shared = {name for name, family in kinds.items() if isinstance(family, SharedRewardFamily)}
    dynamics = {name for name, family in kinds.items() if isinstance(family, Dynamics)}
    assert shared == {"half_cheetah", "hopper", "walker2d", "ant", "resource_gathering"}
    assert dynamics == {"mountain_car", "cart_pole", "half_cheetah_body"}


@pytest.mark.parametrize("name", ["half_cheetah", "resource_gathering"])
def test_own_rewards_are_the_diagonal_of_all_rewards(name):
    family = make_family(name)
    agents = family.sample(np.random.default_rng(3), 6)
    shared = family.make_shared(6, seed=0, index=np.arange(6))
    shared.reset()
    actions = np.stack([family.action_space.sample() for _ in range(6)])
    outcome = shared.step(actions).outcome
    np.testing.assert_allclose(
        family.own_rewards(outcome, agents), np.diagonal(family.rewards(outcome, agents)), rtol=1e-6
    )


def test_agents_with_shared_dynamics_as_environments_end_and_begin_anew():
    family = make_family("resource_gathering")
    env = family.make_vec({"cell": np.array([22, 0])}, np.random.default_rng(0))
    first, _ = env.reset()
    seen, reward, terminated, _, infos = env.step(np.array([1, 1]))  # bumping the wall below home
    assert terminated.all() and reward[0] == pytest.approx(0.99) and reward[1] == 0
    np.testing.assert_array_equal(seen, first)
    assert (infos["final_obs"] != first).any(), "home's flag is set at the end"


def test_draws_do_not_depend_on_who_else_is_there():
    family = make_family("half_cheetah")
    whole = family.make_vec({"target": np.ones(3)}, np.random.default_rng(5)).reset()[0]

    class LastTwo:
        def random(self, size, dtype):
            return np.random.default_rng(5).random(3, dtype)[1:]

    part = family.make_vec({"target": np.ones(2)}, LastTwo()).reset()[0]
    np.testing.assert_array_equal(part, whole[1:])


def test_a_problem_draws_agents_or_tasks():
    family = make_family("cart_pole")
    agents = family.sample(np.random.default_rng(0), 10)
    problem = Problem("cart_pole", family, agents)
    assert problem.num_agents == 10 and problem.horizon == family.max_episode_len
    drawn = problem.sample(np.random.default_rng(1), 400)
    name = next(iter(agents))
    assert set(drawn[name]) == set(agents[name])
    anew = Problem("cart_pole", family)
    assert anew.num_agents == 0 and len(next(iter(anew.sample(np.random.default_rng(1), 5).values()))) == 5
    with pytest.raises(ValueError, match="no population"):
        anew.rows([0])
    assert problem.digest == Problem("cart_pole", family, dict(agents)).digest
    assert problem.digest != Problem("cart_pole", family, agents, horizon=7).digest
