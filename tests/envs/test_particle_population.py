import itertools

import numpy as np
import pytest

from envs import EnvError
from envs.particle import DIRECTIONS, Particle, ParticleVectorEnv


@pytest.mark.parametrize("seed", range(10))
def test_identifiable_maps_have_another_pair_each(seed):
    maps = Particle().population(np.random.default_rng(seed), num_variants=1)["moves"]
    pairs = {tuple(np.flatnonzero((moves == 1).any(axis=1))) for moves in maps}
    assert pairs == set(itertools.combinations(range(4), 2))


def mains(parameters):
    """The coordinates of length 1, the others 0: [n, 4, 2]."""
    return np.where(np.abs(parameters["moves"]) == 1, parameters["moves"], 0)[:, -4:]


def test_identifiable_maps_are_random_within_the_pair():
    """Each of the 24 permutations has probability 1/4."""
    draws = 600
    maps = [mains(Particle().population(np.random.default_rng(s), num_variants=1)) for s in range(draws)]
    _, counts = np.unique(np.concatenate(maps).reshape(-1, 8), axis=0, return_counts=True)
    assert len(counts) == 24 and (abs(counts / draws - 0.25) < 4.5 * np.sqrt(0.25 * 0.75 / draws)).all()


@pytest.mark.parametrize("num_groups", [1, 6, 24])
def test_random_maps_are_distinct_permutations(num_groups):
    family = Particle(maps="random", num_groups=num_groups)
    found = mains(family.population(np.random.default_rng(0), num_variants=2))
    assert (found[::2] == found[1::2]).all() and len(np.unique(found[::2], axis=0)) == num_groups
    assert (np.sort(found.reshape(-1, 8)) == np.sort(DIRECTIONS.ravel())).all()


def test_released_maps_are_the_authors():
    parameters = Particle(maps="released").population(np.random.default_rng(0))
    letters = np.array(list("LRDU"))[
        (mains(parameters)[:, :, None] == DIRECTIONS).all(axis=-1).argmax(axis=-1)
    ]
    words = ["".join(row) for row in letters[::4]]
    assert words == ["DLUR", "LRDU", "LDUR", "ULRD", "DRUL", "DLUR"]
    assert (letters == np.repeat(letters[::4], 4, axis=0)).all()


@pytest.mark.parametrize("draw", ["sample", "population"])
def test_noise_leans_on_the_side_coordinate_only(draw):
    family, rng = Particle(), np.random.default_rng(3)
    n = 4000
    parameters = family.sample(rng, n) if draw == "sample" else family.population(rng, 4, n // 4)
    sizes = np.sort(np.abs(parameters["moves"]), axis=-1)  # side, main
    assert (sizes[..., 1] == 1).all() and (sizes[..., 0] <= 0.5).all()
    side = parameters["moves"][np.abs(parameters["moves"]) != 1]
    assert side.size == 4 * n and abs(side.mean()) < 4 * np.sqrt(1 / 12 / side.size)
    assert abs(side.var() * 12 - 1) < 0.05
    assert parameters["moves"].dtype == np.float32


def test_groups_are_drawn_evenly_and_say_the_base_map():
    family = Particle(map_seed=7)
    parameters = family.sample(np.random.default_rng(0), 6000)
    assert (abs(np.bincount(parameters["group"], minlength=6) / 6000 - 1 / 6) < 0.025).all()
    assert (mains(parameters) == DIRECTIONS[family.base_maps][parameters["group"]]).all()
    assert not (Particle(map_seed=8).base_maps == family.base_maps).all()
    assert family.population(np.random.default_rng(0), 2, 3)["group"].tolist() == [0, 0, 0, 1, 1, 1]


def test_the_fifth_action_is_the_first_and_stays():
    family = Particle(num_actions=5, observe_velocity=True)
    parameters = family.population(np.random.default_rng(1))
    assert (parameters["moves"][:, 0] == 0).all() and (parameters["moves"][:, 1:] != 0).all()
    env = family.make_vec(parameters)
    env.reset()
    moving = env.step(np.ones(24, int))[0]
    drifting = env.step(np.zeros(24, int))[0]  # without force, not without velocity
    np.testing.assert_allclose(drifting[:, 2:], 0.75 * moving[:, 2:], atol=1e-6)


def test_equal_seeds_give_equal_entities():
    drawn = [Particle().population(np.random.default_rng(seed)) for seed in (0, 0, 1)]
    env = ParticleVectorEnv(24)
    for seed in (4, 4, 5):
        env.reset(seed=seed)
        drawn.append(env.parameters)
    for first, again, other in (drawn[:3], drawn[3:]):
        assert all((first[key] == again[key]).all() for key in first)
        assert not (first["moves"] == other["moves"]).all()


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"variant": "new"}, "give one of paper, released"),
        ({"num_actions": 6}, "give 4, or 5"),
        ({"max_episode_len": 0}, "at least 1"),
        ({"variant": "paper", "observe_velocity": True}, "no velocity"),
        ({"maps": "mine"}, "give one of identifiable, random, released"),
        ({"num_groups": 7}, "7 groups of identifiable maps; there are only 6"),
        ({"maps": "random", "num_groups": 25}, "there are only 24"),
        ({"num_groups": 0}, "at least 1"),
        ({"map_seed": -1}, "map_seed"),
    ],
)
def test_wrong_settings_are_refused(sizes, message):
    with pytest.raises(EnvError, match=message) as caught:
        Particle(**sizes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("sizes", [{"num_variants": 0}, {"num_groups": 8}, {"num_groups": 0}, {"maps": ""}])
def test_wrong_populations_are_refused(sizes):
    with pytest.raises(EnvError, match="particle: "):
        Particle().population(np.random.default_rng(0), **sizes)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"moves": DIRECTIONS[None] * 2}, "outside -1..1"),
        ({"moves": np.zeros((1, 5, 2))}, r"shape \[1, 5, 2\]; give \[1, 4, 2\]"),
        ({"group": np.array([0.5])}, "group must be whole numbers"),
        ({"group": np.array([-1])}, "group must be whole numbers"),
        ({"group": np.arange(2)}, "2 rows for 1 tasks"),
        ({"extra": np.zeros(1)}, "it takes"),
    ],
)
def test_wrong_parameters_are_refused(change, message):
    right = {"moves": DIRECTIONS[None], "group": np.arange(1)}
    with pytest.raises(EnvError, match=message):
        Particle().make_vec({**right, **change})
