"""Transitions as a file: round trip, digest, and every way in which a file can be wrong."""

import io
import os
import zipfile

import numpy as np
import pytest

from common.errors import UserError
from persim.data.transitions import Transitions
from tests.persim.logged import family, same, transitions

CONTINUOUS = {
    "action": np.array([[0, 0.5], [1, -1], [0.25, 0], [0, 0]], np.float32),
    "action_names": ["left", "right"],
}


@pytest.mark.parametrize("changes", [{}, CONTINUOUS, {"covariates": None}], ids=["discrete", "box", "bare"])
def test_what_is_saved_is_loaded(tmp_path, changes):
    data = transitions(**changes)
    data.save(tmp_path / "data.npz")
    again = Transitions.load(tmp_path / "data.npz")
    assert same(data, again) and again.digest() == data.digest()
    assert os.listdir(tmp_path) == ["data.npz"]


def test_digest_tells_every_field_apart():
    others = [
        {"names": ["ann", "bobby"]},
        {"time": np.array([0, 1, 7, 9])},
        {"action": np.array([0, 2, 1, 1])},
        {"covariates": {"gravity": np.array([9.5, 3.25])}},
        {"covariates": {"mass": np.array([9.5, 3.5])}},
        {"covariates": None},
        {"state_names": ["v", "x"]},
        {"reward": np.array([1, 1, 0, -0.5], np.float32)},
    ]
    digests = [transitions().digest(), *(transitions(**changes).digest() for changes in others)]
    assert len(set(digests)) == len(digests) and transitions().digest() == digests[0]


def changed(name, index, value):
    array = getattr(transitions(), name).copy()
    array[index] = value
    return {name: array}


WRONG = [
    (changed("state", (2, 1), np.nan), "state:2,1: state 'v' is missing"),
    (changed("next_state", (3, 0), np.inf), "next_state:3,0: state 'x' is inf"),
    ({"state": [[0, 1], [1e39, 2], [3, 4], [5, 6]]}, "state:1,0: state 'x' is inf, beyond 32 bits"),
    (changed("reward", 1, -np.inf), "reward:1: reward is -inf"),
    (changed("agent", 3, 2), "agent:3: 2 is no agent; there are 2 names"),
    (changed("agent", 0, -1), "agent:0: -1 is no agent"),
    ({"agent": np.array([0, 0, 1, 0])}, "agent:3: out of order"),
    (changed("time", 1, 0), "time:1: time does not grow"),
    ({"names": ["ann", "bob", "cid"], "covariates": None}, "names:2: agent 'cid' has no transition"),
    ({"names": ["ann", "ann"]}, "names:1: 'ann' is there twice"),
    ({"state_names": ["x", "x"]}, "state_names:1: 'x' is there twice"),
    ({"state_names": ["x"]}, "state:0: has shape [4, 2]; the other arrays ask for [4, 1]"),
    ({"reward": np.ones(3, np.float32)}, "reward:0: has shape [3]; the other arrays ask for [4]"),
    ({"covariates": {"gravity": np.ones(3)}}, "covariate.gravity:0: has shape [3]"),
    (
        {"covariates": {"gravity": np.array([1, np.nan])}},
        "covariate.gravity:1: covariate 'gravity' is missing",
    ),
    (changed("state", (slice(None), 1), 4), "state:0,1: state 'v' is 4 in all 4 rows"),
    (changed("action", 2, 3), "action:2: action 3 is outside 0 to 2"),
    ({"action": np.ones(4, np.float32)}, "action:0: give whole numbers [N]"),
    ({"action": np.ones((4, 1), np.float32)}, "action:0: actions are vectors of real numbers"),
    ({"state": np.ones((4, 2), int)}, "state:0: array holds int64; give real numbers"),
    ({"state": np.ones(4)}, "state: array has shape [4]; it takes 2 axes"),
    ({"time": np.array(["a"] * 4)}, "time:0: array holds <U1; give whole numbers"),
    ({"names": np.array([1, 2])}, None),
]


