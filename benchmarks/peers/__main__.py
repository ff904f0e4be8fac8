"""RL^2 beside a JAX program of the same network, by turns: python -m benchmarks.peers [flags]

Both train the same network on the same tabular MDPs at the same sizes: `benchmarks.peers.jax_rl2`, and
`rl2` with a plain input and a linear readout on `--ranks` ranks, in float32 and, where the processor has it,
in bfloat16. Prints one JSON line: the medians, and how many times as fast `rl2` is.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from common.device import use_bfloat16

RATES = ("steps_per_s", "steps_per_processor_s")


def main() -> None:
    """Measure by turns and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=2, help="of rl2; JAX takes all cores by itself")
    parser.add_argument("--python", default=sys.executable, help="that has jax and optax")
    flags = parser.parse_args()
    mpirun = Path(sys.executable).parent / "mpirun"
    if flags.ranks > 1 and not mpirun.exists():
        parser.error(
            f"--ranks {flags.ranks}: there is no {mpirun}; install the extra [mpi], or give --ranks 1"
        )
    launch = [str(mpirun), "-np", str(flags.ranks)] if flags.ranks > 1 else []
    ours = [*launch, sys.executable, "-m", "benchmarks.throughput", "rl2"]
    ours += "--transition_encoder plain --readout linear --precision".split()
    commands = {"jax": [flags.python, "-m", "benchmarks.peers.jax_rl2"], "float32": [*ours, "float32"]}
    if use_bfloat16("auto", "cpu"):
        commands["bfloat16"] = [*ours, "bfloat16"]
    found: dict[str, list[dict]] = {name: [] for name in commands}
    for _ in range(flags.rounds):
        for name, command in commands.items():
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                parser.exit(2, f"{' '.join(command)}: {last}\n")
            found[name].append(json.loads(done.stdout.strip().splitlines()[-1]))
    middle = {
        name: {rate: round(statistics.median(one[rate] for one in all_rounds)) for rate in RATES}
        for name, all_rounds in found.items()
    }
    times = {
        name: {rate: round(middle[name][rate] / middle["jax"][rate], 2) for rate in RATES}
        for name in commands
        if name != "jax"
    }
    print(
        json.dumps({"peer": found["jax"][0]["peer"], "ranks": flags.ranks, **middle, "times_as_fast": times})
    )


if __name__ == "__main__":
    main()
