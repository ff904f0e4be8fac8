"""A grid of experiments that is interrupted says what is true."""

import pytest

from experiments.grid import Experiment, work_together
from mpi_utils.comm import Comm


@pytest.mark.parametrize(
    ("said", "own"),
    [
        ((), "interrupted: the experiment at work begins anew"),
        (("interrupted in iteration 3; the same command continues from the save of iteration 2",), "save of"),
    ],
)
def test_an_interrupted_grid_says_what_is_done_where_it_is_kept_and_how_to_go_on(tmp_path, said, own):
    def interrupted():
        raise KeyboardInterrupt(*said)

    def experiment(name, make):
        return Experiment(name, tmp_path / f"{name}.json", lambda result: True, make)

    experiments = [experiment("one", lambda: {"found": 1}), experiment("two", interrupted)]
    with pytest.raises(KeyboardInterrupt) as stop:
        work_together(experiments, Comm())
    assert own in str(stop.value) and "\n" not in str(stop.value)
    assert f"1 of 2 experiments are done and kept in {tmp_path}; the same command goes on" in str(stop.value)
    assert experiments[0].result() == {"found": 1}
    work_together([experiments[0], experiment("two", lambda: {"found": 2})], Comm())
    assert (tmp_path / "two.json").exists()
