"""A grid of runs: trained as train does it, evaluated, tabled, resumed and shared between processes."""

import csv
import signal
import subprocess
import sys

import pytest
import torch

import train
from common.errors import UserError
from common.runs import checkpoint, run_folder
from experiments import sweep
from experiments.ship import ship
from mpi_utils.comm import Comm
from rl2.evaluation import Settings
from tests.helpers.launch import ROOT, mpirun

TINY = (
    "--environment bandit --num_actions 2 --meta_episode_len 5 --num_features 8 --precision float32 "
    "--meta_episodes_per_policy_update 12 --meta_episodes_per_learner_batch 6 --checkpoint_interval 1 "
    "--max_iters 2"
).split()


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def words(folder, over=("seed=0,1",), evaluate="--instances 5", flags=TINY):
    where = ["--runs", str(folder / "runs"), "--table", str(folder / "out"), "--evaluate", evaluate]
    return ["rl2", "--over", *over, *where, "--", *flags]


def saves(folder):
    """The contents of the newest save of every run."""
    found = sorted(path for path in (folder / "runs").iterdir() if path.is_dir())
    return {run.name: checkpoint.read(checkpoint.newest_valid(run)[0]) for run in found}


def stamps(folder):
    files = [*(folder / "runs").rglob("step_*/*"), *(folder / "runs").rglob("evaluation.json")]
    return {path: path.stat().st_mtime_ns for path in files}


def table(folder):
    with open(folder / "out" / "table.csv") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """An undisturbed sweep of two seeds."""
    folder = tmp_path_factory.mktemp("swept")
    sweep.sweep(words(folder), Comm())
    return folder


def test_a_run_is_what_train_makes(swept, tmp_path, monkeypatch):
    flags = [*TINY, "--seed", "1", "--checkpoint_dir", str(tmp_path), "--model_name", "alone"]
    monkeypatch.setattr(sys, "argv", ["train", "rl2", *flags])
    train.main(Comm())
    alone = checkpoint.read(checkpoint.newest_valid(tmp_path / "alone")[0])
    both = saves(swept)
    assert both["seed-1"] == alone and both["seed-0"] != alone
    configs = [run_folder.read_config(path) for path in (tmp_path / "alone", swept / "runs" / "seed-1")]
    assert {f.split(":")[0] for f in run_folder.config_differences(*configs)} == {
        "checkpoint_dir",
        "model_name",
    }


def test_the_table_holds_every_run_and_no_parts_of_runs(swept):
    rows = table(swept)
    assert list(rows[0]) == ["seed", "method", "metric", "mean", "se", "n"]
    assert [row["seed"] for row in rows if row["method"] == "rl2"] == ["0", "1"]
    assert {row["metric"] for row in rows} == {"return"}
    assert "± " in (swept / "out" / "table.md").read_text()
    with open(swept / "out" / "curves.csv") as file:
        curves = list(csv.DictReader(file))
    assert [(row["seed"], row["iteration"]) for row in curves] == [
        ("0", "1"),
        ("0", "2"),
        ("1", "1"),
        ("1", "2"),
    ]
    assert curves[1]["env_steps"] == "120" and "return" in curves[1]
    assert (swept / "out" / "curves.png").exists()


def test_again_does_nothing_and_other_settings_only_evaluate(swept):
    before = stamps(swept)
    sweep.sweep(words(swept), Comm())
    assert stamps(swept) == before
    sweep.sweep(words(swept, evaluate="--instances 6"), Comm())
    after = stamps(swept)
    assert {row["n"] for row in table(swept)} == {"6"}
    changed = {path.name for path in after if after[path] != before[path]}
    assert after.keys() == before.keys() and changed == {"evaluation.json"}


def test_redrawn_from_the_csv_files_alone(swept, tmp_path):
    for name in ("table.csv", "curves.csv"):
        (tmp_path / name).write_bytes((swept / "out" / name).read_bytes())
    sweep.sweep(["--redraw", str(tmp_path)], Comm())
    assert (tmp_path / "table.md").read_bytes() == (swept / "out" / "table.md").read_bytes()
    assert (tmp_path / "curves.png").exists()


KILLED = """
import os, signal
from experiments import sweep
from mpi_utils.comm import guard
from rl2.learner import Learner
inner = Learner.train_iteration
def dies(self, i):
    if (self.config.seed, i) == (1, 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(self, i)
Learner.train_iteration = dies
guard(sweep.main)
"""


