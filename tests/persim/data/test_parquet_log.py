"""Logs in Parquet: the same as in CSV, and faults at column and row."""

import numpy as np
import pytest

from common.errors import UserError
from persim.data import checks
from persim.data.logs import read
from tests.persim.logged import family, same, transitions

pyarrow = pytest.importorskip("pyarrow", reason="needs extra [data]")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs extra [data]")

COLUMNS = {
    "agent": ["ann"] * 3 + ["bob"] * 3,
    "time": [0, 1, 2, 7, 8, 9],
    "state_x": [0.5, 0.25, 0.125, 1.0, 2.0, 3.0],
    "state_v": [-1, -2, -3, 10, 20, 30],
    "action": [0, 2, 1, 1, 0, 2],
    "reward": [1.0, 1.0, 1.0, 0.0, 0.5, 0.0],
    "covariate_gravity": [9.5] * 3 + [3.5] * 3,
}


def write(path, columns, **options):
    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def test_parquet_says_what_csv_says(tmp_path):
    path = write(tmp_path / "log.parquet", COLUMNS, row_group_size=2)
    assert same(read(path, family(covariates={"gravity": ()})), transitions())
    rows = [3, 5, 1, 4, 0, 2]
    names = pyarrow.array([COLUMNS["agent"][i] for i in rows]).dictionary_encode()
    mixed = {name: [values[i] for i in rows] for name, values in COLUMNS.items()} | {"agent": names}
    assert read(write(path, mixed)).next_state.tolist() == [[2, 20], [3, 30], [0.25, -2], [0.125, -3]]
    numbered = COLUMNS | {"agent": [5, 5, 5, 3, 3, 3]}
    assert read(write(path, numbered)).names == ["5", "3"]


