"""Starts real `mpirun -np N python ...` programs for tests, with a hard time limit and no process left."""

import contextlib
import importlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
import uuid
from dataclasses import dataclass
from pathlib import Path

from common.errors import SaveError, is_user_mistake
from mpi_utils.comm import Comm
from mpi_utils.exit import exit_code

ROOT = Path(__file__).parent.parent.parent
OPEN_MPI = {  # lets Open MPI start as root and beyond the core count; MPICH ignores all of it
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
}


def find_mpirun() -> str | None:
    """Return the mpirun beside this python, else the one on PATH, else None."""
    beside = Path(sys.executable).parent / "mpirun"
    return str(beside) if beside.exists() else shutil.which("mpirun")


def tolerant_launcher() -> list[str] | None:
    """The launcher that leaves the others alive when a rank is lost; None if it is another MPI's."""
    if find_mpirun() is None:
        return None
    version = subprocess.run([find_mpirun(), "--version"], capture_output=True, text=True).stdout
    return [find_mpirun(), "--with-ft", "ulfm"] if re.search(r"Open MPI\) [5-9]", version) else None


@dataclass
class Result:
    """What became of a program: exit code, stdout and stderr together, seconds."""

    code: int
    output: str
    seconds: float


class Job:
    """A running `mpirun -np N python arguments...` in a session of its own, started in the project's root."""

    allowed = True

    def __init__(self, num_ranks: int, *arguments, env: dict[str, str] | None = None, launcher=None):
        assert self.allowed, "a test that starts mpirun needs the marker mpi"
        self.mark = f"TEST_JOB={uuid.uuid4().hex}"
        name, value = self.mark.split("=")
        environment = os.environ | OPEN_MPI | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), name: value}
        command = [
            *(launcher or [find_mpirun()]),
            "-np",
            str(num_ranks),
            sys.executable,
            *map(str, arguments),
        ]
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment | (env or {}),
            start_new_session=True,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
        )

    def signal(self, number: int) -> None:
        """Send a signal to mpirun, which passes it on to the ranks."""
        self.process.send_signal(number)

    def wait(self, limit: float = 60.0) -> Result:
        """Wait for the end; AssertionError with the output after `limit` seconds or if a process stays."""
        try:
            output, late = self.process.communicate(timeout=limit)[0], False
        except subprocess.TimeoutExpired:
            late = True
        seconds = time.monotonic() - self.began
        survivors = [] if late else self._survivors()
        self.kill()
        if late:
            output = self.process.communicate()[0]
        assert not late, f"still running after {limit} s:\n{output}"
        assert not survivors, f"processes {survivors} outlived mpirun:\n{output}"
        return Result(self.process.returncode, output, seconds)

    def kill(self) -> None:
        """Kill mpirun's group and every rank; ranks may have sessions of their own."""
        for kill, target in [(os.killpg, self.process.pid), *[(os.kill, pid) for pid in self.processes()]]:
            try:
                kill(target, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _survivors(self, patience: float = 5.0) -> list[int]:
        end = time.monotonic() + patience
        while self.processes() and time.monotonic() < end:
            time.sleep(0.05)
        return self.processes()

    def processes(self) -> list[int]:
        """Return the processes of this job, known by a mark in their environment."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in path.read_bytes():
                    found.append(int(path.parent.name))
            except OSError:
                continue  # it has ended, or is not ours
        return found


def mpirun(num_ranks: int, *arguments, limit: float = 60.0, env: dict[str, str] | None = None) -> Result:
    """Run `mpirun -np num_ranks python arguments...` to its end; AssertionError if it hangs."""
    return Job(num_ranks, *arguments, env=env).wait(limit)


def command(num_ranks: int, module: str, *arguments, **options) -> Result:
    """Run `mpirun -np num_ranks python -m module ...`; one rank within this process, which starts sooner."""
    if num_ranks > 1:
        return mpirun(num_ranks, "-m", module, *arguments, **options)
    said, code, began, before = io.StringIO(), 0, time.monotonic(), sys.argv
    sys.argv = [module, *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            importlib.import_module(module).main(Comm())
    except (SystemExit, Exception) as error:
        code = exit_code(error)
        in_one_line = is_user_mistake(error) or isinstance(error, SaveError)
        said.write(
            f"{error}\n"
            if in_one_line
            else ""
            if code == 0 or isinstance(error, SystemExit)
            else traceback.format_exc()
        )
    finally:
        sys.argv = before
    return Result(code, said.getvalue(), time.monotonic() - began)
