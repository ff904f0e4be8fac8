"""Arrays of a .npz file from anywhere: nothing in it is run, and no more is read than it holds."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from persim.data.checks import fault

MAX_ENTRIES = 1000


def read_arrays(path: Path, layout: dict, prefixes: dict) -> dict[str, np.ndarray]:
    """The arrays of an uncompressed .npz: all of `layout`, and any whose name starts with one of `prefixes`.

    Both map to (kinds of dtype, number of axes or a tuple of those allowed). Raises `UserError`, one line
    that starts with `file:array`, for anything else.
    """
    if not path.is_file():  # neither a folder nor a pipe, which would make us wait
        raise fault(str(path), "no such file; check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _entries(archive, path, layout, prefixes)
            return {name: _read(archive, entry, f"{path}:{name}", rule) for name, entry, rule in entries}
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail in any way, and every way means the same
        kind = f"{type(error).__name__}: {error}"[:200]
        raise fault(
            str(path), f"cannot be read as .npz ({kind}); write it again with Transitions.save"
        ) from None


def _entries(archive: zipfile.ZipFile, path: Path, layout: dict, prefixes: dict) -> list[tuple]:
    entries, found = archive.infolist(), {}
    if len(entries) > MAX_ENTRIES:
        raise fault(str(path), f"more than {MAX_ENTRIES} arrays; write it again with Transitions.save")
    for entry in entries:
        name = entry.filename.removesuffix(".npy")
        rule = layout.get(name) or next((r for p, r in prefixes.items() if name.startswith(p)), None)
        if rule is None or name in found:
            kind = "unknown" if rule is None else "there twice"
            raise fault(f"{path}:{name}", f"array is {kind}; the file holds {', '.join(layout)}")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise fault(f"{path}:{name}", "array is compressed; write it with Transitions.save or np.savez")
        found[name] = (name, entry, rule)
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise fault(str(path), "its arrays are longer than the file; write it again with Transitions.save")
    for name in layout:
        if name not in found:
            raise fault(f"{path}:{name}", "array is missing; write the file with Transitions.save")
    return list(found.values())


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, place: str, rule: Any) -> np.ndarray:
    kinds, axes = rule
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = header[version](file)
        begin = file.tell()
    if dtype.kind not in kinds:
        text = "objects" if dtype.hasobject else str(dtype)
        wanted = {"U": "text", "f": "real numbers", "i": "whole numbers"}[kinds[0]]
        raise fault(f"{place}:0", f"array holds {text}; give {wanted}")
    if len(shape) not in (axes if isinstance(axes, tuple) else (axes,)):
        raise fault(place, f"array has shape {list(shape)}; it takes {axes} axes")
    size = dtype.itemsize
    for length in shape:
        size *= length
    if size != entry.file_size - begin:
        raise fault(place, f"array of shape {list(shape)} is not as long as its entry; write it again")
    with archive.open(entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False)
