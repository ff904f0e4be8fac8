"""Flags from dataclasses, and checks that give one clear line."""

import contextlib
import dataclasses
import io
import math
import re
import sys

import tyro

from common.errors import UserError

MOST_TOLD = 500  # characters of a message: it may hold what was given, of any length


def parse(
    commands: dict[str, type], default: str, argv: list[str], prog: str, description: str, *, show=True
):
    """The name and configuration chosen by `argv`: `[name] [flags]`, where no name means `default`.

    `--help` prints (where `show`, i.e. on one rank) and exits with 0; a mistake raises `UserError`.
    """
    if argv and argv[0] in ("-h", "--help"):
        if show:
            print(f"{description}\nSystems: {', '.join(commands)} (no name: {default}).")
            print(f"Flags of a system: {prog} {default} --help")
        raise SystemExit(0)
    name, flags = (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else (default, argv)
    if name not in commands:
        raise UserError(f"unknown system {name!r}: choose one of {', '.join(commands)}")
    return name, parse_flags(commands[name], flags, f"{prog} {name}", show=show)


def parse_flags(settings_class: type, flags: list[str], prog: str, *, show=True):
    """An instance of a dataclass from flags named after its fields; underscores and hyphens both work."""
    out, errors = sys.stdout if show else io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(out):
            return tyro.cli(
                settings_class,
                prog=prog,
                args=flags,
                use_underscores=True,
                config=(tyro.conf.FlagConversionOff,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(f"{one_line(errors.getvalue())} (see {prog} --help)") from None


def one_line(text: str) -> str:
    """The message of tyro's box of several lines as one line, without its title and the flag's help text.

    Where the terminal's encoding has no such characters, the box is drawn in spaces and dashes.
    """
    _, *lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() or [""]
    lines = [line.strip("│╰╯─ ") for line in lines]
    body = " ".join(line for line in lines if line.strip("-"))
    return re.split(r"Argument helptext|For full helptext|Similar", body)[0].strip()[:MOST_TOLD]


def check(config, positive=(), at_least_zero=(), unit_interval=(), may_be_empty=()) -> None:
    """Refuse numbers that cannot be meant; the message names the flag."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{field.name} {value}: must be a finite number")
        if isinstance(value, int | float) and abs(value) > 1e12:
            raise UserError(f"--{field.name} {value}: too large")
        if isinstance(value, str) and (len(value) > 500 or "\n" in value or "\0" in value):
            raise UserError(f"--{field.name}: must be one line of at most 500 characters")
        if value == "" and field.name not in may_be_empty:
            raise UserError(f"--{field.name}: must not be empty")
    for name in positive:
        if not getattr(config, name) > 0:
            raise UserError(f"--{name} {getattr(config, name)}: must be greater than 0")
    for name in at_least_zero:
        if not getattr(config, name) >= 0:
            raise UserError(f"--{name} {getattr(config, name)}: must be 0 or more")
    for name in unit_interval:
        if not 0 <= getattr(config, name) <= 1:
            raise UserError(f"--{name} {getattr(config, name)}: must lie between 0 and 1")


def check_run_name(config) -> None:
    """`model_name` names a folder inside `checkpoint_dir`, nothing else."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", config.model_name):
        raise UserError(
            f"--model_name {config.model_name!r}: it names a folder; use letters, digits, '.', '_' and '-'"
        )
