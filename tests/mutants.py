"""Sabotages of the safety code, each of which must fail a test:  python -m tests.mutants [WORD ...]

Each is one exact replacement of text, made in a copy of the project in a temporary folder, where then only
the tests named for it run. Prints a line each; exit code 1 if one survives, or if its tests fail without it.
WORDs choose the mutants whose name holds one of them.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
LEFT_OUT = shutil.ignore_patterns(
    *(".*", "__pycache__", "checkpoints", "runs", "docs", "shared", "*.egg-info", "build")
)
SAVES, DAMAGE = "tests/common/runs/test_checkpoint.py", "tests/common/runs/test_damage.py"
RANKS, FOLDER = "tests/mpi_utils/test_mpi.py", "tests/common/runs/test_run_folder.py"


class Mutant(NamedTuple):
    """In `file`, `old` (there exactly once) becomes `new`, and one of `tests` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = [
    Mutant(
        "no fsync",
        "common/runs/files.py",
        "    os.fsync(descriptor)\n",
        "    pass\n",
        f"{SAVES}::test_everything_is_synced_before_the_rename_and_the_parent_after_it",
    ),
    Mutant(
        "saves written in place",
        "common/runs/checkpoint.py",
        'temporary = run_dir / f".{target.name}.tmp"',
        'temporary = run_dir / f"{target.name}.old"',
        f"{SAVES}::test_killed_at_any_file_operation_leaves_the_old_or_the_new_save",
    ),
    Mutant(
        "contents not compared with the manifest",
        "common/runs/checkpoint.py",
        '        if hashlib.sha256(contents[name]).hexdigest() != entry["sha256"]:',
        "        if False:",
        f"{DAMAGE}::test_every_flipped_bit",
    ),
    Mutant(
        "damaged saves used",
        "common/runs/checkpoint.py",
        "        if not reason:\n",
        "        if True:\n",
        "tests/mpi_utils/test_loop.py",
    ),
    Mutant(
        "links followed",
        "common/runs/files.py",
        "os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK",
        "os.O_RDONLY | os.O_NONBLOCK",
        f"{DAMAGE}::test_cut_missing_or_replaced_files",
    ),
    Mutant(
        "the last good save pruned",
        "common/runs/checkpoint.py",
        "[: max(1, keep)], newest]",
        "[: max(1, keep)]]",
        f"{SAVES}::test_prune_keeps_the_newest_ones_and_always_a_valid_one",
    ),
    Mutant(
        "what is not finite saved",
        "mpi_utils/loop.py",
        "            if name := first_not_finite(state):",
        "            if name := None:",
        "tests/mpi_utils/test_loop.py::test_what_is_not_finite_is_not_saved",
    ),
    Mutant(
        "errors not shared",
        "mpi_utils/comm.py",
        "        if codes.any():\n",
        "        if codes[self.rank]:\n",
        f"{RANKS}::test_ranks_end_together[agreed-2-/no/such/file: No such file or directory]",
    ),
    Mutant(
        "weights by ranks, not by counts",
        "mpi_utils/sync.py",
        "sums, total = self._sum(weight, extras)",
        "sums, total = self._sum(float(weight > 0), extras)",
        f"{RANKS}::test_learning[2]",
    ),
    Mutant(
        "gradients not looked at",
        "mpi_utils/sync.py",
        "        if flags.any():\n",
        "        if False:\n",
        f"{RANKS}::test_learning[2]",
    ),
    Mutant(
        "ranks not compared",
        "mpi_utils/sync.py",
        "        if any(digest != usual for digest in column):",
        "        if False:",
        f"{RANKS}::test_learning[2]",
    ),
    Mutant(
        "no lock",
        "common/runs/run_folder.py",
        "        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "        pass\n",
        f"{FOLDER}::test_the_second_writer_is_told_who_holds_the_folder",
    ),
    Mutant(
        "other settings accepted",
        "train.py",
        "        if differences := run_folder",
        "        if False and run_folder",
        "tests/test_promises.py::test_other_settings_are_refused",
    ),
    Mutant(
        "rows twice after a resume",
        "common/runs/logger.py",
        "for i in sorted(kept) if i <= start]",
        "for i in sorted(kept)]",
        "tests/common/runs/test_logger.py::test_a_resumed_table_has_no_gap_and_no_duplicate",
    ),
    Mutant(
        "what is waited for is not told",
        "mpi_utils/watchdog.py",
        "            elif stalled > self.limit() + self.turn:\n",
        "            elif False:\n",
        "tests/mpi_utils/test_watchdog.py::test_a_rank_alone_is_ended",
    ),
]


def mutated(mutant: Mutant, root: Path = ROOT) -> str:
    """The file's text with the sabotage; ValueError unless its text is there exactly once."""
    text = (root / mutant.file).read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: in {mutant.file} its text is there {text.count(mutant.old)} times")
    return text.replace(mutant.old, mutant.new)


def run_tests(folder: Path, tests: list[str]) -> tuple[int, list[str]]:
    """pytest's exit code and the tests that failed."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-m", "not nightly", "--tb=no", "-rfE"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    failed = [
        line.split(" - ")[0] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR "))
    ]
    return done.returncode, failed


def main(words: list[str]) -> int:
    """Run all or the chosen mutants; returns how many survive."""
    chosen = [m for m in MUTANTS if not words or any(word in m.name for word in words)]
    survivors = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "copy"
        shutil.copytree(ROOT, folder, ignore=LEFT_OUT)
        code, failed = run_tests(folder, sorted({m.tests for m in chosen}))
        if code:
            print(f"without any mutant pytest gave {code}: {', '.join(failed)}")
            return 1
        print("| mutant | killed by | s |\n|---|---|---|")
        for mutant in chosen:
            path, began = folder / mutant.file, time.monotonic()
            before = path.read_text()
            path.write_text(mutated(mutant, folder))
            code, failed = run_tests(folder, [mutant.tests])
            path.write_text(before)
            killed = code == 1 and failed
            survivors += not killed
            by = failed[0].split(" ", 1)[1] if killed else f"NOTHING (pytest gave {code})"
            print(f"| {mutant.name} | {by} | {time.monotonic() - began:.0f} |", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} killed")
    return survivors


if __name__ == "__main__":
    sys.exit(int(main(sys.argv[1:]) > 0))
