"""Training that tells at any moment what a rank does:  python -m tests.helpers.phases FOLDER arguments...

The phase stands in FOLDER/RANK, in shared memory, and so outlives the process. File operations are slowed,
for kills to fall between them.
"""

import functools
import mmap
import runpy
import sys
import time
from pathlib import Path

from common.runs import files
from mpi_utils import loop
from mpi_utils.comm import Comm, world

PHASES = ("load", "roll-out", "all-reduce", "save")
FILE_OPERATION = 0.002  # seconds


def read(folder, rank: int) -> str:
    """The phase of a rank, after a kill the one that it died in; "" if it has not told yet."""
    path = Path(folder) / str(rank)
    return path.read_bytes().strip(b"\0 ").decode() if path.exists() else ""


def tell(folder) -> None:
    """Wrap what the phases are made of; within a load or a save all-reduces count to these."""
    path = Path(folder) / str(world().rank)
    path.write_bytes(bytes(16))
    with open(path, "r+b") as file:
        memory = mmap.mmap(file.fileno(), 16)
    now = ["start"]

    def enter(phase):
        now[0], memory[:] = phase, phase.encode().ljust(16)

    def within(phase, function, outside=None):
        @functools.wraps(function)
        def wrapped(*arguments):
            before = now[0]
            if before == (outside or before):
                enter(phase)
            result = function(*arguments)
            enter("roll-out" if phase == "load" else before)
            return result

        return wrapped

    def slowed(function):
        @functools.wraps(function)
        def wrapped(*arguments):
            time.sleep(FILE_OPERATION)
            return function(*arguments)

        return wrapped

    loop.resume, loop._save = within("load", loop.resume), within("save", loop._save)
    Comm._call = within("all-reduce", Comm._call, outside="roll-out")
    for name in ("make_folder", "create", "write", "sync", "rename", "remove_file", "remove_folder"):
        setattr(files, name, slowed(getattr(files, name)))


if __name__ == "__main__":
    tell(sys.argv.pop(1))
    runpy.run_module("train", run_name="__main__", alter_sys=True)
