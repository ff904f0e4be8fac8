"""A command that is refused leaves nothing behind: what its message advises works at once."""

import json

import pytest

from common.config import check_outputs
from common.errors import UserError
from common.runs import checkpoint, run_folder
from comparison.config import parse_settings as compare
from experiments import learning_curves, persim_tables, sweep
from mpi_utils.comm import Comm
from tests.helpers import runs
from tests.helpers.launch import command

LOG = "agent,time,state.x,action,reward\n" + "".join(
    f"{agent},{t},{agent + 0.1 * t + 0.01 * t * t},{'up' if t % 2 else 'down'},0\n"
    for agent in range(3)
    for t in range(30)
)
UNKNOWN = "--environment unknown --dataset"
# By case: the system, flags that are refused, a word of the message, and what it advises instead.
REFUSED = {
    "environment": ("rl2", "--environment envs.examples:nothing", "nothing", ""),
    "device": ("rl2", "--device cuda:7", "cuda:7", "--device cpu"),
    "population": ("rmdp", "--population agents.npz", "agents.npz", ""),
    "dynamics": ("rmdp", "--environment envs.examples:nothing", "nothing", ""),
    "columns": ("persim", f"{UNKNOWN} bad.csv", "bad.csv", f"{UNKNOWN} good.csv --num_factors 2"),
    "kind": (
        "persim",
        f"{UNKNOWN} whole.csv --num_factors 2",
        "--action_kind",
        f"{UNKNOWN} whole.csv --num_factors 2 --action_kind discrete",
    ),
    "factors": (
        "persim",
        f"{UNKNOWN} good.csv --num_factors 4",
        "fewer",
        f"{UNKNOWN} good.csv --num_factors 3",
    ),
    "agents": ("caml", "--environment envs.examples:nothing", "nothing", ""),
}
TOLD_BY_TWO = ("device", "factors")


@pytest.mark.parametrize(
    "case, ranks",
    [(case, 1) for case in REFUSED] + [pytest.param(c, 2, marks=pytest.mark.mpi) for c in TOLD_BY_TWO],
)
def test_a_refused_training_leaves_nothing_and_its_advice_works_at_once(tmp_path, case, ranks):
    (tmp_path / "good.csv").write_text(LOG)
    (tmp_path / "bad.csv").write_text(LOG.replace("time", "when"))
    (tmp_path / "whole.csv").write_text(LOG.replace("up", "1").replace("down", "0"))
    system, wrong, word, right = REFUSED[case]

    def train(text):
        words = [f"{tmp_path}/{word}" if word.endswith(".csv") else word for word in text.split()]
        words += ["--max_iters", 1]
        return command(ranks, "train", *runs.flags(system, tmp_path / "new" / "runs", "run", *words))

    refused = train(wrong)
    assert refused.code == 2 and word in refused.output and "Traceback" not in refused.output
    assert not (tmp_path / "new").exists()
    advised = train(right)
    assert advised.code == 0, advised.output
    assert (tmp_path / "new" / "runs" / "run" / "step_00000001").is_dir()


def test_the_same_data_elsewhere_continue_and_other_data_leave_the_settings_of_a_run_as_they_were(tmp_path):
    (tmp_path / "log.csv").write_text(LOG)
    data = ["--environment", "unknown", "--dataset", tmp_path / "log.csv", "--num_factors", 2]
    train = ["train", *runs.flags("persim", tmp_path, "run", *data), "--max_iters"]
    assert command(1, *train, 1).code == 0
    (tmp_path / "moved.csv").write_text(LOG.replace(",", ";"))
    moved = [word.replace("log.csv", "moved.csv") for word in train]
    done = command(1, *moved, 1, "--columns", "agent=agent")
    assert done.code == 0 and "finished" in done.output, done.output
    assert command(1, *train, 1).code == 0  # and as it was
    before = (tmp_path / "run" / "config.json").read_bytes()
    (tmp_path / "log.csv").write_text(LOG.replace("0.0,", "0.5,"))
    refused = command(1, *train, 2)
    assert refused.code == 2 and "not those that the run began with" in refused.output
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_the_same_data_elsewhere_are_the_same_data(tmp_path):
    (tmp_path / "log.csv").write_text(LOG)
    data = ["--environment", "unknown", "--num_factors", 2]
    train = ["train", *runs.flags("persim", tmp_path, "run", *data)]
    assert command(1, *train, "--dataset", tmp_path / "log.csv", "--max_iters", 1).code == 0
    (tmp_path / "log.csv").rename(tmp_path / "moved.csv")
    moved = command(1, *train, "--dataset", tmp_path / "moved.csv", "--max_iters", 2)
    assert moved.code == 0 and (tmp_path / "run" / "step_00000002").is_dir(), moved.output
    other = command(1, *train, "--dataset", tmp_path / "moved.csv", "--num_models", 3, "--max_iters", 3)
    assert other.code == 2 and "num_models: " in other.output and "dataset" not in other.output


