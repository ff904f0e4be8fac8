"""The built wheel: its list of files, and one installed in an environment of its own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.helpers.launch import OPEN_MPI, ROOT, find_mpirun

LISTED = """
import setuptools
from distutils.core import run_setup
build = run_setup("setup.py", stop_after="config").get_command_obj("build_py")
build.ensure_finalized()
for name in build.get_outputs(include_bytecode=False):
    print(name.removeprefix(build.build_lib + "/"))
"""


def listed_files() -> set[str]:
    """What a wheel built now would hold, as it would be installed; nothing is written."""
    done = subprocess.run([sys.executable, "-c", LISTED], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def build(folder: Path) -> Path:
    """A wheel of a copy of this checkout without what was made in it since."""
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=made_since)
    words = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


def made_since(folder: str, names: list[str]) -> list[str]:
    """Builds, environments and runs in a folder of the checkout."""
    made = {name for name in names if name == "__pycache__" or name.endswith(".egg-info")}
    if Path(folder) == ROOT:
        made |= {name for name in names if name.startswith(".") or name in ("build", "runs")}
    if Path(folder) == ROOT / "checkpoints":
        made |= set(names) - {"examples", "behaviour"}
    return list(made)


class Installed:
    """A wheel in a new environment that borrows its dependencies from this one, and a folder to work in."""

    def __init__(self, wheel: Path, folder: Path):
        self.environment, self.here = folder / "environment", folder / "here"
        self.here.mkdir()
        venv.create(self.environment, with_pip=False, symlinks=True)
        python = self.environment / "bin/python"
        words = ["install", "--quiet", "--no-deps", "--no-index", wheel]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--python", python, *words], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.packages = next((self.environment / "lib").glob("python*/site-packages"))
        # After the environment's own packages; .pth files there, such as an editable install's, are not read.
        (self.packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, program: str, *words, ranks: int = 1, code: int = 0) -> str:
        """The output of a program of the environment, started in the empty folder."""
        start = [find_mpirun(), "-np", str(ranks)] if ranks > 1 else []
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= OPEN_MPI | {"OMP_NUM_THREADS": "1", "LD_LIBRARY_PATH": f"{sys.prefix}/lib"}
        done = subprocess.run(
            [*start, self.environment / "bin" / program, *map(str, words)],
            cwd=self.here,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr
