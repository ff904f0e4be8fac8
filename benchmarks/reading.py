"""Seconds to read a log in CSV, here and in another commit:  python -m benchmarks.reading [COMMIT] [flags]

Writes a log of numbered steps (agents of 1,000 rows, four states, an action, a reward; drawn by a seed), and
reads it in this tree and in COMMIT's by turns, in a new process each time. Prints one JSON line: the fastest
of the rounds, and with COMMIT the ratio of both; above 1 is this tree being slower. Seconds are those of the
processor, so that a busy machine matters less.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
STEPS = 1000  # rows of an agent
READ = """
import sys, time
from persim.data.logs import read
began = time.process_time()
print(len(read(sys.argv[1])), time.process_time() - began)
"""


def main() -> None:
    """Make the log, read it by turns, print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("commit", nargs="?", default="", help="compare with this commit")
    parser.add_argument("--rows", type=int, default=900_000)
    parser.add_argument("--rounds", type=int, default=3)
    settings = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        log, other = Path(name) / "log.csv", Path(name) / "other"
        write_log(log, settings.rows)
        trees = {"here": ROOT} | ({settings.commit: other} if settings.commit else {})
        if settings.commit:
            other.mkdir()
            archive = subprocess.run(
                ["git", "-C", ROOT, "archive", settings.commit], check=True, capture_output=True
            )
            subprocess.run(["tar", "-x", "-C", other], input=archive.stdout, check=True)
        seconds: dict[str, list[float]] = {tree: [] for tree in trees}
        for _ in range(settings.rounds):  # in turns, so that a disturbance of the machine hits both
            for tree, path in trees.items():
                seconds[tree].append(seconds_to_read(path, log))
        found = {tree: round(min(rounds), 2) for tree, rounds in seconds.items()}
        ratio = {"ratio": round(found["here"] / found[settings.commit], 3)} if settings.commit else {}
        print(
            json.dumps({"rows": settings.rows, "mb": log.stat().st_size // 10**6, "seconds": found} | ratio)
        )


def write_log(path: Path, rows: int) -> None:
    """Write a log of `rows` rows in the plain form that every version reads."""
    rng = np.random.default_rng(0)
    state, action = rng.standard_normal((rows, 4)), rng.integers(0, 3, rows) / 2
    with open(path, "w") as file:
        file.write("agent,time,state_0,state_1,state_2,state_3,action,reward\n")
        for i, (values, chosen) in enumerate(zip(state.tolist(), action.tolist(), strict=True)):
            numbers = ",".join(f"{value:.9g}" for value in values)
            file.write(f"a{i // STEPS},{i % STEPS},{numbers},{chosen},{-abs(values[0]):.6g}\n")


def seconds_to_read(tree: Path, log: Path) -> float:
    """Processor seconds of `persim.data.logs.read` in a tree."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", READ, str(log)]
    done = subprocess.run(words, cwd=tree, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
