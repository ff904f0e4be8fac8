"""Settings from a file: TOML, or JSON as a run folder's config.json is.

    system = "rl2"                     # if the command does not name it
    environment = "half_cheetah_vel"   # every flag by its name
    seed = 3

Flags of the command line win over those of the file.
"""

import json
import tomllib
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.runs import files

FLAGS = ("config", "resume")


def split(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """The other arguments, and the values of `--config` and `--resume`; raises `UserError`."""
    rest: list[str] = []
    found: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in FLAGS:
            rest.append(word)
            continue
        value = value if equals else next(words, "")
        if not value or value.startswith("--"):
            what = "a file of settings" if name == "config" else "a run folder"
            raise UserError(f"--{name}: give {what}")
        found[name] = value
    if len(found) > 1:
        raise UserError("--config and --resume: a run has its settings already; give one of the two")
    return rest, found


def read(path: Path) -> dict[str, Any]:
    """The settings in a file by name; raises `UserError`."""
    try:
        text = files.read_regular(path, 10**6).decode()
        settings = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"--config {path}: cannot be read as TOML (*.toml) or JSON ({reason})") from None
    if not isinstance(settings, dict):
        raise UserError(f"--config {path}: holds no settings by name")
    for name, value in settings.items():
        if isinstance(value, dict | list):
            kind = "a table" if isinstance(value, dict) else "a list"
            raise UserError(f"--config {path}: {name} is {kind}; give each setting one value, by its name")
    return settings
