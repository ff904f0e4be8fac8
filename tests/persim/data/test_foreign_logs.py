"""Logs as other programs write them: names, times, signs and gaps of their own."""

import gzip
import shlex

import numpy as np
import pytest

from common.errors import UserError
from persim.data import logs
from persim.data.columns import near
from persim.data.form import Form
from tests.persim.logged import HEADER, ROWS, family, read, refused, same, transitions, write

# What a pump writes: row numbers, its own names, and nothing that is called a state.
PUMP = ",unit,clock,level,flow,note"
PUMPED = [
    "0,u1,2024-03-01 00:00:00,1,0.5,a",
    "1,u1,2024-03-01 00:10:00,2,0.5,b",
    "2,u1,2024-03-01 00:20:00,4,1,c",
    "3,u2,2024-03-01 00:03:00,8,2,d",
    "4,u2,2024-03-01 00:13:00,9,2,e",
]
MAPPING = "agent=unit,time=clock,state=level,action=flow,reward=none"


def told(path, **form):
    """What is read, and the lines that tell of it."""
    lines = []
    return logs.read(path, form=Form(tell=lines.append, **form)), lines


def test_a_header_is_refused_once_with_the_mapping_that_it_needs(tmp_path):
    text = refused(write(tmp_path / "log.csv", PUMPED, PUMP))
    assert text.startswith("1:1: recognised no column; not '' (row numbers, as pandas or R write them)")
    assert "'unit' (near agent)" in text and "none is for agent, time, state, action, reward" in text
    words = shlex.split(text[text.index("--columns") :].split("; other columns")[0])
    assert words[1] == "agent=unit,time=clock,state=level,action=flow,reward=none"
    data, lines = told(tmp_path / "log.csv", columns=words[1])
    assert data.names == ["u1", "u2"] and lines[0].endswith("columns left out: '', 'note'")


def test_a_mapping_names_roles_and_leaves_the_rest_out(tmp_path):
    data, lines = told(write(tmp_path / "log.csv", PUMPED, PUMP), columns=MAPPING)
    assert data.names == ["u1", "u2"] and data.state_names == ["level"] and data.action_names == ["flow"]
    assert data.state[:, 0].tolist() == [1, 2, 8] and data.next_state[:, 0].tolist() == [2, 4, 9]
    assert data.reward.tolist() == [0, 0, 0] and data.step == (600, "s")
    assert [line.partition(": ")[2] for line in lines] == [
        "columns left out: '', 'note'",
        "clock: ISO 8601, a step is 10 min",
    ]


def test_names_with_commas_and_plus_signs(tmp_path):
    header = '"Na+, mmol","K+",who,when,dose'
    path = write(tmp_path / "log.csv", ["1,2,a,0,0.5", "3,4,a,1,0.25", "5,6,a,2,0.25"], header)
    mapping = "state=Na+, mmol+K+,agent=who, time=when,action=dose,reward=none"
    assert told(path, columns=mapping)[0].state.tolist() == [[1, 2], [3, 4]]


MAPPINGS = {
    "agent=unitt": "there is no column 'unitt'; did you mean 'unit'?",
    "agent=unit,agent=clock": "'agent' is twice",
    "agnt=unit": "'agnt' is no role; give role=column for agent, time, episode, reward",
    "agent=unit,state=unit": "column 'unit' has two roles; give it one",
    "time=clock+level": "time=clock+level: give a single column",
    "agent": "'agent' is without a column",
}


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_a_mapping_that_cannot_be_meant_is_refused(tmp_path, mapping):
    with pytest.raises(UserError) as error:
        told(write(tmp_path / "log.csv", PUMPED, PUMP), columns=mapping)
    assert MAPPINGS[mapping] in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, role",
    [("PatientID", "agent"), ("Time_stamp", "time"), ("obs", "state"), ("rewrad", "reward"), ("glucose", "")],
)
def test_what_a_name_is_near_to(name, role):
    assert near(name) == role


