"""Starts a job again when it is lost:  python -m mpi_utils.keep_running [flags] -- mpirun ... train ...

Gives up after `--tries` failures in a row without a new save in the run folder, and at once after exit code 2
(a mistake in a setting) or 130 (Ctrl-C). SIGTERM, SIGUSR1 and Ctrl-C are passed on, and then nothing is
started again. The exit code is the job's last one. With `--hostfile`, machines that `ssh MACHINE true` does
not reach are left out of a start: {hosts} in the command stands for a file of the others, {ranks} for the
number of their slots.
"""

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from common.config import parse_flags
from common.errors import UserError
from common.runs import run_folder

FINAL = (0, 2, 130)
REACH_S = 10.0  # seconds for a machine to answer
FREE_S = 60.0  # seconds for the last ranks of a lost job to end, which hold the run folder


@dataclass(frozen=True)
class Settings:
    """How a job is kept running."""

    run: str = ""
    """The run folder whose saves show progress; by default that of the command's --resume or --model_name."""
    tries: int = 3
    """Failures in a row without a new save after which it gives up."""
    pause: float = 10.0
    """Seconds from the end of a job to its next start."""
    hostfile: str = ""
    """Machines, one in each line: `node1:16` (MPICH) or `node1 slots=16` (Open MPI)."""


class Job:
    """The running command; signals that ask it to end are passed on, and noted in `asked`."""

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None
        self.asked = threading.Event()
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            signal.signal(number, self._pass_on)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.asked.set()
        if self.process and number != signal.SIGINT:  # a terminal sends Ctrl-C to both
            self.process.send_signal(number)

    def run(self, command: list[str]) -> int:
        """Run the command to its end and return its exit code, 128 and the signal if one ended it."""
        try:
            self.process = subprocess.Popen(command)
        except OSError as error:
            raise UserError(f"{command[0]}: cannot be started: {error.strerror}") from error
        if self.asked.is_set():  # it came when there was none to pass it on to
            self.process.terminate()
        code = self.process.wait()
        self.process = None
        return code if code >= 0 else 128 - code


def main(arguments: list[str]) -> int:
    """Start the command until it is done, or gets nowhere; returns its exit code."""
    settings, command = parse(arguments)
    run_dir, job, failures, starts = folder(settings, command), Job(), 0, 1
    while True:
        before = newest(run_dir)
        code = job.run(with_machines(command, settings.hostfile))
        if code in FINAL or job.asked.is_set():
            return code
        after = newest(run_dir)
        failures = 0 if after != before else failures + 1
        say(f"exit code {code}, newest save {before or 'none'} -> {after or 'none'}")
        if failures >= settings.tries:
            say(f"{failures} failures in a row without progress: stopped")
            return code
        if job.asked.wait(settings.pause):
            return code
        wait_until_free(run_dir)
        starts += 1
        say(f"start {starts}")


def parse(arguments: list[str]) -> tuple[Settings, list[str]]:
    """The flags before `--`, and the command behind it."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    flags, command = arguments[:at], arguments[at + 1 :]
    settings = parse_flags(Settings, flags, "python -m mpi_utils.keep_running")
    if not command:
        raise UserError("no command: give it behind --, as in `keep_running -- mpirun -np 8 python -m train`")
    if settings.tries < 1:
        raise UserError(f"--tries {settings.tries}: give 1 or more")
    if not 0 <= settings.pause < threading.TIMEOUT_MAX:
        raise UserError(f"--pause {settings.pause}: give seconds, 0 or more")
    return settings, command


def folder(settings: Settings, command: list[str]) -> Path:
    """The run folder: the one that is named, else that of the command's flags."""
    given = dict(re.findall(r"--(resume|model.name|checkpoint.dir)[= ](\S+)", " ".join(command)))
    given = {name.replace("-", "_"): value for name, value in given.items()}
    if settings.run or "resume" in given:
        return Path(settings.run or given["resume"])
    if "model_name" not in given:
        raise UserError(
            "which run folder? The command has neither --model_name nor --resume: give --run FOLDER"
        )
    return Path(given.get("checkpoint_dir", "checkpoints")) / given["model_name"]


def newest(run_dir: Path) -> str:
    """The name of the newest save, "" if there is none; a folder of that name is whole."""
    return max((p.name for p in run_dir.glob("step_*") if re.fullmatch(r"step_\d{8,}", p.name)), default="")


def wait_until_free(run_dir: Path) -> None:
    """Wait while ranks of the lost job hold the run folder; InUse if they still do after FREE_S."""
    deadline = time.monotonic() + FREE_S
    while (run_dir / ".lock").exists():
        try:
            return run_folder.lock(run_dir).release()
        except run_folder.InUse:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def with_machines(command: list[str], hostfile: str) -> list[str]:
    """The command for the machines of a file that can be reached now."""
    if not hostfile:
        return command
    try:
        lines = [line for line in Path(hostfile).read_text().splitlines() if line.split("#")[0].strip()]
    except OSError as error:
        raise UserError(f"--hostfile {hostfile}: cannot be read: {error.strerror}") from error
    left = [line for line in lines if reached(re.split(r"[:\s]", line.strip())[0])]
    if len(left) < len(lines):
        say(f"not reached: {', '.join(line.strip() for line in lines if line not in left)}")
    if not left:
        raise UserError(f"--hostfile {hostfile}: none of its {len(lines)} machines can be reached")
    file = Path(f"{hostfile}.reached")
    file.write_text("\n".join(left) + "\n")
    slots = [re.search(r"(?::|slots=)(\d+)", line) for line in left]
    ranks = str(sum(int(found[1]) if found else 1 for found in slots))
    return [word.replace("{hosts}", str(file)).replace("{ranks}", ranks) for word in command]


def reached(host: str) -> bool:
    """Whether a machine is this one or answers to ssh."""
    if host in ("localhost", socket.gethostname()):
        return True
    ssh = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={REACH_S:.0f}", host, "true"]
    try:
        return subprocess.run(ssh, capture_output=True, timeout=2 * REACH_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def say(text: str) -> None:
    """Print a line of ours."""
    print(f"keep_running: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
