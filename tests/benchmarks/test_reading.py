"""The benchmark of reading measures the tree that it is told, and both ways of reading agree."""

from benchmarks import reading
from persim.data.logs import read


def test_both_ways_of_reading_give_the_same(tmp_path):
    reading.write(tmp_path / "log.csv", 1000)
    data = read(tmp_path / "log.csv")
    assert len(data) == 996 and data.num_agents == 4
    for hide in (False, True):
        seconds, digest = reading.measure(reading.ROOT, tmp_path / "log.csv", hide)
        assert seconds > 0 and digest == data.digest()
