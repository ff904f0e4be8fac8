"""The console of a command that goes on without it: a closed terminal, `| head`, a full device."""

import os
import signal
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, cast

LAUNCHERS = ("mpirun", "mpiexec", "mpiexec.hydra", "orterun", "prterun")
STARTERS = (*LAUNCHERS, "hydra_pmi_proxy", "orted", "prted")  # what a launcher's ranks are children of
# Options by which a launcher itself arranges what ranks print.
ARRANGED = ("-l", "-prepend", "-outfile", "-errfile", "--output", "--tag-output", "--timestamp-output")


class Console:
    """A text stream that says no more once it cannot be written; `lost` is then the reason."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.pending = ""  # the line that is begun: lines of several ranks are not to mix
        self.lost: Exception | None = None

    def write(self, text: str) -> int:
        """Write what is a line now if that is possible."""
        self.pending += text
        if "\n" in text:
            self._write_pending()
        return len(text)

    def flush(self) -> None:
        """Write and flush all if that is possible."""
        self._write_pending()
        self._attempt(self.stream.flush)

    def _write_pending(self) -> None:
        text, self.pending = self.pending, ""
        self._attempt(self.stream.write, text)

    def _attempt(self, action: Callable[..., Any], *arguments: Any) -> None:
        if self.lost is None:
            try:
                action(*arguments)
            except (OSError, ValueError) as error:  # ValueError: it is closed
                self.lost = error
                with suppress(
                    OSError, ValueError
                ):  # for what does not write through us, and what is buffered
                    _silence(self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def keep_going() -> None:
    """From now on the loss of the console, by which a program ends as a rule, changes nothing in this one."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:  # it was closed from the start
            _silence(number)
            setattr(sys, name, open(os.devnull, "w"))
        else:
            _pass_by_the_launcher(number)
            setattr(sys, name, cast(TextIO, Console(getattr(sys, name))))


def _silence(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def _pass_by_the_launcher(number: int) -> None:
    """Write to what mpirun writes to, where that is a pipe or a terminal of this host.

    MPICH's mpirun kills all ranks when it cannot pass on what one of them has printed.
    """
    try:
        parent, launcher = _process(os.getppid()), os.getppid()
        if parent[0] not in STARTERS or not stat.S_ISFIFO(os.fstat(number).st_mode):
            return
        while (found := _process(launcher))[0] not in LAUNCHERS:
            launcher = found[1]
        words = Path(f"/proc/{launcher}/cmdline").read_text().split("\0")
        path = f"/proc/{launcher}/fd/{number}"
        mode = os.stat(path).st_mode
        if any(word.startswith(ARRANGED) for word in words) or not (
            stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)
        ):
            return
        direct = os.open(path, os.O_WRONLY | os.O_NOCTTY)
    except (OSError, ValueError):  # no ancestor is a launcher of ours
        return
    os.dup2(direct, number)
    os.close(direct)


def _process(pid: int) -> tuple[str, int]:
    """Name and parent of a process; OSError where there is none."""
    text = Path(f"/proc/{pid}/stat").read_text()
    end = text.rindex(")")
    return text[text.index("(") + 1 : end], int(text[end + 1 :].split()[1])
