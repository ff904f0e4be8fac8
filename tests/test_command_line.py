"""The real commands under the real mpirun, with tiny settings."""

import csv
import json
import shutil
import signal
import time

import pytest

from common.runs import checkpoint
from tests.helpers import runs
from tests.helpers.launch import Job, command

TINY = [
    *"--checkpoint_interval 1 --learning_rate 2e-3 --learning_rate_final 2e-3".split(),
    # constant rates, for schedules stretch over max_iters, which the tests change
    *"--entropy_coef 0.01 --entropy_coef_final 0.01".split(),
]


def train(num_ranks, folder, *flags, name="tiny", **options):
    where = ["--checkpoint_dir", folder, "--model_name", name]
    return command(num_ranks, "train", "rl2", *runs.tiny("rl2", *TINY, *where, *flags), **options)


def finished(result, code=0):
    assert result.code == code, result.output
    assert code == 0 or "Traceback" not in result.output, result.output
    return result


def newest(folder, name="tiny"):
    path, skipped = checkpoint.newest_valid(folder / name)
    assert not skipped
    return checkpoint.load(path)


def rows(folder, name="tiny"):
    with open(folder / name / "metrics.csv") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """A run of 3 iterations at 2 ranks, which other tests continue or compare with."""
    folder = tmp_path_factory.mktemp("two")
    finished(train(2, folder, "--max_iters", 3))
    return folder


@pytest.mark.promise("C1 resumed bit for bit")
@pytest.mark.parametrize(
    "num_ranks", [1, pytest.param(2, marks=pytest.mark.mpi), pytest.param(3, marks=pytest.mark.mpi)]
)
def test_the_same_command_resumes_bit_for_bit(tmp_path, num_ranks):
    finished(train(num_ranks, tmp_path, "--max_iters", 3, name="whole"))
    for end in (1, 3):
        done = finished(train(num_ranks, tmp_path, "--max_iters", end, name="parts"))
        assert "train/return" in done.output
    assert [row["iteration"] for row in rows(tmp_path, "parts")] == ["1", "2", "3"]
    assert not runs.differing(newest(tmp_path, "whole")[1], newest(tmp_path, "parts")[1])


@pytest.mark.mpi
@pytest.mark.promise("C2 other number of ranks")
@pytest.mark.parametrize("num_ranks", [1, 3])
def test_another_number_of_ranks_continues_with_the_same_experiment(two_ranks, tmp_path, num_ranks):
    finished(train(num_ranks, tmp_path, "--max_iters", 3, name="alone"))
    for mine, theirs in zip(rows(tmp_path, "alone"), rows(two_ranks), strict=True):
        for column in ("train/return", "loss/policy", "loss/value", "ppo/kl", "train/return_episode_02"):
            assert float(mine[column]) == pytest.approx(float(theirs[column]), rel=1e-3, abs=1e-6), column
    shutil.copytree(two_ranks / "tiny", tmp_path / "tiny")
    finished(train(num_ranks, tmp_path, "--max_iters", 4))
    assert newest(tmp_path)[0] == 4 and len(rows(tmp_path)) == 4


@pytest.mark.mpi
@pytest.mark.promise("D3 shares of any size")
def test_more_ranks_than_work(tmp_path):
    flags = [
        "--meta_episodes_per_policy_update",
        4,
        "--meta_episodes_per_learner_batch",
        2,
        "--max_iters",
        1,
    ]
    finished(train(3, tmp_path, *flags, name="three"))
    finished(train(1, tmp_path, *flags, name="one"))
    assert float(rows(tmp_path, "three")[0]["train/return"]) == pytest.approx(
        float(rows(tmp_path, "one")[0]["train/return"]), rel=1e-6
    )