def test_a_refused_sweep_leaves_nothing(tmp_path):
    out, folder = tmp_path / "table", tmp_path / "runs"
    words = f"rl2 --over seed=0 --runs {folder} --table {out} -- --environment envs.examples:nothing".split()
    with pytest.raises(UserError, match="nothing"):
        sweep.sweep(words, Comm())
    assert not list(tmp_path.iterdir())


def test_a_lock_takes_the_folders_with_it_that_were_made_for_it(tmp_path):
    run_folder.lock(tmp_path / "new" / "run").release()
    assert not list(tmp_path.iterdir())
    with run_folder.lock(tmp_path / "new" / "run"):
        checkpoint.save(tmp_path / "new" / "run", 1, {"a": 1})
    run_folder.lock(tmp_path / "new" / "run").release()
    assert (tmp_path / "new" / "run" / "step_00000001").is_dir()


def test_a_check_makes_nothing_and_refuses_what_a_lock_would(tmp_path):
    run_folder.check(tmp_path / "new" / "run")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Not a directory"):
        run_folder.check(tmp_path / "file" / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with run_folder.lock(tmp_path / "run"), pytest.raises(run_folder.InUse):
        run_folder.check(tmp_path / "run")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one iteration."""
    folder = tmp_path_factory.mktemp("trained")
    assert command(1, "train", *runs.flags("rl2", folder, "run"), "--max_iters", 1).code == 0
    return folder / "run"


def evaluate(*words):
    return command(1, "evaluate", *words, "--instances", 2, "--opponents", "none")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--json", "/proc/version/rows.json"], "--json /proc/version/rows.json: cannot be written"),
        (["--json", "/proc"], "--json /proc: cannot be written (Is a directory)"),
        (["--plot", "figure.jpeg2"], "its ending is none of .png"),
        (["--export", "/proc/version"], "--export /proc/version"),
    ],
)
def test_outputs_are_checked_before_the_work(trained, monkeypatch, flags, told):
    monkeypatch.setattr("rl2.evaluation.evaluate", lambda *_: pytest.fail("it began to work"))
    refused = evaluate(trained, *flags)
    assert refused.code == 2 and told in refused.output


def test_other_commands_check_their_outputs_first(tmp_path, monkeypatch):
    (tmp_path / "page.html").mkdir()
    words = ["--population", "p.npz", "--out", str(tmp_path / "out"), "--page"]
    for page, told in (("page", "Is a directory"), ("page.png", "leave the ending out")):
        settings = compare([*words, str(tmp_path / page)], False)
        with pytest.raises(UserError, match=f"--page .*{page}: cannot be written .*{told}"):
            check_outputs(settings)
    (tmp_path / "file").touch()
    for module, arguments, told in (
        (learning_curves, [tmp_path / "curve.txt", tmp_path], "its ending is none of .png"),
        (learning_curves, [tmp_path / "file" / "curve.png", tmp_path], "Not a directory"),
        (persim_tables, [tmp_path, tmp_path / "file"], "Not a directory"),
    ):
        monkeypatch.setattr(module, "read", lambda _: pytest.fail("it began to work"))
        monkeypatch.setattr("sys.argv", ["program", *map(str, arguments)])
        with pytest.raises(UserError, match=told):
            module.main(Comm())


def test_folders_of_outputs_are_made_and_a_tilde_is_a_home(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    done = evaluate(trained, "--json=~/new/rows.json", "--plot=~/pictures/a.png")
    assert done.code == 0, done.output
    assert (tmp_path / "new" / "rows.json").is_file() and (tmp_path / "pictures" / "a.png").is_file()
    where = ["--checkpoint_dir=~/runs", "--model_name", "home", "--max_iters", 1]
    assert command(1, "train", *runs.flags("rl2", tmp_path, "run"), *where).code == 0
    assert (tmp_path / "runs" / "home" / "config.json").is_file()


def test_a_failed_picture_loses_no_rows(trained, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no font")

    monkeypatch.setattr("rl2.evaluation.plot", broken)
    both = evaluate(trained, trained, "--json", tmp_path / "rows.json")
    assert both.code == 2 and both.output.count("cannot be drawn (RuntimeError: no font)") == 2
    assert len(json.loads((tmp_path / "rows.json").read_text())) == 2


def test_a_save_that_is_removed_while_it_is_read_gives_way_to_a_newer_one(tmp_path, monkeypatch):
    run_folder.write_config(tmp_path, {"system": "rl2"})
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"step": step})
    found = checkpoint.newest_valid

    def meanwhile(run_dir):
        chosen = found(run_dir)
        if not (tmp_path / "step_00000003").exists():  # the run goes on between a look and the reading
            checkpoint.save(tmp_path, 3, {"step": 3})
            checkpoint.prune(tmp_path, keep=1)
        return chosen

    monkeypatch.setattr(checkpoint, "newest_valid", meanwhile)
    _, save, contents = checkpoint.find(tmp_path)
    assert save.name == "step_00000003"
    checkpoint.save(tmp_path, 4, {"step": 4})
    checkpoint.prune(tmp_path, keep=1)
    assert checkpoint.unpack(contents) == (3, {"step": 3}), "what was found is held"
