"""Minari datasets: each episode is an agent; faults at episode, array and index."""

import json

import gymnasium
import numpy as np
import pytest

from common.errors import UserError
from persim.data.logs import read
from tests.persim.logged import family, same, transitions

h5py = pytest.importorskip("h5py", reason="needs extra [data]")

DISCRETE = {"type": "Discrete", "dtype": "int64", "start": 0, "n": 3}
BOX = {"type": "Box", "dtype": "float32", "shape": [2], "low": [-1, -1], "high": [1, 1]}
OBSERVATIONS = [[[0.5, -1], [0.25, -2], [0.125, -3]], [[1, 10], [2, 20], [3, 30]]]
NAMES = {"state_names": ["state_0", "state_1"], "covariates": None, "names": ["episode_0", "episode_1"]}


def write(folder, action=DISCRETE, actions=((0, 2), (1, 0)), metadata=None, **changes):
    folder.mkdir()
    spaces = {"observation_space": json.dumps(BOX), "action_space": json.dumps(action)}
    (folder / "metadata.json").write_text(json.dumps(spaces if metadata is None else metadata))
    with h5py.File(folder / "main_data.hdf5", "w") as file:
        for i, rewards in enumerate(([1, 1], [0, 0.5])):
            arrays = {"observations": OBSERVATIONS[i], "actions": actions[i], "rewards": rewards}
            for name, values in arrays.items():
                values = changes.get(f"{name}_{i}", values)
                if values is not None:
                    file[f"episode_{i}/{name}"] = np.array(values)
    return folder


def expected():
    return transitions(**NAMES, time=np.array([0, 1, 0, 1]))


def test_episodes_are_agents(tmp_path):
    assert same(read(write(tmp_path / "data"), family()), expected())
    assert same(read(tmp_path), expected())
    counted_from_5 = write(tmp_path / "from_5", DISCRETE | {"start": 5}, ((5, 7), (6, 5)))
    assert same(read(counted_from_5), expected())
    actions = [[[0.5, 0], [1, -1]], [[0, 0], [0, 0]]]
    data = read(write(tmp_path / "box", BOX, actions), family(actions=-2))
    assert data.action_names == ["action_0", "action_1"] and data.action[1].tolist() == [1, -1]


def test_what_minari_writes_is_read(tmp_path):
    minari = pytest.importorskip("minari", reason="needs extra [dev]")
    from minari.dataset.minari_storage import MinariStorage

    spaces = gymnasium.spaces.Box(-50, 50, (2,)), gymnasium.spaces.Discrete(3)
    storage = MinariStorage.new(tmp_path / "data", *spaces, data_format="hdf5")
    for observations, actions, rewards in zip(
        OBSERVATIONS, ((0, 2), (1, 0)), ([1, 1], [0, 0.5]), strict=True
    ):
        ends = {"terminations": [False, False], "truncations": [False, True]}
        arrays = {"observations": np.array(observations), "actions": np.array(actions), "rewards": rewards}
        storage.update_episodes([minari.data_collector.EpisodeBuffer(**arrays, **ends)])
    assert same(read(tmp_path, family()), expected())


FAULTS = {
    "nan": (
        {"observations_1": [[1, 10], [np.nan, 20], [3, 30]]},
        "episode_1/observations:1,0: state 'state_0'",
    ),
    "nan at the end": (
        {"observations_1": [[1, 10], [2, 20], [3, np.nan]]},
        "episode_1/observations:2,1: state",
    ),
    "infinite": ({"rewards_0": [1, np.inf]}, "episode_0/rewards:1: reward is inf"),
    "action": ({"actions_1": [1, 3]}, "episode_1/actions:1: action 3 is outside 0 to 2"),
    "half an action": (
        {"actions_1": [1, 0.5]},
        "episode_1/actions:0: holds float64 [2]; give numbers with 1",
    ),
    "no steps": ({"rewards_1": []}, "episode_1/rewards:0: the episode has no steps"),
    "lengths": ({"rewards_1": [1]}, "episode_1/observations:1: 3 observations, 2 actions, 1 rewards"),
    "missing": ({"actions_1": None}, "episode_1/actions: is missing or a link"),
    "text": ({"rewards_1": np.array([b"a", b"b"])}, "episode_1/rewards:0: holds |S1 [2]"),
    "sizes": (
        {"observations_1": np.ones((3, 4))},
        "observations: episodes have vectors of different lengths",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_placed_at_episode_array_and_index(tmp_path, name):
    changes, text = FAULTS[name]
    folder = write(tmp_path / "data", **changes)
    with pytest.raises(UserError) as error:
        read(folder, family())
    assert str(error.value).startswith(f"{folder}/main_data.hdf5:{text}") and "\n" not in str(error.value)


def test_an_environment_that_the_file_names_is_not_made(tmp_path):
    spec = json.dumps({"id": "evil:Evil-v0", "entry_point": "evil:Evil"})
    folder = write(tmp_path / "data", metadata={"env_spec": spec})
    with pytest.raises(UserError, match="metadata.json:observation_space: is missing"):
        read(folder)


def test_links_and_bombs_are_refused(tmp_path):
    with h5py.File(tmp_path / "secret.hdf5", "w") as file:
        file["actions"] = np.array([1, 0])
    for name, link in {
        "out": h5py.ExternalLink(str(tmp_path / "secret.hdf5"), "actions"),
        "soft": h5py.SoftLink("/episode_0/actions"),
    }.items():
        folder = write(tmp_path / name, actions_1=None)
        with h5py.File(folder / "main_data.hdf5", "a") as file:
            file["episode_1/actions"] = link
        with pytest.raises(UserError, match="episode_1/actions: is missing or a link"):
            read(folder)
    folder = write(tmp_path / "raw", rewards_1=None)
    (tmp_path / "secret").write_bytes(bytes(16))
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        file.create_dataset("episode_1/rewards", (2,), "f8", external=[(str(tmp_path / "secret"), 0, 16)])
    with pytest.raises(UserError, match="episode_1/rewards: is kept in another file"):
        read(folder)
    folder = write(tmp_path / "bomb", rewards_1=None)
    with h5py.File(folder / "main_data.hdf5", "a") as file:
        file.create_dataset("episode_1/rewards", (10**10,), "f8", chunks=(1000,))
    with pytest.raises(UserError, match="GiB when unpacked, more than"):
        read(folder)


def test_damage_is_refused(tmp_path):
    folder = write(tmp_path / "data")
    path, rng = folder / "main_data.hdf5", np.random.default_rng(0)
    good = path.read_bytes()
    for end in rng.integers(len(good), size=20):
        path.write_bytes(good[:end])
        with pytest.raises(UserError, match="cannot be read as Minari"):
            read(folder)
    for _ in range(200):
        data = bytearray(good)
        data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
        try:
            read(folder)
        except UserError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
    path.write_bytes(good)
    for text in ("", "[]", "{}", '{"observation_space": "1"}', "[" * 100_000):
        (folder / "metadata.json").write_text(text)
        with pytest.raises(UserError):
            read(folder)
    with pytest.raises(UserError, match="metadata.json: no such file"):
        read(tmp_path / "..")