@pytest.mark.mpi
@pytest.mark.parametrize("architecture", ["gru", "snail", "transformer"])
def test_every_architecture_trains_evaluates_and_continues(tmp_path, architecture):
    flags = ["--architecture", architecture, "--environment", "bandit", "--shared_network", "False"]
    finished(train(2, tmp_path, *flags, "--max_iters", 1))
    finished(train(1, tmp_path, *flags, "--max_iters", 2))
    result = finished(
        command(1, "evaluate", tmp_path / "tiny", "--instances", 7, "--json", tmp_path / "out.json")
    )
    assert "gittins" in result.output
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["config"]["architecture"] == architecture
    total = next(r for r in report["rows"] if r["method"] == "rl2" and r["metric"] == "return")
    assert total["n"] == 7 and 0 <= total["mean"] <= 10


@pytest.mark.mpi
@pytest.mark.promise("F3 user code runs only where it is named")
@pytest.mark.parametrize("factory", ["cart_pole_family", "point_family"])
def test_a_users_own_environment(tmp_path, factory):
    environment = ["--environment", f"envs.examples:{factory}"]
    finished(train(2, tmp_path, *environment, "--max_iters", 1))
    asked = command(1, "evaluate", tmp_path / "tiny", "--instances", 3)
    assert finished(asked, 2).output.count("\n") == 1 and "--environment" in asked.output
    result = finished(command(1, "evaluate", tmp_path / "tiny", "--instances", 3, *environment))
    assert "rl2" in result.output


@pytest.mark.mpi
def test_warm_start_imitates_then_turns_to_ppo(tmp_path):
    flags = ["--warm_start", "bayes_greedy", "--warm_start_iters", 1, "--max_iters", 2]
    finished(train(2, tmp_path, *flags))
    imitation, ppo = rows(tmp_path)
    assert float(imitation["loss/policy"]) == pytest.approx(
        0.69, abs=0.02
    )  # cross-entropy of two equal actions
    assert float(imitation["ppo/kl"]) == 0 and float(ppo["ppo/kl"]) > 0


@pytest.mark.mpi
def test_evaluation_does_not_depend_on_ranks_and_changes_nothing(two_ranks, tmp_path):
    before = {p: p.read_bytes() for p in two_ranks.rglob("*") if p.is_file()}
    reports = []
    for num_ranks in (1, 3):
        path, plot = tmp_path / f"{num_ranks}.json", tmp_path / f"{num_ranks}.png"
        flags = ["--instances", 250, "--json", path, "--plot", plot]
        finished(command(num_ranks, "evaluate", two_ranks / "tiny", *flags))
        reports.append(json.loads(path.read_text()))
        assert plot.read_bytes().startswith(b"\x89PNG")
    assert reports[0] == reports[1]
    methods = {row["method"] for row in reports[0]["rows"]}
    assert {"rl2", "random", "psrl", "opsrl", "ucrl2", "beb", "epsilon_greedy", "greedy", "oracle"} <= methods
    assert before == {p: p.read_bytes() for p in two_ranks.rglob("*") if p.is_file()}


BAD = {
    "unknown flag": (["--num_sates", "3"], "num_sates"),
    "zero": (["--num_states", "0"], "num_states"),
    "negative": (["--ppo_opt_epochs", "-1"], "num_epochs"),
    "not a number": (["--adam_lr", "nan"], "learning_rate"),
    "text": (["--num_actions", "many"], "num_actions"),
    "huge": (["--meta_episode_len", "1" + "0" * 18], "meta_episode_len"),
    "path as name": (["--model_name", "../elsewhere"], "model_name"),
    "not divisible": (["--meta_episodes_per_policy_update", "13"], "multiple"),
    "unknown environment": (["--environment", "bandits"], "bandits"),
    "unknown factory": (["--environment", "envs.examples:nothing"], "nothing"),
    "no such device": (["--device", "cuda:7"], "cuda:7"),
    "teacher without a prior": (["--warm_start", "bayes_greedy", "--environment", "bandit"], "warm_start"),
}


TOLD_ONCE = ("unknown flag", "no such device")  # also by two ranks


