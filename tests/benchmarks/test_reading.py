"""The benchmark of reading: its log is read, and timed."""

import json
import sys

import pytest

from benchmarks import reading
from persim.data.logs import read


@pytest.mark.slow
def test_a_log_is_written_read_and_timed(tmp_path, monkeypatch, capsys):
    reading.write_log(tmp_path / "log.csv", 2500)
    data = read(tmp_path / "log.csv")
    assert data.names == ["a0", "a1", "a2"] and len(data) == 2497 and data.state.shape[1] == 4
    monkeypatch.setattr(sys, "argv", "reading --rows 2500 --rounds 1".split())
    reading.main()
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 2500 and 0 < found["seconds"]["here"] < 60