FAULTS = {
    "null": ("state_x", [0.5, None, 1.0, 2.0, 3.0, 4.0], "state_x:1: state 'x' is missing"),
    "null agent": ("agent", ["ann"] * 3 + ["bob", None, "bob"], "agent:4: agent is missing"),
    "null action": ("action", [0, 1, 0, None, 1, 0], "action:3: action is missing; give the number"),
    "infinite": ("reward", [0, 0, 0, 0, float("inf"), 0], "reward:4: reward is inf"),
    "text": ("state_v", list("123456"), "state_v:0: column of string; give numbers"),
    "lists": ("state_v", [[1.0]] * 6, "state_v:0: column of list<"),
    "booleans": ("state_v", [True] * 6, "state_v:0: column of bool; give numbers"),
    "negative actions": ("action", [0, -1, 0, 1, 1, 0], "action:1: action is -1, outside 0 to 999; number"),
    "real agents": ("agent", [0.5] * 6, "agent:0: column of double; give text or whole numbers"),
    "gaps only": ("time", [0, 1, 2, 7, 9, 11], "agent:3: agent 'bob' has no two rows that are 1 apart"),
    "constant": ("state_v", [4] * 6, "state_v:0: state 'v' is 4 in all 4 rows"),
    "unknown": ("done", [0] * 6, "done:0: recognised agent, time, reward, state_x as state, "),
    "times": ("time", [True] * 6, "time:0: column of bool; give numbers or timestamps"),
    "text times": ("time", ["noon"] * 6, "time:0: time is 'noon'; give numbers, timestamps or ISO 8601"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_placed_at_column_and_row(tmp_path, name):
    column, values, text = FAULTS[name]
    path = write(tmp_path / "log.parquet", COLUMNS | {column: values})
    with pytest.raises(UserError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}:{text}") and "\n" not in str(error.value)


def test_no_rows_and_too_much(tmp_path, monkeypatch):
    path = tmp_path / "log.parquet"
    with pytest.raises(UserError, match="parquet:agent:0: there are no rows"):
        read(write(path, {name: np.array(values)[:0] for name, values in COLUMNS.items()}))
    # Few different values take a few bytes, however many there are: what counts is the memory that they need.
    rows = 10**6
    steps = {name: np.zeros(rows) for name in COLUMNS}
    steps |= {"agent": np.zeros(rows, int), "time": np.arange(rows), "action": np.arange(rows) % 2}
    steps |= {"state_x": np.arange(rows) % 7, "state_v": np.arange(rows) % 5}
    write(path, steps, compression="zstd")
    assert path.stat().st_size < rows * 7
    assert len(read(path)) == rows - 1
    monkeypatch.setattr(checks, "MAX_DECODED", 7 * 8 * rows - 1)
    with pytest.raises(UserError, match=r"holds 0\.1 GiB when unpacked, more than 0\.1; give fewer rows"):
        read(path)


def test_a_folder_of_files_and_partitions(tmp_path):
    ann, bob = ({name: values[part] for name, values in COLUMNS.items()} for part in (slice(3), slice(3, 6)))
    (tmp_path / "log" / "agent=ann").mkdir(parents=True)
    (tmp_path / "log" / "agent=0%2F1").mkdir()
    (tmp_path / "log" / "_metadata").write_text("no data")
    without = {name: values for name, values in ann.items() if name != "agent"}
    write(tmp_path / "log" / "agent=ann" / "0.parquet", without)
    bobs = {name: values for name, values in bob.items() if name != "agent"}
    write(tmp_path / "log" / "agent=0%2F1" / "0.parquet", {n: values[:2] for n, values in bobs.items()})
    last = write(
        tmp_path / "log" / "agent=0%2F1" / "1.parquet", {n: values[2:] for n, values in bobs.items()}
    )
    data = read(tmp_path / "log")
    assert data.names == ["0/1", "ann"]  # in the order of the files
    assert data.next_state.tolist() == [[2, 20], [3, 30], [0.25, -2], [0.125, -3]]
    write(last, {n: values[2:] for n, values in bobs.items()} | {"state_x": [None]})
    with pytest.raises(UserError, match=r"1\.parquet:state_x:0: state 'x' is missing"):
        read(tmp_path / "log")
    write(last, {n: values[2:] for n, values in bobs.items() if n != "reward"})
    with pytest.raises(
        UserError, match=r"1\.parquet:reward:0: there is no such column, as the first file has"
    ):
        read(tmp_path / "log")


def test_timestamps_and_types_of_actions(tmp_path):
    start = np.datetime64("2024-03-01T06:00", "us")
    clock = pyarrow.array(start + np.array(COLUMNS["time"]) * np.timedelta64(300, "s"))
    zoned = clock.cast(pyarrow.timestamp("ms", "Europe/Berlin"))
    text = [f"2024-03-01T06:{5 * t:02d}:00" for t in COLUMNS["time"]]
    for times in (clock, zoned, text):
        data = read(write(tmp_path / "log.parquet", COLUMNS | {"time": times}))
        assert data.step == (300, "s") and data.time.tolist() == [0, 1, 0, 1] and data.discrete
    whole_floats = [float(value) for value in COLUMNS["action"]]
    assert not read(write(tmp_path / "log.parquet", COLUMNS | {"action": whole_floats})).discrete
    words = ["left", "up", "left", "up", "left", "left"]
    for actions in (words, pyarrow.array(words).dictionary_encode(), [word == "up" for word in words]):
        data = read(write(tmp_path / "log.parquet", COLUMNS | {"action": actions}))
        assert data.action_labels in (["left", "up"], ["false", "true"]) and data.action.tolist() == [
            0,
            1,
            1,
            0,
        ]
    with pytest.raises(UserError, match="action:0: column of string; give numbers"):
        read(write(tmp_path / "log.parquet", COLUMNS | {"action": words}), family())


def test_mutations_are_read_or_refused(tmp_path):
    path, rng = tmp_path / "log.parquet", np.random.default_rng(0)
    good, refused = write(path, COLUMNS, compression="snappy").read_bytes(), 0
    for _ in range(300):
        data = bytearray(good)
        data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data))] if rng.random() < 0.2 else data)
        try:
            read(path)
        except UserError as error:
            refused += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error)
    assert 60 < refused < 300
