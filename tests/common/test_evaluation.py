import numpy as np
import pytest

from common.evaluation import as_csv, as_markdown, row, worst_decile


def test_a_row_has_mean_and_standard_error():
    found = row("rl2", "return", [1.0, 2.0, 3.0, np.nan], agent="a")
    assert found == {
        "method": "rl2",
        "metric": "return",
        "mean": 2.0,
        "se": pytest.approx(1 / np.sqrt(3)),
        "n": 3,
        "agent": "a",
    }
    assert row("rl2", "return", 5.0)["se"] is None
    assert row("rl2", "return", [])["mean"] is None


def test_the_worst_tenth_is_at_least_one():
    assert worst_decile([3.0, 1.0, 2.0]) == 1.0
    assert worst_decile(np.arange(20.0)) == 0.5
    assert worst_decile(np.arange(21.0)) == 1.0


def test_tables():
    rows = [{"a": 1, "b": 0.123456}, {"a": 2, "c": "x"}]
    assert as_csv(rows) == "a,b,c\n1,0.123456,\n2,,x\n"
    assert as_csv(rows, ["b", "a"], digits=2) == "b,a\n0.12,1\n,2\n"
    assert as_markdown(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |\n"
