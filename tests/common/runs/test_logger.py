"""metrics.csv holds every finished iteration once, whatever interrupts the run."""

import struct

import pytest

from common.errors import SaveError, UserError
from common.runs.logger import Logger
from mpi_utils.comm import Comm


def write(run_dir, rows, total=10, start=0):
    logger = Logger(run_dir, Comm(), total, start)
    for iteration, metrics in rows:
        logger.log(iteration, metrics)
    logger.close()
    logger.close()
    return (run_dir / "metrics.csv").read_text()


def test_new_names_widen_the_table_and_absent_ones_stay_empty(tmp_path):
    rows = [(1, {"a": 0.1, "b": 2}), (2, {"a": float("nan")}), (3, {"c,d": 1e-30, "b": float("-inf")})]
    assert write(tmp_path, rows) == ('iteration,a,b,"c,d"\n1,0.1,2.0,\n2,nan,,\n3,,-inf,1e-30\n')


@pytest.mark.promise("G3 tables after kills")
@pytest.mark.parametrize("debris", ["", "4,0.", "4,0.4", "4", "3,9.0\n", "5,1,2,3\n", "x\n\n", "\0\0\0\n"])
def test_a_resumed_table_has_no_gap_and_no_duplicate(tmp_path, debris):
    rows = [(i, {"a": i / 10}) for i in range(1, 7)]
    whole = write(tmp_path / "whole", rows)
    write(tmp_path / "run", rows[:4])
    table = tmp_path / "run" / "metrics.csv"
    kept = table.read_text().splitlines(keepends=True)[:3]
    table.write_text("".join(kept) + "3,0.3\n4,0.4\n" + debris)  # rows 3 and 4 were logged but not saved
    assert write(tmp_path / "run", rows[2:], start=2) == whole


def test_a_foreign_table_is_not_touched(tmp_path):
    for content in ("name,age\nme,5\n", "x" * 200_000 + "\n"):
        (tmp_path / "metrics.csv").write_text(content)
        with pytest.raises(UserError, match="no table of metrics"):
            Logger(tmp_path, Comm(), 10)
        assert (tmp_path / "metrics.csv").read_text() == content


def test_a_full_disk_is_a_failed_save_and_an_unwritable_folder_a_mistake(tmp_path):
    logger = Logger(tmp_path, Comm(), 10)
    logger.table.close()
    logger.table = open("/dev/full", "w")
    logger.header.append("a")
    with pytest.raises(SaveError, match="No space left"):
        logger.log(1, {"a": 1.0})
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose another"):
        Logger(tmp_path / "file", Comm(), 10)


def test_the_console_is_told_at_first_and_at_last(tmp_path, capsys):
    write(tmp_path, [(i, {"loss": 1.0, "train/return": i / 3}) for i in range(1, 6)], total=5)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("iteration 1/5  remaining 00:0") and lines[0].endswith("train/return 0.3333")
    assert lines[1].startswith("iteration 5/5  remaining 00:00  train/return 1.667")


def events(path):
    from tensorboardX.proto.event_pb2 import Event

    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def test_tensorboard_has_the_same_numbers(tmp_path):
    write(tmp_path, [(4, {"a": 0.5, "b": 2.0})], start=3)
    (path,) = (tmp_path / "tensorboard").iterdir()
    version, restart, row = events(path)
    assert restart.step == 4 and restart.session_log.status == 1, "hides older rows"
    assert row.step == 4 and {v.tag: v.simple_value for v in row.summary.value} == {"a": 0.5, "b": 2.0}


def test_other_ranks_write_nothing(tmp_path):
    comm = Comm()
    comm.is_root = False
    logger = Logger(tmp_path / "run", comm, 10)
    logger.log(1, {"a": 1.0})
    logger.sync()
    logger.close()
    assert not (tmp_path / "run").exists()
