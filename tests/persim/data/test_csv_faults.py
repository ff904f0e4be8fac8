"""Faults of logs in CSV: each is placed at its line and column."""

import pytest

from tests.persim.logged import HEADER, ROWS, family, refused, replaced, write

# Line 1 is the header; columns are counted from 1.
FAULTS = {
    "missing state": (replaced(1, "0.25", ""), "3:3: state 'x' is missing; give a finite number"),
    "missing text": (replaced(1, "0.25", "NA"), "3:3: state 'x' is missing"),
    "missing nan": (replaced(4, ",20,", ",nan,"), "6:4: state 'v' is missing"),
    "missing last state": (replaced(5, ",30,", ",,"), "7:4: state 'v' is missing"),
    "missing action": (replaced(3, "10,1", "10,"), "5:5: action is missing; give the number"),
    "missing reward": (replaced(0, "0,1,9", "0,,9"), "2:6: reward is missing"),
    "missing time": (replaced(2, "2", ""), "4:2: time is missing; give the number of the step"),
    "missing agent": (replaced(5, "bob", " "), "7:1: agent is missing or too long"),
    "missing covariate": (replaced(3, "3.5", ""), "5:7: covariate 'gravity' is missing"),
    "text": (replaced(2, "0.125", "fast"), "4:3: state_x is 'fast'; give a number"),
    "comma": (replaced(2, "0.125", '"0,125"'), "4:3: state_x is '0,125'; give a number"),
    "underscore": (replaced(3, ",10,", ",1_0,"), "5:4: state_v is '1_0'; give a number"),
    "digits of elsewhere": (replaced(3, ",10,", ",\u0661,"), "5:4: state_v is '\u0661'; give a number"),
    "infinite": (replaced(4, ",20,", ",-inf,"), "6:4: state 'v' is -inf, beyond 32 bits"),
    "too large": (replaced(4, "0.5", "1e39"), "6:6: reward is inf, beyond 32 bits"),
    "ragged, short": (replaced(2, ",9.5", ""), "4:7: 6 fields under 7 columns"),
    "ragged, long": (replaced(2, ",9.5", ",9.5,8"), "4:8: 8 fields under 7 columns"),
    "duplicate step": (replaced(5, "9", "8"), "7:2: agent 'bob' has time 8 more than once"),
    "duplicate row": ([*ROWS, ROWS[1]], "8:2: agent 'ann' has time 1 more than once"),
    "gaps only": (
        ["ann,0,1,2,0,1,9.5", "ann,1,2,3,0,1,9.5", "ann,2,3,4,0,1,9.5", "bob,7,1,1,0,1,3", "bob,9,1,1,0,1,3"],
        "5:1: agent 'bob' has no two rows that are 1 apart and so no transition",
    ),
    "time as text": (replaced(1, "1", "noon"), "3:2: time is 'noon'; give a number"),
    "date of a country": (
        replaced(1, "1", "1/3/2024 5:00"),
        "3:2: time is '1/3/2024 5:00'; give a number, or",
    ),
    "date among numbers": (
        replaced(1, "1", "2024-03-01"),
        "3:2: time is '2024-03-01'; give a number, or a time",
    ),
    "one step": ([*ROWS, "cid,4,1,1,0,0,1"], "8:1: agent 'cid' has a single row and so no transition"),
    "constant state": (
        [",".join([*row.split(",")[:3], "7", *row.split(",")[4:]]) for row in ROWS],
        "2:4: state 'v' is 7 in all 4 rows",
    ),
    "covariate changes": (replaced(4, "3.5", "4"), "6:7: covariate_gravity of agent 'bob' is 4 after 3.5"),
    "header only": ([], "2:1: there are no rows after the header"),
    "nul": (replaced(2, "0.125", "0.1\0"), "4:3: a NUL byte; save the file as UTF-8 text"),
    "open quote": (replaced(2, "ann", '"ann'), "4:1: a quote does not end in its line"),
    "line end in quotes": (replaced(2, "ann", '"an\nn"'), "4:1: a quote does not end in its line"),
    "text after quote": (replaced(2, "ann", '"an"n'), "4:1: ',' expected after '\"'"),
    "huge field": (replaced(2, "0.125", "1" * 200_000), "4:1: field larger than field limit"),
    "huge line": (replaced(2, "0.125", "1" * 3_000_000), "4:1: a line of more than 1048576 characters"),
    "huge name": (replaced(2, "ann", "a" * 1000), "4:1: agent is missing or too long"),
}