STEPS = ["0", "1", "2", "7", "8", "9"]  # as ROWS have them
TIMES = {
    "ISO": [f"2024-03-01 06:{5 * int(t):02d}:00" for t in STEPS],
    "ISO with T and fractions": [f"2024-03-01T06:{5 * int(t):02d}:00.250" for t in STEPS],
    "UTC": [f"2024-03-01T06:{5 * int(t):02d}Z" for t in STEPS],
    "a zone, and its summer time": [
        *(f"2024-03-31 01:{50 + 5 * t}:00+01:00" for t in (0, 1)),
        "2024-03-31 03:00:00+02:00",
        *(f"2024-06-01 03:{5 * t:02d}:00 +0200" for t in range(3)),
    ],
    "seconds": [str(1709251200 + 300 * int(t)) for t in STEPS],
    "milliseconds": [str(1709251200000 + 300000 * int(t)) for t in STEPS],
    "nanoseconds": [str(1709251200000000000 + 300000000000 * int(t)) for t in STEPS],
    "a device that is late now and then": [f"2024-03-01 06:{5 * int(t):02d}:{3 * int(t):02d}" for t in STEPS],
}


@pytest.mark.parametrize("kind", TIMES)
def test_moments_become_steps(tmp_path, kind):
    rows = [
        row.replace(f",{t},", f",{time},", 1) for row, t, time in zip(ROWS, STEPS, TIMES[kind], strict=True)
    ]
    data, lines = told(write(tmp_path / "log.csv", rows), action_kind="discrete")
    assert data.agent.tolist() == [0, 0, 1, 1] and data.time.tolist() == [0, 1, 0, 1]
    assert np.array_equal(data.next_state, transitions().next_state)
    assert data.step[0] == pytest.approx(300, rel=0.02) and data.step[1] == "s"
    (line,) = lines
    assert "a step is 5" in line and ("ISO 8601" in line or "since 1970" in line)


def test_times_with_and_without_a_zone_are_not_mixed(tmp_path):
    rows = [f"{name},2024-03-01 0{i}:00{'Z' * (i == 4)},{i},{i},0,1" for i, name in enumerate("aaabbb")]
    path = write(tmp_path / "log.csv", rows, HEADER.rpartition(",")[0])
    assert refused(path).startswith(
        "6:2: time is '2024-03-01 04:00Z'; some times have a zone, others have none"
    )


def test_gaps_end_windows_and_rows_are_sorted(tmp_path):
    rows = [f"a,{t},{t},{-t},{t / 2},1" for t in (0, 5, 10, 40, 20, 45, 50)]
    data, lines = told(write(tmp_path / "log.csv", rows, HEADER.rpartition(",")[0]))
    assert data.state[:, 0].tolist() == [0, 5, 40, 45] and data.next_state[:, 0].tolist() == [5, 10, 45, 50]
    # From 10 to 20 are two steps, from there to 40 four.
    assert data.time.tolist() == [0, 1, 8, 9]
    assert lines == [
        f"{tmp_path}/log.csv: time: a step is 5; 2 gaps end windows; "
        "rows were not in the order of time and are sorted"
    ]


LACKING = "a,0,1,9,0,1 a,1,2,8,,1 a,2,3,7,1,1 a,3,,6,1,1 a,4,5,5,1,1 a,5,6,4,0,1 a,6,7,3,,".split()


def test_missing_values_end_windows_where_the_user_says_so(tmp_path):
    rows = [*LACKING, "b,0,1,1,0,1", "b,1,,,,"]
    path = write(tmp_path / "log.csv", rows, HEADER.rpartition(",")[0])
    assert refused(path).startswith("3:5: action is missing")
    data, lines = told(path, action_kind="discrete", gaps="split")
    # The row at 1 has a state to be led to, but no action that leads on; that at 3 has neither.
    assert data.names == ["a"]
    assert data.state[:, 0].tolist() == [1, 5, 6] and data.next_state[:, 0].tolist() == [2, 6, 7]
    assert data.starts().tolist() == [0, 1, 1]
    assert lines == [
        f"{path}: 4 rows that lack a value end windows",
        f"{path}: 1 agent without a whole step left out: 'b'",
    ]


def test_next_states_in_the_row_with_missing_values(tmp_path):
    header = "agent,time,state,action,reward,next_state"
    rows = ["a,0,1,0.5,0,2", "a,1,2,,0,3", "a,2,3,0.5,0,", "a,3,4,0.5,0,5", "a,4,5,0.5,0,6"]
    data, _ = told(write(tmp_path / "log.csv", rows, header), gaps="split")
    assert data.state[:, 0].tolist() == [1, 4, 5] and data.next_state[:, 0].tolist() == [2, 5, 6]
    assert data.starts().tolist() == [0, 1, 1]


