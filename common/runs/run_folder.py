"""The run folder's settings and its lock."""

import atexit
import fcntl
import json
import os
import re
import socket
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from common.errors import SaveError, UserError
from common.runs import files

SHARED_MEMORY = Path("/dev/shm")


def write_config(run_dir: Path | str, config: dict[str, Any]) -> None:
    """Write config.json, whole or not at all; OSError if the folder cannot be written."""
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    files.write_atomic(Path(run_dir) / "config.json", json.dumps(config, indent=2).encode() + b"\n")


def read_config(run_dir: Path | str) -> dict[str, Any]:
    """Return the contents of config.json; UserError if the folder holds no readable one."""
    path = Path(run_dir) / "config.json"
    try:
        config = json.loads(files.read_regular(path, 10**6))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path}: cannot be read ({reason}); is this the folder of a run?") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: holds no settings; is this the folder of a run?")
    return config


def config_differences(old: dict[str, Any], new: dict[str, Any], ignore: Collection[str] = ()) -> list[str]:
    """Return one line "field: old -> new" for each field that differs, nested ones as "group.field".

    A name in `ignore` leaves out that field or group.
    """
    before, after = _flat(json.loads(json.dumps(old))), _flat(json.loads(json.dumps(new)))
    fields = [f for f in before | after if not any(f == i or f.startswith(f"{i}.") for i in ignore)]
    pairs = [(f, before.get(f, "absent"), after.get(f, "absent")) for f in fields]
    return [f"{f}: {a} -> {b}" for f, a, b in pairs if a != b or type(a) is not type(b)]


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


class InUse(UserError):
    """Another process holds the run folder."""


class Lock:
    """A held lock of a run folder; kept until `release`, the end of a `with`, or the end of the process.

    `made` are the folders, innermost first, that were made for it: they go with it if nothing came into them.
    """

    def __init__(self, descriptor: int, path: Path, made: Collection[Path] = ()):
        self.descriptor, self.path, self.made, self.pid = descriptor, path, made, os.getpid()
        atexit.register(self.release)  # so that only a process that was killed leaves its name in the file

    def release(self) -> None:
        """Give the folder free; a second call does nothing, nor one in a forked child."""
        if self.descriptor >= 0 and os.getpid() == self.pid:
            os.ftruncate(self.descriptor, 0)
            with suppress(OSError):
                if self.made and os.listdir(self.path.parent) == [self.path.name]:
                    self.path.unlink()
                    for folder in self.made:
                        folder.rmdir()
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


def check(run_dir: Path | str) -> None:
    """Refuse a run folder that `lock` would refuse, but make none; call it on one rank only."""
    if (Path(run_dir) / ".lock").exists():
        return lock(run_dir).release()
    try:
        files.check_folder(Path(run_dir))
    except OSError as error:
        raise UserError(f"{run_dir}: cannot be written ({error.strerror}); choose another folder") from error


def lock(run_dir: Path | str) -> Lock:
    """Make this process the only writer of a run folder, creating the folder; call it on one rank only.

    Raises InUse naming the holder's host and process id if another process has it, UserError if the folder
    cannot be written. The kernel frees the lock of a killed process. Not to be relied on over a network.
    """
    path = Path(run_dir) / ".lock"
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"{run_dir}: cannot be written ({error.strerror}); choose another folder") from error
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "shared_memory": _shared_memory()}
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        deadline = time.monotonic() + 1.0
        while not os.fstat(descriptor).st_size and time.monotonic() < deadline:
            time.sleep(0.02)  # the winner of a race needs a moment to write its name
        holder = _holder(descriptor)
        os.close(descriptor)
        raise InUse(f"{run_dir}: in use by {holder}; wait for it or choose another folder") from None
    except OSError as error:
        os.close(descriptor)
        raise UserError(f"{run_dir}: cannot be locked ({error.strerror}); choose another disk") from error
    if not os.fstat(descriptor).st_nlink:  # its holder has just removed it with an empty folder
        os.close(descriptor)
        return lock(run_dir)
    if os.fstat(descriptor).st_size:
        print(f"{run_dir}: taken over from {_holder(descriptor)}, which was killed", file=sys.stderr)
        _remove_shared_memory(descriptor)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(mine).encode(), 0)
    return Lock(descriptor, path, made)


def take_over(run_dir: Path | str, patience: float = 5.0) -> Lock:
    """`lock` for another process of the run whose process that had the lock is lost; waits until it is gone.

    Raises SaveError if it is not after `patience` seconds: it lives where this one cannot reach it.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return lock(run_dir)
        except InUse as error:
            if time.monotonic() > deadline:
                raise SaveError(f"{error}: it is out of reach, and the run goes on there alone") from error
            time.sleep(0.05)


def _shared_memory() -> list[str]:
    """The files in SHARED_MEMORY by which MPICH joins the ranks of a host, and which it leaves if killed."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return []
    return sorted(set(re.findall(rf"{SHARED_MEMORY}/(mpich_shm_\w+)$", maps, re.M)))[:20]


def _remove_shared_memory(descriptor: int) -> None:
    """Remove what a killed holder of the lock left in this host's memory; it may be some MB each time."""
    try:
        holder = json.loads(os.pread(descriptor, 4000, 0))
        names = holder["shared_memory"] if holder["host"] == socket.gethostname() else []
        for name in names:
            if re.fullmatch(r"mpich_shm_\w+", name):  # a file says so: no other name, in no other folder
                (SHARED_MEMORY / name).unlink(missing_ok=True)
    except (OSError, ValueError, KeyError, TypeError):
        return


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4000, 0))
        return f"process {int(holder['pid'])} on host {str(holder['host'])[:100]}"
    except (ValueError, KeyError, TypeError):
        return "another process"
