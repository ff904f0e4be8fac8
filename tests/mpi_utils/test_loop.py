"""The loop on one rank: it falls back over damaged saves, and refuses what it cannot continue."""

import os
import time
from functools import partial

import pytest
import torch

from common.errors import SaveError, UserError
from common.runs import checkpoint, files, run_folder
from mpi_utils.comm import Comm
from mpi_utils.loop import resume, run
from tests.helpers.tiny_learner import Learner, digest


def train(run_dir, iterations=6, interval=1, **options):
    learner = Learner(Comm())
    finished = run(learner, Comm(), run_dir, iterations=iterations, checkpoint_interval=interval, **options)
    return finished, digest(learner, run_dir)


@pytest.mark.promise("B4 runs that fall back")
def test_damaged_saves_are_skipped_with_a_reason_and_the_run_ends_the_same(tmp_path, capsys):
    expected = train(tmp_path / "whole")
    train(tmp_path / "run", iterations=5)
    os.truncate(tmp_path / "run" / "step_00000005" / "tensors.safetensors", 10)
    (tmp_path / "run" / "step_00000004" / "manifest.json").unlink()
    capsys.readouterr()
    assert train(tmp_path / "run") == expected
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2 and all(line.startswith("skipped ") for line in told)
    assert "step_00000005" in told[0] and "10 bytes instead of" in told[0]
    assert "step_00000004" in told[1] and "manifest.json" in told[1]
    kept = sorted(p.name for p in (tmp_path / "run").glob("step_*"))
    assert kept == [f"step_{i:08d}" for i in range(2, 7)], "damaged ones replaced, five kept"


def test_without_any_valid_save_it_does_not_start_over(tmp_path):
    train(tmp_path, iterations=2)
    for path in tmp_path.glob("step_*"):
        (path / "state.json").unlink()
    with pytest.raises(UserError, match="none of 2 saves is valid"):
        resume(Learner(Comm()), Comm(), tmp_path)


def test_a_full_disk_ends_the_run_and_the_next_start_goes_on(tmp_path, monkeypatch):
    expected = train(tmp_path / "whole")

    def full(source, target):
        if target.name == "step_00000004":
            raise OSError(28, "No space left on device")
        os.replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(SaveError, match="No space left"):
        patch.setattr(files, "rename", full)
        train(tmp_path / "run")
    path, skipped = checkpoint.newest_valid(tmp_path / "run")
    assert path.name == "step_00000003" and not skipped
    assert train(tmp_path / "run") == expected


@pytest.mark.parametrize("options", [{"interval": 0}, {"sync_interval": 0}])
def test_bad_intervals_are_refused_before_the_first_iteration(tmp_path, options):
    with pytest.raises(UserError, match="choose 1 or more"):
        train(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_not_saved(tmp_path, value):
    """A moment of the optimiser is spoilt, of which no gradient tells."""
    learner = Learner(Comm())

    def spoil():
        learner.optimiser.state[learner.parameter]["exp_avg"][1] = value
        learner.optimiser.param_groups[0]["lr"] = 0.0

    learner.at = {3: spoil}
    with pytest.raises(FloatingPointError, match="is not finite after iteration 4, which is not saved"):
        run(learner, Comm(), tmp_path, iterations=6, checkpoint_interval=1)
    newest, skipped = checkpoint.newest_valid(tmp_path)
    assert newest.name == "step_00000003" and not skipped
    assert torch.isfinite(checkpoint.load(newest)[1]["parameter"]).all()


def test_a_wall_clock_that_jumps_changes_nothing(tmp_path, monkeypatch, promise):
    """A year back and forth in a run, and between a save and its continuation."""
    expected, clock = train(tmp_path / "whole"), time.time
    for year in (-1, 1):
        jump = partial(jumped, clock, year)
        jumps = {i: partial(monkeypatch.setattr, time, "time", jump if i % 2 else clock) for i in range(6)}
        run_dir = tmp_path / str(year)
        with promise("B7 clocks do not matter"):
            for end in (3, 6):
                learner = Learner(Comm(), at=jumps)
                run(learner, Comm(), run_dir, iterations=end, checkpoint_interval=1)
                monkeypatch.setattr(time, "time", clock)
                for age, path in enumerate(sorted(run_dir.glob("step_*"))):
                    os.utime(path, (2e9 - 1e6 * age,) * 2)
            assert digest(learner, run_dir) == expected[1]


def jumped(clock, years):
    return clock() + years * 365 * 86400.0


def test_a_resumed_run_says_from_where_and_a_finished_one_how_to_go_on(tmp_path, capsys):
    train(tmp_path, iterations=3, interval=2)
    assert "continues" not in capsys.readouterr().out
    train(tmp_path, iterations=5, interval=2)
    assert "continues after iteration 3 of 5\n" in capsys.readouterr().out
    train(tmp_path, iterations=5)
    assert "finished: all 5 iterations are done; a larger --max_iters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("interval", "told"), [(2, "continues from the save of iteration 2"), (9, "begins anew")]
)
def test_an_interrupted_run_says_what_is_saved(tmp_path, interval, told):
    def interrupt():
        raise KeyboardInterrupt

    learner = Learner(Comm(), at={3: interrupt})
    with pytest.raises(KeyboardInterrupt, match=f"interrupted in iteration 4; .*{told}"):
        run(learner, Comm(), tmp_path, iterations=6, checkpoint_interval=interval)


class Evaluated(Learner):
    """A learner that reports evaluations of these returns."""

    returns = (None, 1.0, None, 3.0, 2.0, None)

    def train_iteration(self, i):
        found = [value for value in self.returns[: i + 1] if value is not None]
        told = self.returns[i] is not None
        more = {"eval/return": self.returns[i], "eval/best_return": max(found)} if told else {}
        return super().train_iteration(i) | more


def test_the_best_evaluated_state_is_kept_beside_the_last(tmp_path):
    run_folder.write_config(tmp_path, {"system": "tiny"})
    for end, best in ((1, []), (3, [2]), (6, [4])):
        run(Evaluated(Comm()), Comm(), tmp_path, iterations=end, checkpoint_interval=6, keep=1)
        assert [path.name for path in (tmp_path / "best").glob("step_*")] == [f"step_{i:08d}" for i in best]
        stored, newest, _ = checkpoint.find(tmp_path)
        assert stored == {"system": "tiny"} and newest.name == f"step_{end:08d}"
    _, path, contents = checkpoint.find(tmp_path / "best")
    assert path == tmp_path / "best" / "step_00000004" and checkpoint.unpack(contents)[0] == 4
    assert checkpoint.find(path)[0] == stored and not list(tmp_path.glob("step_00000004"))
    with pytest.raises(UserError, match="no such run folder"):
        checkpoint.find(tmp_path / "worst")
    run_folder.write_config(tmp_path / "best", {"system": "a run of that name"})
    assert checkpoint.find(tmp_path / "best")[0] == {"system": "a run of that name"}