def test_agents_with_fewer_steps_in_a_row_than_a_history_has(tmp_path):
    rows = [*(f"a,{t},{t},{t % 2},1,0" for t in range(4)), "b,0,1,0,1,0", "b,1,2,1,0,0"]
    path = write(tmp_path / "log.csv", rows, HEADER.rpartition(",")[0])
    with pytest.raises(UserError, match="agent 'b' does not have 3 steps in a row.*--gaps split"):
        told(path, action_kind="discrete", shortest=3)
    data, lines = told(path, action_kind="discrete", shortest=3, gaps="split")
    assert data.names == ["a"] and lines == [f"{path}: 1 agent without 3 steps in a row left out: 'b'"]
    with pytest.raises(UserError, match="no agent has 9 steps in a row"):
        told(path, action_kind="discrete", shortest=9, gaps="split")


def test_episodes_of_an_agent(tmp_path):
    times = ("a,x,0", "a,x,1", "a,y,0", "a,y,1", "b,x,5", "b,x,6")
    rows = [f"{time},{i},{i},0.5,1" for i, time in enumerate(times, 1)]
    header = HEADER.rpartition(",")[0].replace("time", "episode,time")
    data, lines = told(write(tmp_path / "log.csv", rows, header))
    assert data.agent.tolist() == [0, 0, 1] and data.state[:, 0].tolist() == [1, 3, 5]
    assert data.next_state[:, 0].tolist() == [2, 4, 6] and np.diff(data.time)[0] > 1
    assert "3 episodes of 2 agents" in lines[0]
    bare = [row.replace(",x,", ",", 1).replace(",y,", ",", 1) for row in rows]
    assert "or add a column `episode` where times start anew" in refused(
        write(tmp_path / "log.csv", bare, HEADER.rpartition(",")[0])
    )


def test_next_states_make_rows_follow_whatever_the_time(tmp_path):
    # Visits of no regular kind; the third does not start where the second ended.
    rows = ["a,0,1,0.5,0,2", "a,13,2,0.5,0,3", "a,14,7,0.5,0,8", "a,400,8,0.5,0,9"]
    header = "agent,time,state,action,reward,next_state"
    data, _ = told(write(tmp_path / "log.csv", rows, header))
    assert (np.diff(data.time) == 1).tolist() == [True, False, True]


def whole_doses(tmp_path, doses):
    rows = [f"a,{t},{t},{dose},1" for t, dose in enumerate(doses)]
    return write(tmp_path / "log.csv", rows, "agent,time,state,action,reward")


def test_an_action_is_what_its_type_or_the_flag_says(tmp_path):
    path = whole_doses(tmp_path, ["0", "4", "1", "0"])
    text = ":1:4: action holds whole numbers, .*; say --action_kind continuous or --action_kind discrete"
    with pytest.raises(UserError, match=text):
        told(path)
    data, lines = told(path, action_kind="continuous")
    assert data.action.tolist() == [[0], [4], [1]] and not lines
    assert told(path, action_kind="discrete")[0].action.tolist() == [0, 4, 1]
    assert read(path, family(states=1, actions=5)).action.tolist() == [0, 4, 1]
    data, lines = told(whole_doses(tmp_path, ["0.0", "4.0", "1.0", "0.0"]))
    assert not data.discrete and "taken for a quantity" in lines[0] and "--action_kind discrete" in lines[0]
    with pytest.raises(
        UserError, match=":3:4: action is 0.5, not a whole number; give the number of the action"
    ):
        told(whole_doses(tmp_path, ["0", "0.5", "1", "0"]), action_kind="discrete")
    with pytest.raises(UserError, match=":3:4: action is -1, outside 0 to 999; number actions from 0"):
        told(whole_doses(tmp_path, ["0", "-1", "1", "0"]), action_kind="discrete")
    with pytest.raises(UserError, match="actions are vectors of real numbers, the environment's are whole"):
        logs.read(path, family(states=1), Form(action_kind="continuous"))


