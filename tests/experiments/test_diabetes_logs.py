"""Exports of devices: what becomes of them, and what is refused with its line."""

import csv
import sys
from datetime import datetime, timedelta

import pytest

from common.errors import UserError
from experiments import diabetes_logs
from mpi_utils.comm import Comm
from tests.helpers.launch import command
from tests.helpers.simglucose import needs_simglucose


def export(path, glucose, start="2026-03-01T08:00", **changes):
    """A file of one patient; `changes` {row: {column: text}}."""
    begin = datetime.fromisoformat(start)
    rows = []
    for i, value in enumerate(glucose):
        moment = (begin + timedelta(minutes=5 * i)).isoformat()
        row = {"patient": "p", "timestamp": moment, "glucose": value, "insulin": i / 10, "carbs": ""}
        rows.append(row | changes.get(f"row_{i}", {}))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, diabetes_logs.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def run(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["logs", *map(str, flags)])
    diabetes_logs.main(Comm())


def converted(monkeypatch, path, out, *flags):
    run(monkeypatch, "convert", path, "--out", out, *flags)
    with open(out, newline="") as file:
        return list(csv.DictReader(file))


def test_history_is_the_state_and_the_next_dose_the_action(tmp_path, monkeypatch):
    path = export(tmp_path / "clinic.csv", range(100, 115))
    rows = converted(monkeypatch, path, tmp_path / "new/log.csv")
    assert len(rows) == 2 and [row["time"] for row in rows] == ["12", "13"]
    first = rows[0]
    assert float(first["state_reading_0"]) == 112 and float(first["state_reading_11"]) == 101
    assert float(first["state_dose_0"]) == 1.1 and float(first["state_dose_11"]) == 0.0
    assert float(first["action"]) == 1.2 and float(first["next_state_dose_0"]) == 1.2
    assert float(first["next_state_reading_0"]) == 113 and float(first["reward"]) == pytest.approx(
        1, abs=1e-3
    )
    assert [v for k, v in rows[1].items() if k.startswith("state")] == [
        v for k, v in first.items() if k.startswith("next_state")
    ]


def test_a_gap_begins_the_history_anew_and_is_told(tmp_path, monkeypatch, capsys):
    late = {f"row_{i}": {"timestamp": f"2026-03-01T12:{5 * (i - 14):02d}"} for i in range(14, 20)}
    path = export(tmp_path / "clinic.csv", [120] * 20, **late)
    rows = converted(monkeypatch, path, tmp_path / "log.csv")
    assert len(rows) == 1
    assert "clinic.csv:16: p has a gap of 2:55:00; the history starts anew" in capsys.readouterr().out


def test_mmol_is_refused_and_converted(tmp_path, monkeypatch):
    path = export(tmp_path / "clinic.csv", [6.5] * 15)
    with pytest.raises(UserError, match="no glucose reaches 35, so these are no mg/dl; give --units mmol"):
        converted(monkeypatch, path, tmp_path / "log.csv")
    assert not (tmp_path / "log.csv").exists()
    rows = converted(monkeypatch, path, tmp_path / "log.csv", "--units", "mmol")
    assert float(rows[0]["state_reading_3"]) == pytest.approx(6.5 * 18.016)
    path = export(tmp_path / "mg.csv", [120] * 15)
    with pytest.raises(UserError, match="glucose of 120 is no mmol/l"):
        converted(monkeypatch, path, tmp_path / "log.csv", "--units", "mmol")


@pytest.mark.parametrize(
    "row, text",
    [
        ({"carbs": -20}, r"clinic.csv:5: carbs of -20; give 0 to 1000"),
        ({"insulin": 151}, r":5: insulin of 151; give 0 to 150"),
        ({"insulin": "-1"}, r":5: insulin of -1"),
        ({"glucose": ""}, r":5: glucose '' is no number"),
        ({"glucose": "nan"}, r":5: glucose of nan"),
        ({"timestamp": "1.3.26"}, r":5: timestamp '1.3.26' is none"),
        ({"timestamp": "2026-03-01T08:05"}, r":5: -5 minutes after the row before it; sort"),
        ({"timestamp": "2026-03-01T08:15+01:00"}, r":5: some timestamps have a time zone"),
        ({"timestamp": "2026-03-01T08:12"}, r":5: 2 minutes after the row before it"),
    ],
)
def test_rows_that_cannot_be(tmp_path, monkeypatch, row, text):
    path = export(tmp_path / "clinic.csv", [120] * 15, row_3=row)
    with pytest.raises(UserError, match=text):
        converted(monkeypatch, path, tmp_path / "log.csv")


def test_files_that_cannot_be(tmp_path, monkeypatch):
    for content, text in (
        ("patient,timestamp\n", "lacks glucose, insulin, carbs"),
        ("patient,timestamp,glucose,insulin,carbs\n", "has no rows"),
    ):
        (tmp_path / "clinic.csv").write_text(content)
        with pytest.raises(UserError, match=text):
            converted(monkeypatch, tmp_path / "clinic.csv", tmp_path / "log.csv")
    with pytest.raises(UserError, match="cannot be read"):
        converted(monkeypatch, tmp_path / "none.csv", tmp_path / "log.csv")
    path = export(tmp_path / "short.csv", [120] * 13)
    with pytest.raises(UserError, match="no patient has 14 rows without a gap"):
        converted(monkeypatch, path, tmp_path / "log.csv")


@needs_simglucose
def test_virtual_patients_export_what_can_be_converted(tmp_path, monkeypatch):
    clinic = tmp_path / "clinic.csv"
    run(monkeypatch, "simulate", "--members", "adult#002,adolescent#001", "--out", clinic)
    with open(clinic, newline="") as file:
        export_rows = list(csv.DictReader(file))
    assert {row["patient"] for row in export_rows} == {"adult#002", "adolescent#001"}
    assert sum(float(row["carbs"]) > 0 for row in export_rows) in (4, 5, 6)
    assert min(float(row["insulin"]) for row in export_rows) > 0
    rows = converted(monkeypatch, clinic, tmp_path / "log.csv")
    assert len(rows) == len(export_rows) - 2 * 13


@needs_simglucose
@pytest.mark.parametrize(
    "words, said",
    [
        ("experiments.diabetes_logs convert CLINIC --out OUT", "give --units mmol to convert them"),
        (
            "experiments.diabetes_logs simulate --members pump#1 --out OUT",
            "no parameters of a patient 'pump#1'",
        ),
        ("experiments.diabetes --out OUT --runs NONE", "NONE"),
    ],
)
def test_bad_input_ends_with_one_line_before_anything_is_written(tmp_path, words, said):
    export(tmp_path / "CLINIC", [6.5] * 15)
    at = [str(tmp_path / word) if word.isupper() else word for word in words.split()]
    done = command(1, *at)
    assert done.code == 2 and said in " ".join(done.output.split()), done.output
    assert "Traceback" not in done.output and not list(tmp_path.glob("OUT*"))
