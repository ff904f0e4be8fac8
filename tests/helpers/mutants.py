"""Sabotages of the safety code, each of which must fail a test:  python -m tests.helpers.mutants [WORD ...]

Each changes one small pattern in one function, in a copy of the project in a temporary folder, where then
only the tests named for it run. Prints a line each; exit code 1 if one survives, or if its tests fail
without it. WORDs choose the mutants whose name holds one of them.
"""

import ast
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.helpers.launch import ROOT

LEFT_OUT = shutil.ignore_patterns(
    *(".*", "__pycache__", "checkpoints", "results", "shared", "*.egg-info", "build")
)
SAVES, DAMAGE = "tests/common/runs/test_checkpoint.py", "tests/common/runs/test_damage.py"
RANKS, FOLDER = "tests/mpi_utils/test_mpi.py", "tests/common/runs/test_run_folder.py"
LOOP = "tests/mpi_utils/test_loop.py"


class Mutant(NamedTuple):
    """In `function` of `file` the pattern `old` becomes `new`, and one of `tests` must fail.

    Patterns are matched with the function as `ast.unparse` writes it: on one line a statement, with single
    quotes, without comments.
    """

    name: str
    file: str
    function: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant(
        "no fsync",
        *("common/runs/files.py", "sync", r"os\.fsync\(\w+\)", "None"),
        f"{SAVES}::test_everything_is_synced_before_the_rename_and_the_parent_after_it",
    ),
    Mutant(
        "saves written in place",
        *("common/runs/checkpoint.py", "save", r"'\.\{target\.name\}\.tmp'", "'{target.name}.old'"),
        f"{SAVES}::test_killed_at_any_file_operation_leaves_the_old_or_the_new_save",
    ),
    Mutant(
        "contents not compared with the manifest",
        *("common/runs/checkpoint.py", "_verified", r"if hashlib\.sha256.* != .*:", "if False:"),
        f"{DAMAGE}::test_every_flipped_bit",
    ),
    Mutant(
        "damaged saves used",
        *("common/runs/checkpoint.py", "newest_valid", r"if not reason:", "if True:"),
        LOOP,
    ),
    Mutant(
        "links followed",
        *("common/runs/files.py", "read_regular", r"os\.O_NOFOLLOW \| ", ""),
        f"{DAMAGE}::test_cut_missing_or_replaced_files",
    ),
    Mutant(
        "the last good save pruned",
        *("common/runs/checkpoint.py", "prune", r", newest\]", "]"),
        f"{SAVES}::test_prune_keeps_the_newest_ones_and_always_a_valid_one",
    ),
    Mutant(
        "what is not finite saved",
        *("mpi_utils/loop.py", "_save", r"first_not_finite\(\w+\)", "None"),
        f"{LOOP}::test_what_is_not_finite_is_not_saved",
    ),
    Mutant(
        "errors not shared",
        *("mpi_utils/comm.py", "agree", r"if codes\.any\(\)", "if codes[self.rank]"),
        f"{RANKS}::test_ranks_end_together[agreed-2-/no/such/file: No such file or directory]",
    ),
    Mutant(
        "weights by ranks, not by counts",
        *("mpi_utils/sync.py", "average", r"_sum\(weight, ", "_sum(float(weight > 0), "),
        f"{RANKS}::test_learning[2]",
    ),
    Mutant(
        "gradients not looked at",
        *("mpi_utils/sync.py", "_sum", r"if flags\.any\(\)", "if False"),
        f"{RANKS}::test_learning[2]",
    ),
    Mutant(
        "ranks not compared",
        *("mpi_utils/sync.py", "_deviating", r"digest != usual for", "False for"),
        f"{RANKS}::test_learning[2]",
    ),
    Mutant(
        "no lock",
        *("common/runs/run_folder.py", "lock", r"fcntl\.flock\(.*\)", "None"),
        f"{FOLDER}::test_the_second_writer_is_told_who_holds_the_folder",
    ),
    Mutant(
        "other settings accepted",
        *("train.py", "describe", r"[\w.]*config_differences\(.*\)(?=\):)", "None"),
        "tests/test_promises.py::test_other_settings_are_refused",
    ),
    Mutant(
        "rows twice after a resume",
        *("common/runs/logger.py", "_open_table", r" if i <= start\]", "]"),
        "tests/common/runs/test_logger.py::test_a_resumed_table_has_no_gap_and_no_duplicate",
    ),
    Mutant(
        "what is waited for is not told",
        *("mpi_utils/watchdog.py", "_watch", r"stalled > self\.limit\(\) \+ .*:", "False:"),
        "tests/mpi_utils/test_watchdog.py::test_a_rank_alone_is_ended",
    ),
]


def mutated(mutant: Mutant, root: Path = ROOT) -> str:
    """The file's code with the sabotage; ValueError unless its pattern is there exactly once."""
    module = ast.parse((root / mutant.file).read_text())
    places = 0
    for parent in ast.walk(module):
        for child in ast.iter_child_nodes(parent):
            if isinstance(child, ast.FunctionDef) and child.name == mutant.function:
                text, count = re.subn(mutant.old, mutant.new, ast.unparse(child))
                places += count
                if count:
                    parent.body[parent.body.index(child)] = ast.parse(text).body[0]
    if places != 1:
        raise ValueError(f"{mutant.name}: in {mutant.file} its pattern is there {places} times")
    return ast.unparse(module)


def run_tests(folder: Path, tests: list[str]) -> tuple[int, list[str]]:
    """pytest's exit code and the tests that failed."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-m", "not nightly", "--tb=no", "-rfE"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    failed = [
        line.split(" - ")[0] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR "))
    ]
    return done.returncode, failed


def main(words: list[str]) -> list[str]:
    """Run all or the chosen mutants; returns the names of those that survive."""
    chosen = [m for m in MUTANTS if not words or any(word in m.name for word in words)]
    survivors = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "copy"
        shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
        code, failed = run_tests(folder, sorted({m.tests for m in chosen}))
        if code:
            print(f"without any mutant pytest gave {code}: {', '.join(failed)}")
            return [m.name for m in chosen]
        print("| mutant | killed by | s |\n|---|---|---|")
        for mutant in chosen:
            path, began = folder / mutant.file, time.monotonic()
            before = path.read_text()
            path.write_text(mutated(mutant, folder))
            code, failed = run_tests(folder, [mutant.tests])
            path.write_text(before)
            killed = code == 1 and failed
            survivors += [] if killed else [mutant.name]
            by = failed[0].split(" ", 1)[1] if killed else f"NOTHING (pytest gave {code})"
            print(f"| {mutant.name} | {by} | {time.monotonic() - began:.0f} |", flush=True)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    return survivors


if __name__ == "__main__":
    sys.exit(int(bool(main(sys.argv[1:]))))