@pytest.mark.parametrize("quote", ["", '"'])  # with and without PyArrow
def test_words_are_categories(tmp_path, quote):
    words = [f"{quote}{word}{quote}" for word in ("left", "right", "none", "left")] + [""]
    path = whole_doses(tmp_path, words)
    data, lines = told(path)
    assert data.action_labels == ["left", "none", "right"] and data.action.tolist() == [0, 2, 1, 0]
    assert lines == [f"{path}: action is one of 3 categories: left, none, right"]
    data.save(tmp_path / "log.npz")
    again = read(tmp_path / "log.npz")
    assert again.action_labels == data.action_labels and again.digest() == data.digest()
    held, _ = told(path, labels=["left", "right", "up", "none"], action_kind="discrete", held_out=True)
    assert held.action.tolist() == [0, 1, 3, 0]
    for faulty, text in (
        ({"labels": ["left", "none"], "held_out": True}, ":3:4: action is 'right'; the run knows left, none"),
        ({"action_kind": "continuous"}, ":2:4: action is 'left'; give a number"),
    ):
        with pytest.raises(UserError, match=text):
            told(path, **faulty)
    with pytest.raises(UserError, match=":2:4: action is 'left'; give a number"):
        read(path, family(states=1))
    with pytest.raises(UserError, match=":4:4: action is missing; give"):
        told(whole_doses(tmp_path, ["left", "right", "NA", "left"]))


def test_a_held_out_log_may_be_constant_and_short(tmp_path):
    rows = ["a,0,7,1,1", "a,1,7,1,1", "b,0,7,1,1"]
    path = write(tmp_path / "log.csv", rows, "agent,time,state,action,reward")
    data, _ = told(path, action_kind="continuous", held_out=True)
    assert data.names == ["a"] and data.action.tolist() == [[1]]
    # Steps of two minutes are none of a run whose steps take one.
    times = ["a,2024-03-01 00:00,1,1,1", "a,2024-03-01 00:02,2,1,1"]
    text = "no two rows of an agent are a step of the run, 1 min, apart; most are 2 min"
    with pytest.raises(UserError, match=text):
        told(write(path, times, "agent,time,state,action,reward"), step=(60.0, "s"), held_out=True)


def test_names_that_differ_only_in_spelling_are_told(tmp_path):
    rows = [
        f"{name},{t},{t + i},{t - i},0.5,1" for i, name in enumerate(("P 01", "p1", "p2")) for t in (0, 1)
    ]
    _, lines = told(write(tmp_path / "log.csv", rows, "agent,time,state_0,state_1,action,reward"))
    assert lines[0].startswith("warning: ") and "'P 01' and 'p1' differ only in spelling" in lines[0]


def test_semicolons_decimal_commas_and_packed_files(tmp_path):
    german = "\n".join([HEADER, *ROWS]).replace(",", ";").replace(".", ",")
    path = tmp_path / "log.csv"
    path.write_text(german)
    data, lines = told(path, action_kind="discrete")
    assert same(data, transitions())
    assert lines[0].endswith("fields are separated by semicolons; numbers have decimal commas")
    path.write_text(german.replace(";", "\t"))
    assert same(told(path, decimal=",", action_kind="discrete")[0], transitions())
    packed = tmp_path / "log.csv.gz"
    text = "\n".join([HEADER, *ROWS, ""]).encode()
    packed.write_bytes(gzip.compress(text[:100]) + gzip.compress(text[100:]))
    assert same(read(packed), transitions())
    packed.write_bytes(gzip.compress(text.replace(b"0.125", b"fast")))
    with pytest.raises(UserError, match="gz:4:3: state_x is 'fast'; give a number"):
        read(packed)
    packed.write_bytes(gzip.compress(text)[:-20])
    with pytest.raises(UserError, match="gz:1:1: cannot be unpacked"):
        read(packed)


def test_quotes_and_odd_spellings_are_read_as_plain_files_are(tmp_path):
    plain = "\n".join([HEADER, *ROWS])
    for odd in (
        plain.replace("ann", '"ann"'),
        plain.replace("0.5", "+0.5"),
        plain.replace(",0,1,9", ",0,1 ,9"),
    ):
        (tmp_path / "log.csv").write_text(odd)
        assert same(read(tmp_path / "log.csv"), transitions())
