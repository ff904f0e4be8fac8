"""Logs in CSV: what is read; the faults are in test_csv_faults.py."""

import os
import tracemalloc

import numpy as np
import pytest

from common.errors import UserError
from persim.data import logs
from tests.persim.logged import HEADER, ROWS, family, read, refused, replaced, same, transitions, write

GRAVITY = family(covariates={"gravity": (0, 10)}, state_names=("x", "v"))


@pytest.mark.parametrize("family_", [None, GRAVITY])
def test_the_next_row_gives_the_next_state(tmp_path, family_):
    assert same(read(write(tmp_path / "log.csv"), family_), transitions())


def test_rows_in_any_order(tmp_path):
    # bob comes first, and so is agent 0.
    data = read(write(tmp_path / "log.csv", ROWS[::-1]))
    assert data.names == ["bob", "ann"] and data.time.tolist() == [7, 8, 0, 1]
    assert data.next_state[:, 0].tolist() == [2, 3, 0.25, 0.125]
    assert data.covariates["gravity"].tolist() == [3.5, 9.5]


def test_next_state_columns_make_every_row_a_transition(tmp_path):
    rows = [f"{row},{i},{-i}" for i, row in enumerate(ROWS) if i not in (1, 4, 5)]
    data = read(write(tmp_path / "log.csv", rows, HEADER + ",next_state_v,next_state_x"))
    assert data.agent.tolist() == [0, 0, 1] and data.time.tolist() == [0, 2, 7]
    assert data.next_state.tolist() == [[0, 0], [-2, 2], [-3, 3]]


LOOKS = {
    "crlf": lambda: "\r\n".join([HEADER, *ROWS, ""]).encode(),
    "cr": lambda: "\r".join([HEADER, *ROWS, ""]).encode(),
    "byte order mark": lambda: b"\xef\xbb\xbf" + "\n".join([HEADER, *ROWS]).encode(),
    "UTF-16": lambda: "\r\n".join([HEADER, *ROWS]).encode("utf-16"),
    "UTF-16, big end first": lambda: b"\xfe\xff" + "\n".join([HEADER, *ROWS]).encode("utf-16-be"),
    "empty lines": lambda: "\n\n".join(["", HEADER, *ROWS, "", ""]).encode(),
    "no last line end": lambda: "\n".join([HEADER, *ROWS]).encode(),
    "quotes": lambda: "\n".join([HEADER, *(f'"{row}"'.replace(",", '","') for row in ROWS)]).encode(),
    "spaces": lambda: "\n".join([HEADER, *ROWS]).replace(",", " , ").encode(),
    "whole floats": lambda: "\n".join([HEADER, *replaced(1, ",1,", ",1.0,")]).encode(),
    "last action and reward missing": lambda: "\n".join([HEADER, *replaced(2, "1,1,9", ",,9")]).encode(),
}


@pytest.mark.parametrize("look", LOOKS)
def test_looks_that_do_not_matter(tmp_path, look):
    (tmp_path / "log.csv").write_bytes(LOOKS[look]())
    assert same(read(tmp_path / "log.csv"), transitions())


def test_names_may_hold_commas_and_any_letters(tmp_path):
    rows = [row.replace("ann", '"Ann, Zoë_1"') for row in ROWS]
    assert read(write(tmp_path / "log.csv", rows)).names == ["Ann, Zoë_1", "bob"]


def test_columns_in_the_order_of_the_family_or_of_their_numbers(tmp_path):
    path = write(tmp_path / "log.csv")
    named = family(covariates={"gravity": ()}, state_names=("v", "x"))
    assert read(path, named).state[0].tolist() == [-1, 0.5]
    numbered = HEADER.replace("state_x", "state_10").replace("state_v", "state_9")
    data = read(write(path, header=numbered))
    assert data.state_names == ["state_9", "state_10"] and data.state[0].tolist() == [-1, 0.5]


def test_kinds_of_actions(tmp_path):
    path, half = tmp_path / "log.csv", replaced(0, ",0,1,9", ",0.5,1,9")
    data = logs.read(write(path, half))
    assert data.action.dtype == np.float32 and data.action[:, 0].tolist() == [0.5, 2, 1, 0]
    one = [f"{row},{i / 10}" for i, row in enumerate(ROWS)]
    assert logs.read(write(path, one, HEADER + ",action_b")).action_names == ["action", "b"]
    bare = [row.rsplit(",", 1)[0] for row in ROWS]
    data = read(write(path, bare, HEADER.rsplit(",", 1)[0]), family(actions=3))
    assert data.covariates is None and data.action.tolist() == [0, 2, 1, 0]


@pytest.mark.promise("E2 faults of logs placed at line and column")
@pytest.mark.parametrize("name", ["none.csv", "pipe.csv", "nul\0.csv", "x" * 300 + ".csv"])
def test_what_is_no_file(tmp_path, name):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(UserError, match="check the path"):
        read(tmp_path / name)


def test_other_kinds_of_files(tmp_path):
    (tmp_path / "log.txt").write_text("x")
    assert "unknown kind of file" in refused(tmp_path / "log.txt")
    transitions().save(tmp_path / "log.npz")
    assert same(read(tmp_path / "log.npz", GRAVITY), transitions())


def long_log(path, agents, steps, state):
    """A log of `agents` * `steps` rows, its states [agents * steps, 3]."""
    rows = [f"a{i // steps},{i % steps},{x},{y},{z},{i % 2},1" for i, (x, y, z) in enumerate(state.tolist())]
    return write(path, rows, "agent,time,state_0,state_1,state_2,action,reward")


@pytest.mark.slow
def test_a_log_longer_than_a_block(tmp_path):
    state = np.random.default_rng(0).standard_normal((40_000, 3)).astype(np.float32)
    path = long_log(tmp_path / "log.csv", 40, 1000, state)
    assert path.stat().st_size > 2 << 20
    tracemalloc.start()
    data = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * path.stat().st_size
    assert np.array_equal(data.state, state.reshape(40, 1000, 3)[:, :-1].reshape(-1, 3))
    assert np.array_equal(data.next_state, state.reshape(40, 1000, 3)[:, 1:].reshape(-1, 3))
    text = path.read_text().splitlines()
    text[38_765] = text[38_765].replace("a", "a,", 1)
    path.write_text("\n".join(text))
    assert refused(path).startswith("38766:8: 8 fields under 7 columns")


def test_mutations_are_read_or_refused(tmp_path):
    path, rng = tmp_path / "log.csv", np.random.default_rng(0)
    good, refusals = write(path).read_bytes(), 0
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data))] if rng.random() < 0.2 else data)
        try:
            read(path, GRAVITY)
        except UserError as error:
            refusals += 1
            line, column = str(error).removeprefix(f"{path}:").split(":")[:2]
            assert 1 <= int(line) <= 9 and 1 <= int(column) <= 9 and "\n" not in str(error)
    assert 150 < refusals < 300
