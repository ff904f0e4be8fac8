import zipfile

import numpy as np
import pytest

from envs import EnvError, Population, make_family


def sample(n=5):
    return Population("bandit", make_family("bandit", num_actions=3).sample(np.random.default_rng(0), n))


def same(a, b):
    plain = [
        (p.environment, {k: (v.dtype, v.shape, v.tobytes()) for k, v in p.parameters.items()}) for p in (a, b)
    ]
    return plain[0] == plain[1]


def test_round_trip(tmp_path):
    parameters = make_family("tabular_mdp").sample(np.random.default_rng(0), 4)
    population = Population("tabular_mdp", parameters)
    population.save(tmp_path / "agents.npz")
    assert same(Population.load(tmp_path / "agents.npz"), population)
    assert [path.name for path in tmp_path.iterdir()] == ["agents.npz"]


def test_slices_and_indices():
    population = sample(5)
    means = population.parameters["means"]
    assert np.array_equal(population[1:3].parameters["means"], means[1:3])
    assert np.array_equal(population[np.array([4, 0])].parameters["means"], means[[4, 0]])
    assert len(population) == 5 and len(population[5:]) == 0 and len(population[2]) == 1
    shares = [population[:2], population[2:2], population[2:]]
    assert np.array_equal(np.concatenate([share.parameters["means"] for share in shares]), means)
    with pytest.raises(IndexError):
        population[5]


def test_description_names_sizes_and_ranges():
    text = Population("bandit", {"means": np.array([[0.25, 0.75]])}).describe()
    assert text == "bandit: 1 tasks\n  means [1, 2] float64, 0.25 to 0.75, mean 0.5"


@pytest.mark.parametrize(
    "environment, parameters, message",
    [
        ("bandits", {"means": np.zeros((2, 3))}, "unknown environment 'bandits'; known are bandit"),
        ("bandit", {}, "an empty or wrong dict"),
        ("bandit", None, "an empty or wrong NoneType"),
        ("bandit", {"a": np.zeros((2, 3)), "b": np.zeros((3, 3))}, "'b' has 3 rows for 2 tasks"),
        ("bandit", {"means": np.array([[0.5], [np.inf]])}, "'means' of task 1 is not finite"),
        ("bandit", {"means": np.array(["x"])}, "dtype <U1"),
        ("bandit", {"means": np.array([{}])}, "dtype object"),
        ("bandit", {"means": [[1, 2], [3]]}, "ragged"),
        ("bandit", {"means": 3.0}, "is one number"),
        ("bandit", {1: np.zeros(2)}, "names must be strings"),
    ],
)
def test_wrong_populations_are_refused_in_one_line(environment, parameters, message):
    with pytest.raises(EnvError, match=message) as caught:
        Population(environment, parameters)
    assert "\n" not in str(caught.value)


def test_damaged_files_are_refused_in_one_line(tmp_path):
    path = tmp_path / "agents.npz"
    with pytest.raises(EnvError, match="no population at"):
        Population.load(path)
    sample().save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:cut] for cut in (0, 1, len(whole) // 2, len(whole) - 1)]
    for position in rng.integers(len(whole), size=60):
        damaged.append(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
    refused = 0
    for data in damaged:
        path.write_bytes(data)
        try:
            assert same(Population.load(path), sample())  # a flip in unused bytes of the archive does no harm
        except EnvError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            refused += 1
    assert refused > 40


@pytest.mark.promise("F1 hostile files of populations")
def test_hostile_files_are_refused(tmp_path):
    path = tmp_path / "agents.npz"
    base = {"format": 1, "environment": "bandit"}
    np.savez(path, **base, **{"parameter.means": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(EnvError, match="cannot be read"):
        Population.load(path)
    np.savez_compressed(path, **base, **{"parameter.means": np.zeros((100, 2))})
    with pytest.raises(EnvError, match="compressed"):
        Population.load(path)
    np.savez(path, format=2, environment="bandit", **{"parameter.means": np.zeros((1, 2))})
    with pytest.raises(EnvError, match="format is not 1"):
        Population.load(path)
    np.savez(path, format=1, environment="other", **{"parameter.means": np.zeros((1, 2))})
    with pytest.raises(EnvError, match="unknown environment 'other'"):
        Population.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,)}\n"
        archive.writestr("format.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(EnvError, match="cannot be read"):
        Population.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "agents.npz"
    sample(2).save(path)

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full_disk)
    with pytest.raises(OSError):
        sample(3).save(path)
    assert len(Population.load(path)) == 2 and len(list(tmp_path.iterdir())) == 1