@pytest.mark.promise("E2 faults of logs placed at line and column")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_placed_at_line_and_column(tmp_path, fault):
    rows, text = FAULTS[fault]
    assert refused(write(tmp_path / "log.csv", rows)).startswith(text)


HEADERS = {
    "no time": ("time", "step", "1:2: recognised agent, reward, "),
    "no agent": ("agent,", "", "1:1: recognised time, reward, state_x as state, "),
    "no reward": ("reward", "action_b", "1:1: recognised agent, time, "),
    "no state": ("state_x,state_v", "action_x,action_v", "1:1: recognised agent, time, reward, action_x as"),
    "no action": ("action", "state_z", "1:1: recognised agent, time, reward, state_x as state, "),
    "duplicate": ("state_v", "state_x", "1:4: column 'state_x' is there twice"),
    "index": ("agent,", ",agent,", "1:1: recognised agent, time, reward, "),
    "semicolons": (",", ";", "2:2: 1 fields under 7 columns"),
    "half a next state": ("covariate_gravity", "next_state_x", "1:1: there is no column 'next_state_v'"),
    "next of nothing": ("covariate_gravity", "next_state_z", "1:7: column 'next_state_z' goes with no state"),
}


@pytest.mark.promise("E2 faults of logs placed at line and column")
@pytest.mark.parametrize("name", HEADERS)
def test_a_fault_of_the_header(tmp_path, name):
    old, new, text = HEADERS[name]
    header = HEADER.replace(old, new)
    assert refused(write(tmp_path / "log.csv", header=header)).startswith(text)


FAMILIES = [
    (ROWS, family(states=3), "1:3: 2 states, but the environment has 3; give 3"),
    (ROWS, family(), "1:7: covariates are gravity, the environment's none"),
    (ROWS, family(actions=2), "3:5: action 2 is outside 0 to 1"),
    (replaced(3, "10,1", "10,-1"), family(), "5:5: action -1 is outside 0 to 2"),
    (replaced(3, "10,1", "10,0.5"), family(), "5:5: action is 0.5, not a whole number"),
    (ROWS, family(actions=-1), "3:5: action 2.0 is outside -1 to 1"),
    (ROWS, family(actions=-2), "1:5: 1 actions, but the environment has 2; give 2"),
]


@pytest.mark.promise("E2 faults of logs placed at line and column")
@pytest.mark.parametrize("rows, family_, text", FAMILIES, ids=[text for *_, text in FAMILIES])
def test_a_log_that_is_not_the_environments(tmp_path, rows, family_, text):
    assert refused(write(tmp_path / "log.csv", rows), family_).startswith(text)


@pytest.mark.promise("E2 faults of logs placed at line and column")
def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes("\n".join([HEADER, *ROWS]).encode().replace(b"ann,1,0.25", b"ann,1,0.2\xff5"))
    assert refused(path).startswith("3:3: byte 0xff is not UTF-8")
    path.write_bytes("\n".join([HEADER, *replaced(2, "0.125", "fast")]).encode("utf-16"))
    assert refused(path).startswith("4:3: state_x is 'fast'; give a number")
    path.write_bytes(b"")
    assert refused(path).startswith("1:1: the file is empty")
    path.write_bytes(b"\n\r\n")
    assert refused(path).startswith("1:1: the file is empty")