@pytest.mark.parametrize("changes, text", WRONG, ids=[text or "names" for _, text in WRONG])
def test_a_fault_is_placed_at_array_and_index(tmp_path, changes, text):
    path = tmp_path / "data.npz"
    arrays = transitions(covariates=None).arrays() | {"format": np.int64(1)}
    for name, value in changes.items():
        if name == "covariates":
            arrays |= {f"covariate.{key}": array for key, array in (value or {}).items()}
        else:
            arrays[name] = np.asarray(value)
    np.savez(path, **arrays)
    with pytest.raises(UserError) as error:
        Transitions.load(path, family(covariates={"gravity": (0, 10)}))
    assert str(error.value).startswith(f"{path}:{text or 'names:0: array holds int64; give text'}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "family_, text",
    [
        (family(states=3), "state:0: 2 states, but the environment has 3; give 3"),
        (family(actions=-2), "action:0: actions are whole numbers, the environment's are vectors of real"),
        (family(), "covariates:0: covariates are gravity, the environment's none"),
    ],
)
def test_what_the_environment_has_otherwise(tmp_path, family_, text):
    transitions().save(tmp_path / "data.npz")
    with pytest.raises(UserError) as error:
        Transitions.load(tmp_path / "data.npz", family_)
    assert str(error.value).startswith(f"{tmp_path / 'data.npz'}:{text}")


def test_bounds_of_real_actions(tmp_path):
    path = tmp_path / "data.npz"
    transitions(**CONTINUOUS, covariates=None).save(path)
    assert Transitions.load(path, family(actions=-2)).action.shape == (4, 2)
    actions = CONTINUOUS["action"] * np.float32(1.5)
    transitions(**CONTINUOUS | {"action": actions}, covariates=None).save(path)
    with pytest.raises(UserError, match=r"npz:action:1,0: action 1.5 is outside -1 to 1"):
        Transitions.load(path, family(actions=-2))
    with pytest.raises(UserError, match="2 actions, but the environment has 3; give 3"):
        Transitions.load(path, family(actions=-3))


def contents(change=None, save=np.savez, **more):
    file = io.BytesIO()
    arrays = transitions().arrays() | {"format": np.int64(1)} | more
    save(file, **{name: array for name, array in arrays.items() if name != change})
    return file.getvalue()


def forged_header(name, shape, size=None):
    """A file whose array `name` says that it has another shape, its directory that it has `size` bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(contents())) as old, zipfile.ZipFile(file, "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            if entry == f"{name}.npy":
                array = io.BytesIO()
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(array, header)
                data = array.getvalue() + data[-16:]
            new.writestr(entry, data)
        new.getinfo(f"{name}.npy").file_size = size or new.getinfo(f"{name}.npy").file_size
    return file.getvalue()


def twice():
    file = io.BytesIO(contents())
    with pytest.warns(UserWarning), zipfile.ZipFile(file, "a") as archive:
        archive.writestr("time.npy", b"x")
    return file.getvalue()


HOSTILE = {
    "objects": (contents(state=np.array([[{}, []]] * 4, object)), ":state:0: array holds objects"),
    "bomb": (
        contents(state=np.zeros((10**6, 2), np.float32), save=np.savez_compressed),
        "array is compressed",
    ),
    "forged": (forged_header("reward", (10**12,)), ":reward: array of shape [1000000000000] is not as long"),
    "both forged": (forged_header("reward", (2**28,), 128 + 2**30), "its arrays are longer than the file"),
    "negative": (forged_header("reward", (-4,)), ":reward: array of shape [-4] is not as long"),
    "missing": (contents("time"), ":time: array is missing"),
    "unknown": (contents(evil=np.ones(3)), ":evil: array is unknown"),
    "path": (contents(**{"../evil": np.ones(3)}), ":../evil: array is unknown"),
    "twice": (twice(), ":time: array is there twice"),
    "format": (contents(format=np.int64(2)), ":format:0: is 2, not 1"),
    "cut": (contents()[:-30], ": cannot be read as .npz"),
    "empty": (b"", ": cannot be read as .npz"),
    "pickle": (b"\x80\x04cos\nsystem\n.", ": cannot be read as .npz"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(tmp_path, name):
    data, text = HOSTILE[name]
    path = tmp_path / "data.npz"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        Transitions.load(path)
    assert text in str(error.value) and "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["data.npz"]


def test_mutations_are_read_or_refused(tmp_path):
    path, good, rng = tmp_path / "data.npz", contents(), np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(good)
        data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data))] if rng.random() < 0.2 else data)
        try:
            Transitions.load(path)
        except UserError as error:
            refused += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error)
    assert refused > 150


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path, tmp_path / "none.npz", tmp_path / "pipe.npz", tmp_path / "nul\0.npz"):
        with pytest.raises(UserError, match="no such file"):
            Transitions.load(path)
