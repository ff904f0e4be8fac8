"""Small logs and a family for tests."""

import functools
import os
import types

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from common.errors import UserError
from persim.data import logs
from persim.data.form import Form
from persim.data.transitions import Transitions

read = functools.partial(logs.read, form=Form(action_kind="discrete"))
# Two agents, three steps each, and a hidden gravity.
HEADER = "agent,time,state_x,state_v,action,reward,covariate_gravity"
ROWS = [
    "ann,0,0.5,-1,0,1,9.5",
    "ann,1,0.25,-2,2,1,9.5",
    "ann,2,0.125,-3,1,1,9.5",
    "bob,7,1,10,1,0,3.5",
    "bob,8,2,20,0,0.5,3.5",
    "bob,9,3,30,2,0,3.5",
]


def write(path, rows=ROWS, header=HEADER, end="\n"):
    path.write_bytes(end.join([header, *rows, ""]).encode())
    return path


def family(states=2, actions=3, **more):
    """What `read` asks of a family: `actions` whole numbers, or -1..1 in `-actions` dimensions."""
    space = Discrete(actions) if actions > 0 else Box(-1, 1, (-actions,), np.float32)
    return types.SimpleNamespace(
        observation_space=Box(-np.inf, np.inf, (states,), np.float32), action_space=space, **more
    )


def transitions(**changes):
    """What the log above says."""
    fields = {
        "names": ["ann", "bob"],
        "agent": np.array([0, 0, 1, 1]),
        "time": np.array([0, 1, 7, 8]),
        "state": np.array([[0.5, -1], [0.25, -2], [1, 10], [2, 20]], np.float32),
        "action": np.array([0, 2, 1, 0]),
        "reward": np.array([1, 1, 0, 0.5], np.float32),
        "next_state": np.array([[0.25, -2], [0.125, -3], [2, 20], [3, 30]], np.float32),
        "state_names": ["x", "v"],
        "action_names": ["action"],
        "covariates": {"gravity": np.array([9.5, 3.5])},
    }
    return Transitions(**(fields | changes))


def same(one, other):
    """Whether two Transitions agree in every array, kind and name."""
    a, b = one.arrays(), other.arrays()
    kinds = all(a[k].dtype == b[k].dtype or a[k].dtype.kind == "U" for k in a if k in b)
    return list(a) == list(b) and kinds and all(np.array_equal(a[k], b[k]) for k in a)


def refused(path, family_=None):
    """The text after the path of the one line that refuses a log, with nothing written."""
    with pytest.raises(UserError) as error:
        logs.read(path, family_, None if family_ else Form(action_kind="discrete"))
    text = str(error.value)
    assert "\n" not in text and len(text) <= 500 and text.startswith(f"{path}:")
    assert os.listdir(path.parent) == [path.name]
    return text.removeprefix(f"{path}:")


def replaced(row, old, new):
    """`ROWS` with something in one of them replaced."""
    assert old in ROWS[row]
    return [*ROWS[:row], ROWS[row].replace(old, new, 1), *ROWS[row + 1 :]]
