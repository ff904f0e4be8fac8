"""A state comes back from disk as it was: types, bytes, keys."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.runs import checkpoint

NUMBERS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
KEYS = st.text() | st.integers() | st.booleans() | st.tuples(st.integers(), st.text())
STATES = st.recursive(
    NUMBERS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)


def through_bytes(state):
    return checkpoint.unpack(checkpoint.pack(3, {"state": state}))[1]["state"]


@settings(max_examples=100, deadline=None)
@given(STATES)
@example([float("nan"), float("inf"), -float("inf"), -0.0, {"x": (float("nan"),)}, {True: 1}])
def test_plain_values_come_back_exactly(state):
    assert repr(through_bytes(state)) == repr(state)  # tells NaN, -0.0, True and 1 apart


def test_arrays_and_tensors_come_back_byte_by_byte():
    rng = np.random.default_rng(0)
    types = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")
    arrays = {t: (rng.random((3, 2)) * 100).astype(t) for t in types}
    arrays |= {
        "0-d": np.array(1.5),
        "empty": np.zeros((0, 3)),
        "fortran": np.asfortranarray(np.eye(3)[:, :2]),
    }
    for name, array in through_bytes(arrays).items():
        assert type(array) is np.ndarray and array.dtype == arrays[name].dtype
        assert array.shape == arrays[name].shape and array.tobytes() == arrays[name].tobytes()
        array[...] = 0  # and may be written to
    big_endian = np.arange(3, dtype=">i4")
    assert through_bytes(big_endian).tolist() == [0, 1, 2]

    shared = torch.randn(4, 4)
    tensors = {"a": shared[0], "b": shared.t(), "half": shared.bfloat16(), "nan": torch.tensor(float("nan"))}
    for name, tensor in through_bytes(tensors).items():
        assert tensor.dtype == tensors[name].dtype
        torch.testing.assert_close(tensor, tensors[name], rtol=0, atol=0, equal_nan=True)
    scalar = through_bytes(np.float32(0.1))
    assert type(scalar) is np.float32 and scalar == np.float32(0.1)


def test_names_that_collide():
    state = {"a/b": torch.ones(1), "a": {"b": torch.zeros(1)}, "__metadata__": torch.ones(2), "$tensor": "x"}
    back = through_bytes(state)
    assert (
        back["a/b"] == 1 and back["a"]["b"] == 0 and len(back["__metadata__"]) == 2 and back["$tensor"] == "x"
    )


def test_an_optimiser_comes_back():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimiser = torch.optim.Adam([parameter], betas=(0.8, 0.9))
    parameter.sum().backward()
    optimiser.step()
    state = through_bytes(optimiser.state_dict())
    assert state["param_groups"][0]["betas"] == (0.8, 0.9)
    again = torch.optim.Adam([parameter])
    again.load_state_dict(state)
    assert torch.equal(again.state[parameter]["exp_avg"], optimiser.state[parameter]["exp_avg"])


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array(["text"]), np.array([object()]), b"bytes", 1j])
def test_other_things_are_refused_by_name(value):
    with pytest.raises(TypeError, match="state/state/deep"):
        through_bytes({"deep": value})
