"""How long a long log takes to read:  python -m benchmarks.reading [COMMIT] [--rows N]

Writes a CSV of N rows (900,000) and reads it in this tree and in COMMIT's (HEAD) by turns, each time in a new
process. Prints one JSON line: the processor's seconds of either, medians of all turns, and their ratio, below
1 where this tree is faster; exit code 1 if what was read differs. `--without_pyarrow` hides that library.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
STEPS = 300  # of each agent
CHILD = """
import sys, time
if sys.argv[2] == "hide":
    sys.modules["pyarrow"] = None
from persim.data.logs import read
began = time.process_time()
data = read(sys.argv[1])
print(time.process_time() - began, data.digest())
"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser("python -m benchmarks.reading", description=__doc__)
    parser.add_argument("commit", nargs="?", default="HEAD", help="what to compare with")
    parser.add_argument("--rows", type=int, default=900_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--without_pyarrow", action="store_true")
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        other, log = Path(folder) / "other", Path(folder) / "log.csv"
        other.mkdir()
        packed = subprocess.run(
            ["git", "archive", settings.commit, "persim", "common", "envs", "mpi_utils"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        subprocess.run(["tar", "-x", "-C", other], input=packed.stdout, check=True)
        write(log, settings.rows)
        seconds: dict[str, list[float]] = {"before": [], "after": []}
        digests = set()
        for _ in range(settings.turns):
            for name, tree in (("before", other), ("after", ROOT)):
                taken, digest = measure(tree, log, hide=settings.without_pyarrow and name == "after")
                seconds[name].append(taken)
                digests.add(digest)
        medians = {f"{name}_s": round(statistics.median(values), 2) for name, values in seconds.items()}
        report = {"rows": settings.rows, "megabytes": log.stat().st_size // 10**6, **medians}
        report |= {"ratio": round(medians["after_s"] / medians["before_s"], 2), "same": len(digests) == 1}
    print(json.dumps(report))
    return 0 if report["same"] else 1


def write(path: Path, rows: int) -> None:
    """A log of `rows` rows of agents with `STEPS` steps each, three states and one of five actions."""
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((rows, 4)).round(5).tolist()
    actions = rng.integers(5, size=rows).tolist()
    with open(path, "w") as file:
        file.write("agent,time,state_x,state_v,state_w,action,reward\n")
        for i, ((x, v, w, reward), action) in enumerate(zip(numbers, actions, strict=True)):
            file.write(f"patient {i // STEPS},{i % STEPS},{x},{v},{w},{action},{reward}\n")


def measure(tree: Path, log: Path, hide: bool = False) -> tuple[float, str]:
    """The processor's seconds in which the code in `tree` reads a log, and the digest of what it read."""
    command = [sys.executable, "-c", CHILD, str(log), "hide" if hide else "show"]
    done = subprocess.run(command, cwd=tree, check=True, capture_output=True, text=True)
    taken, digest = done.stdout.split()
    return float(taken), digest


if __name__ == "__main__":
    sys.exit(main())
