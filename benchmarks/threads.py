"""What threads are worth to one process:  python -m benchmarks.threads [rl2 rmdp persim caml] [-- flags]

Seconds of a training iteration with one thread, with two, and with as many as `mpi_utils.comm.set_threads`
gives; on the machine as it is, and beside a process that keeps a core busy. Settings take turns, medians of
the rounds count. Flags are those of `python -m train SYSTEM`. Prints one JSON line.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
SIZES = {  # iterations that one thread does in a few seconds
    "rl2": "--meta_episodes_per_policy_update 96 --meta_episodes_per_learner_batch 48",
    "rmdp": "--steps_per_policy 512 --num_minibatches 8",
    "persim": "--num_agents 50",
    "caml": "",
}
THREADS = ("1", "2", "")  # "": as chosen
MEASURE = """
import json, statistics, sys, time
from common.allocator import keep_freed_memory
from mpi_utils.comm import Comm, set_threads
from train import make_learner, parse_arguments
name, config = parse_arguments(sys.argv[1:], Comm())
threads = set_threads(Comm())
keep_freed_memory()
learner, seconds = make_learner(name, config, Comm()), []
while len(seconds) < 6 and sum(seconds) < 8:
    began = time.perf_counter()
    learner.train_iteration(len(seconds))
    seconds.append(time.perf_counter() - began)
print(json.dumps([threads, statistics.median(seconds[1:] or seconds)]))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("python -m benchmarks.threads", description=__doc__.split("\n")[0])
    parser.add_argument("systems", nargs="*", default=["rl2", "rmdp", "persim", "caml"])
    parser.add_argument("--rounds", type=int, default=3)
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    settings, flags = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    result = {}
    for system in settings.systems:
        seconds: dict[str, list[float]] = {}
        for _ in range(settings.rounds):
            for busy in (False, True):
                for asked in THREADS:
                    with spinning(busy):
                        chosen, spent = measure(system, flags, asked)
                    name = f"{f'{asked} threads' if asked else f'chosen, {chosen}'}{', busy' * busy}"
                    seconds.setdefault(name, []).append(spent)
        result[system] = {name: round(statistics.median(spent), 4) for name, spent in seconds.items()}
    cores = len(os.sched_getaffinity(0))
    print(json.dumps({"iteration_s": result, "flags": flags, "cores": cores, "load": os.getloadavg()[0]}))


def measure(system: str, flags: list[str], threads: str) -> tuple[int, float]:
    """The threads of a process, and the median of its iterations' seconds."""
    environment = {name: v for name, v in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= {"PYTHONPATH": str(ROOT)} | ({"OMP_NUM_THREADS": threads} if threads else {})
    words = [sys.executable, "-c", MEASURE, system, *SIZES[system].split(), *flags]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{system}: {done.stderr}")
    chosen, seconds = json.loads(done.stdout.splitlines()[-1])
    return chosen, seconds


@contextmanager
def spinning(busy: bool) -> Iterator[None]:
    """While a process that does nothing else keeps a core busy, if `busy`."""
    spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    time.sleep(0.2)
    try:
        yield
    finally:
        if spinner:
            spinner.kill()
            spinner.wait()


if __name__ == "__main__":
    main()