@pytest.mark.slow
def test_a_killed_sweep_continues_to_the_same_end(swept, tmp_path):
    result = subprocess.run([sys.executable, "-c", KILLED, *words(tmp_path)], cwd=ROOT, capture_output=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert checkpoint.load(checkpoint.newest_valid(tmp_path / "runs" / "seed-1")[0])[0] == 1
    first = stamps(tmp_path)
    sweep.sweep(words(tmp_path), Comm())
    assert saves(tmp_path) == saves(swept)
    assert first.items() <= stamps(tmp_path).items(), "what was done was done again"
    assert len({row["seed"] for row in table(tmp_path)}) == 2


def test_a_run_that_another_process_holds_is_left_to_it(tmp_path, capsys):
    with run_folder.lock(tmp_path / "runs" / "seed-0"):
        sweep.sweep(words(tmp_path), Comm())
        told = capsys.readouterr().out
        assert "1 of 2 experiments" in told and "elsewhere: seed-0" in told
        assert {row["seed"] for row in table(tmp_path)} == {"1"}
    sweep.sweep(words(tmp_path), Comm())
    assert "2 of 2 experiments" in capsys.readouterr().out
    assert {row["seed"] for row in table(tmp_path)} == {"0", "1"}


@pytest.mark.slow
def test_two_processes_share_the_runs(tmp_path):
    seeds = range(4)
    command = [
        sys.executable,
        "-m",
        "experiments.sweep",
        *words(tmp_path, [f"seed={','.join(map(str, seeds))}"]),
    ]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": ROOT}
    both = [subprocess.Popen(command, **options) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    trained = [line for output in outputs for line in output.splitlines() if line.startswith("training")]
    assert sorted(trained) == [f"training {tmp_path / 'runs' / f'seed-{seed}'}" for seed in seeds]
    assert {row["seed"] for row in table(tmp_path)} == set(map(str, seeds))


@pytest.mark.mpi
def test_ranks_train_each_run_together(swept, tmp_path):
    result = mpirun(2, "-m", "experiments.sweep", *words(tmp_path, ["seed=0"]))
    assert result.code == 0 and "1 of 1 experiments" in result.output, result.output
    assert result.output.count("training") == 1
    assert saves(tmp_path).keys() == {"seed-0"} and table(tmp_path)[0]["method"] == "rl2"


BAD = {
    "one run of many": (["num_epochs=1,0"], TINY, "num_epochs-0: .* greater than 0"),
    "unknown field": (["sed=0,1"], TINY, "sed"),
    "twice": (["seed=0", "max_iters=1,2"], TINY, "max_iters"),
    "same value": (["seed=0,0"], TINY, "each value once"),
    "same folder": (["environment=a:b,a/b"], TINY[4:], "share a folder"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_is_told_in_one_line_before_any_work(tmp_path, mistake):
    over, flags, named = BAD[mistake]
    with pytest.raises(UserError, match=named) as error:
        sweep.sweep(words(tmp_path, over, flags=flags), Comm())
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_more_policies_than_agents_is_refused(tmp_path):
    where = ["--runs", str(tmp_path / "runs"), "--table", str(tmp_path / "out")]
    words = ["rmdp", "--over", "num_policies=1,5", *where, "--", "--num_agents", "3"]
    with pytest.raises(UserError, match="num_policies-5: .*more policies than the 3 agents"):
        sweep.sweep(words, Comm())
    assert not list(tmp_path.iterdir())


def test_a_folder_of_another_experiment_is_refused_before_any_work(swept, tmp_path):
    before = stamps(swept)
    with pytest.raises(UserError, match="num_features: 8 -> 9"):
        sweep.sweep(words(swept, ["seed=2,1"], flags=[*TINY, "--num_features", "9"]), Comm())
    assert stamps(swept) == before and not (swept / "runs" / "seed-2").exists()


def test_an_evaluation_of_an_older_save_does_not_count(swept):
    settings = sweep.Settings(over=("seed=0",), runs=str(swept / "runs"), table="-")
    ((config, _),) = sweep.configurations("rl2", settings, TINY, Comm())
    ((longer, _),) = sweep.configurations("rl2", settings, [*TINY, "--max_iters", "3"], Comm())

    def result(config, instances):
        return sweep.training_run("rl2", config, Settings(instances=instances), Comm()).result()

    assert result(config, 5) is None and result(config, 6) is not None
    assert result(longer, 6) is None


def test_ship_keeps_what_evaluation_needs(tmp_path):
    policy, targets = {"weight": torch.ones(2)}, torch.arange(3.0)
    state = {"policy": policy, "agents": {"target": targets}, "assignment": {}, "optimiser": policy}
    checkpoint.save(tmp_path / "run", 500, state)
    run_folder.write_config(tmp_path / "run", {"system": "rmdp", "model_name": "run"})
    rows = [f"{i},{10 * i},{i / 3},1,2" for i in range(1, 501)]
    header = "iteration,train/env_steps,train/return,time/collect_s,time/update_s"
    (tmp_path / "run" / "metrics.csv").write_text("\n".join([header, *rows]) + "\n")
    assert ship(tmp_path / "run", tmp_path / "shipped") == 500
    _, kept = checkpoint.load(checkpoint.newest_valid(tmp_path / "shipped")[0])
    assert kept.keys() == {"policy", "agents", "assignment"} and (kept["agents"]["target"] == targets).all()
    assert run_folder.read_config(tmp_path / "shipped")["model_name"] == "shipped"
    with open(tmp_path / "shipped" / "curve.csv") as file:
        curve = list(csv.DictReader(file))
    assert len(curve) == 200 and curve[0]["iteration"] == "1"
    assert curve[-1] == {"iteration": "500", "env_steps": "5000", "minutes": "25.0", "return": "166.667"}
