"""Speed of a training iteration, one JSON line:  mpirun -np 2 python -m benchmarks.throughput SYSTEM [flags]

SYSTEM is rl2, rmdp, caml (one rank) or persim; all flags of `python -m train SYSTEM` are accepted. `rl2
--preset reference` first takes the sizes and architecture of the reference re-implementation
(lucaslingle/pytorch_rl2) in float32; flags given beside it still win.
"""

import importlib
import json
import sys

from common.allocator import keep_freed_memory
from common.config import parse_flags
from common.errors import UserError
from mpi_utils.comm import guard, set_threads

SYSTEMS = ("rl2", "rmdp", "caml", "persim")


def main(comm) -> None:
    """Measure and print."""
    with comm.agree():
        system, config = config_from(sys.argv[1:], comm)
    set_threads(comm)
    keep_freed_memory()
    result = importlib.import_module(f"benchmarks.throughput_{system}").measure(config, comm)
    if comm.is_root:
        print(json.dumps(result))


def config_from(arguments: list[str], comm):
    """The system and the configuration to measure."""
    if arguments[:1] in (["-h"], ["--help"]):
        if comm.is_root:
            print(__doc__)
        raise SystemExit(0)
    if not arguments or arguments[0] not in SYSTEMS:
        raise UserError(f"give the system first: python -m benchmarks.throughput {'|'.join(SYSTEMS)} [flags]")
    system, flags = arguments[0], arguments[1:]
    if "--preset" in flags:
        at = flags.index("--preset")
        if system != "rl2" or flags[at + 1 : at + 2] != ["reference"]:
            raise UserError("--preset: only `rl2 --preset reference` exists")
        from benchmarks.throughput_rl2 import PRESET

        flags = [*PRESET, *flags[:at], *flags[at + 2 :]]
    module = importlib.import_module(f"{system}.config")
    config = parse_flags(module.Config, flags, f"python -m benchmarks.throughput {system}", show=comm.is_root)
    return system, module.check_config(config)


if __name__ == "__main__":
    guard(main)
