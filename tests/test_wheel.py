"""The wheel holds all that the code reads, and works in an environment and a folder of its own."""

import json
import re
import tomllib

import pytest

from envs.gym_family import OURS
from tests.helpers import runs, wheel
from tests.helpers.launch import ROOT
from tests.helpers.source import FILES, PLACES

SHIPPED = "common/shipped"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Files that ask where they are, none to read what lies beside it: to import ours before a user's, to tell
# ours from a user's in a stack, to start programs of a checkout.
ASK_WHERE = {
    *("train.py", "evaluate.py", "common/shipped/__init__.py"),
    *("envs/gym_family.py", "envs/parameters.py", "mpi_utils/collective_check.py"),
    *("benchmarks/reading.py", "benchmarks/threads.py", "benchmarks/unchanged.py"),
}


@pytest.fixture(scope="module")
def files():
    return wheel.listed_files()


def test_all_code_is_in_the_wheel(files):
    code = {str(path.relative_to(ROOT)) for path in FILES}
    assert code == {name for name in files if name.endswith(".py")}
    others = {
        str(path.relative_to(ROOT))
        for place in PLACES
        for path in (ROOT / place).rglob("*.*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert others <= files


def test_shipped_files_are_in_the_wheel(files):
    """Each save, setting and curve, and whatever else a `shipped("...")` of the code names."""
    named = {"checkpoints/behaviour", "checkpoints/examples"}
    for path in FILES:
        named |= set(re.findall(r'shipped\("([^"]+)"\)', path.read_text()))
    assert "results/diabetes/gains.json" in named
    for name in named:
        patterns = ("step_*/*", "config.json", "curve.csv")
        inside = [path for pattern in patterns for path in (ROOT / name).rglob(pattern)]
        wanted = inside if (ROOT / name).is_dir() else [ROOT / name]
        assert wanted
        assert not [path for path in wanted if f"{SHIPPED}/{path.relative_to(ROOT)}" not in files]
    extra = [name for name in files if name.startswith(SHIPPED) and re.search(r"/(evaluation|\.)", name)]
    assert not extra


def test_no_file_is_read_beside_the_code_but_by_shipped():
    asking = {str(path.relative_to(ROOT)) for path in FILES if "__file__" in path.read_text()}
    assert asking == ASK_WHERE


def test_names_of_ours_are_all_that_is_installed(files):
    assert OURS == set(PLACES) == {name.partition("/")[0].removesuffix(".py") for name in files}


def test_the_version_stands_in_one_place():
    """Pages that name it name this one."""
    for name in ("CHANGELOG.md", "README.md", "CITATION.cff"):
        text = (ROOT / name).read_text()
        assert set(re.findall(r"\b\d+\.\d+\.\d+\b", text)) <= {PROJECT["version"], "0.2.2", "1.2.0"}, name
    assert "MIT" in (ROOT / "README.md").read_text() and PROJECT["license"] == "MIT"


def test_containers_copy_what_a_wheel_is_built_of():
    places = {name if (ROOT / name).is_dir() else f"{name}.py" for name in PLACES}
    shipped = {"checkpoints/behaviour", "checkpoints/examples", "results/diabetes/gains.json"}
    wanted = places | shipped | {"LICENSE", "README.md", "pyproject.toml", "setup.py"}
    ignored = (ROOT / "containers/Dockerfile.dockerignore").read_text()
    assert set(re.findall(r"^!(.+)$", ignored, re.M)) == wanted
    copied = re.findall(r"^ +(\S+) /source/(\S*)$", (ROOT / "containers/apptainer.def").read_text(), re.M)
    assert {name for name, _ in copied} == wanted
    assert all(name.rpartition("/")[0] == folder.rstrip("/") for name, folder in copied)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    return wheel.Installed(wheel.build(folder), folder)


def there(installed) -> set[str]:
    return {str(path.relative_to(installed.here)) for path in installed.here.rglob("*") if path.is_file()}


def held(installed) -> set[str]:
    return {str(path) for path in installed.packages.rglob("*.*") if path.suffix != ".pyc"}


@pytest.mark.nightly
@pytest.mark.parametrize("system", runs.TINY)
def test_an_installed_system_trains(system, installed):
    words = [system, *runs.tiny(system, "--max_iters", 1), "--model_name", system]
    installed.run("pmrl-train", *words)
    assert f"checkpoints/{system}/step_00000001/manifest.json" in there(installed)


@pytest.mark.nightly
@pytest.mark.parametrize("dataset", ["random", "pure_eps_20"])
def test_installed_behaviour_policies_make_a_dataset(dataset, installed):
    sizes = "--num_agents 6 --num_models 2 --state_features 8 --max_iters 1"
    words = ["persim", "--environment", "cart_pole", *sizes.split()]
    installed.run("pmrl-train", *words, "--dataset", dataset, "--model_name", dataset)
    assert f"checkpoints/{dataset}/step_00000001/manifest.json" in there(installed)


@pytest.mark.nightly
def test_a_shipped_model_is_evaluated_and_stays_as_it_is(installed):
    before = there(installed) | held(installed)
    name = "checkpoints/examples/mdp_n10"
    assert "oracle" in installed.run("pmrl-evaluate", name, "--instances", 50)
    assert "oracle" in installed.run("python", "-m", "evaluate", name, "--instances", 50)
    assert before == there(installed) | held(installed)
    installed.run("pmrl-evaluate", name, "--instances", 50, "--json", "rows.json")
    assert json.loads((installed.here / "rows.json").read_text())["run"] == name
    code = f"import rl2; print(rl2.__file__); rl2.load('{name}').reset(2)"
    assert installed.run("python", "-c", code).startswith(str(installed.packages))
    said = installed.run("pmrl-evaluate", "checkpoints/examples/nothing", code=2)
    assert str(installed.packages / SHIPPED / "checkpoints/examples") in said


@pytest.mark.nightly
def test_installed_gains_are_read(installed):
    code = "from experiments.diabetes import GAINS, read_gains; print(len(read_gains(GAINS, 'published')))"
    assert int(installed.run("python", "-c", code)) > 0


@pytest.mark.nightly
@pytest.mark.mpi
def test_an_installed_command_trains_on_a_users_own_module(installed):
    """Which lies in the working directory, and is imported by both ranks."""
    own = (ROOT / "envs/examples.py").read_text()
    (installed.here / "my_tasks.py").write_text(own)
    flags = "--meta_episodes_per_policy_update 8 --meta_episodes_per_learner_batch 4 --max_iters 1"
    words = ["rl2", "--environment", "my_tasks:point_family", "--meta_episode_len", 20, *flags.split()]
    assert "2 ranks" in installed.run("pmrl-train", *words, "--model_name", "own", ranks=2)
    assert "checkpoints/own/step_00000001/manifest.json" in there(installed)