@pytest.mark.promise("E3 mistakes in flags")
@pytest.mark.parametrize(
    "mistake", [pytest.param(name, marks=pytest.mark.mpi if name in TOLD_ONCE else ()) for name in BAD]
)
def test_a_mistake_gets_one_line_and_code_2(tmp_path, mistake):
    flags, named = BAD[mistake]
    ranks = 2 if mistake in TOLD_ONCE else 1
    result = finished(train(ranks, tmp_path, *flags), 2)
    lines = [line for line in result.output.splitlines() if line.strip()]
    assert len(lines) == 1 and named in lines[0], result.output
    assert not list(tmp_path.rglob("step_*"))


@pytest.mark.mpi
def test_help(tmp_path):
    assert "rl2" in finished(command(1, "train", "--help")).output
    result = finished(command(2, "train", "rl2", "--help"))
    assert result.output.count("--meta_episodes_per_policy_update") == 1
    short = finished(command(1, "evaluate", "--help")).output
    assert "compare" in short and "--video" in short and short.count("\n") < 20
    page = finished(command(2, "evaluate", "rl2", "--help")).output
    assert page.count("--instances") == 1 and "--certify" not in page


@pytest.mark.promise("B8 folders that cannot be written")
def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "tiny").write_text("in the way")
    assert str(tmp_path / "tiny") in finished(train(1, tmp_path, "--max_iters", 1), 2).output
    assert (tmp_path / "tiny").read_text() == "in the way"


@pytest.mark.mpi
@pytest.mark.promise("C5 other settings, formats, data refused")
def test_another_experiment_in_the_folder_is_refused_field_by_field(two_ranks):
    before = (two_ranks / "tiny" / "config.json").read_bytes()
    result = finished(train(2, two_ranks, "--max_iters", 9, "--num_states", 4, "--seed", 5), 2)
    assert "num_states: 3 -> 4" in result.output and "seed: 0 -> 5" in result.output
    assert (two_ranks / "tiny" / "config.json").read_bytes() == before


@pytest.mark.mpi
def test_a_damaged_newest_save_falls_back(tmp_path):
    finished(train(1, tmp_path, "--max_iters", 2))
    damaged = tmp_path / "tiny" / "step_00000002" / "tensors.safetensors"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    result = finished(train(2, tmp_path, "--max_iters", 3))
    assert result.output.count("step_00000002") == 1 and "skipped" in result.output
    assert newest(tmp_path)[0] == 3 and [r["iteration"] for r in rows(tmp_path)] == ["1", "2", "3"]
    named = finished(command(1, "evaluate", tmp_path / "tiny" / "step_00000001", "--instances", 2))
    assert "iteration 1" in named.output


def test_a_hostile_pickle_is_refused_and_not_executed(tmp_path):
    finished(train(1, tmp_path, "--max_iters", 1))
    canary = tmp_path / "canary"
    hostile = f"cposix\nsystem\n(S'touch {canary}'\ntR.".encode()
    for name in ("tensors.safetensors", "state.json", "manifest.json"):
        (tmp_path / "tiny" / "step_00000001" / name).write_bytes(hostile)
    finished(train(1, tmp_path, "--max_iters", 2), 2)
    finished(command(1, "evaluate", tmp_path / "tiny", "--instances", 2), 2)
    assert not canary.exists()


@pytest.mark.mpi
def test_a_second_writer_is_refused(tmp_path):
    job = Job(
        1,
        "-m",
        "train",
        *TINY,
        "--checkpoint_dir",
        tmp_path,
        "--model_name",
        "tiny",
        "--max_iters",
        10**6,
    )
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "tiny" / "metrics.csv").exists():
            assert time.monotonic() < deadline, "the first run did not start"
            time.sleep(0.05)
        result = finished(train(1, tmp_path, "--max_iters", 10**6), 2)
        assert "in use by process" in result.output
        job.signal(signal.SIGUSR1)  # asks for a save and an end
        assert "saved after iteration" in job.wait(30).output
    finally:
        job.kill()


def test_nothing_given_to_evaluate(tmp_path):
    assert "no run given" in finished(command(1, "evaluate"), 2).output
    result = finished(command(1, "evaluate", tmp_path / "absent"), 2)
    assert result.output.count("absent") == 1
