"""The few file operations that saves are made of, each one a function that a test can make fail."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path


def make_folder(path: Path) -> None:
    """Make a folder that is not there yet."""
    os.mkdir(path, 0o755)


def check_folder(path: Path) -> None:
    """Raise OSError if a folder, made with its parents where it is not there, could not be written."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "not writable", str(there))


def check_output(path: Path, endings: tuple[str, ...] = (), folder: bool = False) -> None:
    """Raise OSError if a file or folder could not be written, ValueError for none of the endings, if any."""
    if endings and path.suffix.lower() not in endings:
        raise ValueError(f"its ending is none of {', '.join(endings)}")
    if path.is_dir() and not folder:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_dir():
        if folder:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, "not writable", str(path))
    else:
        check_folder(path)


def create(path: Path) -> int:
    """Create a new file, following no link, and return its descriptor."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)


def write(descriptor: int, data: bytes) -> None:
    """Write all of the data."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync(descriptor: int) -> None:
    """Wait until a file is on the disk."""
    os.fsync(descriptor)


def rename(source: Path, target: Path) -> None:
    """Give a file or folder another name, replacing a file of that name."""
    os.replace(source, target)


def remove_file(path: Path) -> None:
    """Remove a file or a link."""
    os.unlink(path)


def remove_folder(path: Path) -> None:
    """Remove an empty folder."""
    os.rmdir(path)


def sync_folder(path: Path) -> None:
    """Make renames and new names in a folder last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk."""
    descriptor = create(path)
    try:
        write(descriptor, data)
        sync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file by new contents so that at any moment it holds the old or the new."""
    temporary = path.with_name(f".{path.name}.tmp")
    with suppress(FileNotFoundError):
        remove_file(temporary)
    try:
        write_file(temporary, data)
        rename(temporary, path)
    except OSError:
        with suppress(OSError):
            remove_file(temporary)
        raise
    sync_folder(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a file, a link (not what it points to) or a folder with all it holds, if there is one."""
    if path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            remove_tree(child)
        remove_folder(path)
    elif path.is_symlink() or path.exists():
        remove_file(path)


def read_regular(path: Path, limit: int) -> bytes:
    """Return the contents of a regular file of at most `limit` bytes; ValueError for all else."""
    # O_NONBLOCK: a pipe in the place of a file must not make us wait.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path.name}: not a regular file")
        if status.st_size > limit:
            raise ValueError(f"{path.name}: {status.st_size} bytes, at most {limit} expected")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)
