"""The arrows of the house: who may import whom, and what no file may do."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SYSTEMS = {"rl2", "rmdp", "persim", "caml"}
SHARED = {"common", "envs", "mpi_utils"}
ALLOWED = {
    "train": SYSTEMS | SHARED,
    "evaluate": SYSTEMS | SHARED | {"train", "comparison"},
    "comparison": SYSTEMS | SHARED | {"experiments"},  # the one place where the four meet
    "benchmarks": SYSTEMS | SHARED | {"train", "experiments"},
    "experiments": SYSTEMS | SHARED | {"train", "evaluate"},
    "envs": set(),
    "mpi_utils": {"common"},
    "common": set(),
    **{system: SHARED for system in SYSTEMS},
}
OURS = SYSTEMS | SHARED | {"train", "evaluate", "benchmarks", "experiments", "comparison", "tests"}
FILES = [
    path
    for place in (
        "train.py",
        "evaluate.py",
        "benchmarks",
        "experiments",
        "comparison",
        "envs",
        "mpi_utils",
        "common",
        *SYSTEMS,
    )
    for path in ([ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py")))
]


def imports(path: Path) -> set[str]:
    """Top-level names that a file imports, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module.split(".")[0])
    return found


def test_there_is_something_to_check():
    assert len(FILES) > 15


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    home = path.relative_to(ROOT).parts[0].removesuffix(".py")
    named = imports(path)
    assert named & OURS <= ALLOWED[home] | {home}
    if home != "mpi_utils":
        assert "mpi4py" not in named, "only mpi_utils imports mpi4py"
    if home == "envs":
        assert "torch" not in named, "envs are plain NumPy"


FORBIDDEN = re.compile(
    r"pickle\.loads?\(|torch\.load\(|allow_pickle=True|\beval\(|\bexec\(|shell=True|yaml\.load\(|tempfile\.mktemp\("
    r"|except:\s*$"
)
# Messages between ranks of one job, serialised by ourselves moments before; never bytes from a file.
FROM_RANK_TO_RANK = {"mpi_utils/comm.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_file_can_run_what_it_reads(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if FORBIDDEN.search(re.sub(r"\.eval\(\)", "", line)):
            assert str(path.relative_to(ROOT)) in FROM_RANK_TO_RANK and "loads(" in line, f"{number}: {line}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_global_generators_are_never_used(path):
    text = path.read_text()
    legacy = re.findall(
        r"np\.random\.(?!default_rng|Generator|RandomState|SeedSequence|PCG64|Philox|BitGenerator)\w+", text
    )
    assert not legacy
    for match in re.finditer(r"torch\.manual_seed", text):  # only inside a forked generator
        assert "fork_rng" in text[max(0, match.start() - 200) : match.start()]
