"""Flags from dataclasses, and checks that give one clear line.

A setting is a field of a frozen dataclass; its default, its sentence and its limits stand together:

    num_agents: Annotated[int, POSITIVE] = 100
    "Agents of the population."
"""

import ast
import contextlib
import dataclasses
import functools
import inspect
import io
import math
import os
import re
import sys
import textwrap
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from common.errors import UserError
from common.runs import files

MAX_MESSAGE = 500  # characters of a message: it may hold what was given, of any length
Settings = TypeVar("Settings")


@dataclasses.dataclass(frozen=True)
class Within:
    """What a number may be: at least `low` (more, if `above`) and at most `high`."""

    low: float
    high: float = math.inf
    above: bool = False

    def complaint(self, value: float) -> str:
        """What is wrong with a value; empty if nothing is."""
        good = (self.low < value if self.above else self.low <= value) and value <= self.high
        if good:
            return ""
        if self.high < math.inf:
            return f"must lie between {self.low:g} and {self.high:g}"
        return f"must be greater than {self.low:g}" if self.above else f"must be {self.low:g} or more"


@dataclasses.dataclass(frozen=True)
class Group:
    """Begins a group of flags in the help text, at its first field."""

    title: str


@dataclasses.dataclass(frozen=True)
class MayBeEmpty:
    """A text that may be empty."""


@dataclasses.dataclass(frozen=True)
class Output:
    """The path of what is to be written, for which `check_outputs` looks; its endings where they count.

    Of files that get endings `added`, the path is what they have in common.
    """

    endings: tuple[str, ...] = ()
    folder: bool = False
    added: tuple[str, ...] = ("",)


@dataclasses.dataclass(frozen=True)
class Applies:
    """When a flag has an effect: where `when(settings)` holds, which `where` says in words.

    A flag that is given where it has none is refused, unless it says what is so anyway; stored settings are
    not.
    """

    where: str
    when: Callable[[Any], bool]


PICTURE, OUTPUT_FILE, OUTPUT_FOLDER = Output((".png", ".svg", ".pdf")), Output(), Output(folder=True)
POSITIVE, AT_LEAST_ZERO, UNIT_INTERVAL = Within(0, above=True), Within(0), Within(0, 1)
MAY_BE_EMPTY = MayBeEmpty()


def parse(
    commands: dict[str, type],
    default: str,
    argv: list[str],
    prog: str,
    description: str,
    *,
    show: bool = True,
    may_be_idle: bool = False,
    below: dict[str, Any] | None = None,
) -> tuple[str, Any]:
    """The name and configuration chosen by `argv`: `[name] [flags]`, where no name means `default`.

    `below` are settings, and maybe the name as "system", that hold where `argv` says nothing. Flags without
    an effect are refused unless they `may_be_idle`. `--help` prints (where `show`, i.e. on one rank) and
    exits with 0; a mistake raises `UserError`.
    """
    below = dict(below or {})
    stored = below.pop("system", default)
    if argv and argv[0] in ("-h", "--help"):
        if show:
            print(f"{description}\nSystems: {', '.join(commands)} (no name: {default}).")
            print("Flags of a system: " + ", ".join(f"{prog} {name} --help" for name in commands))
        raise SystemExit(0)
    name, flags = (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else (stored, argv)
    if name not in commands:
        raise UserError(f"unknown system {name!r}: choose one of {', '.join(commands)}")
    if below and name != stored:
        raise UserError(f"{name}: the settings that are given are of {stored}; leave the name out")
    how: dict[str, Any] = {"show": show, "may_be_idle": may_be_idle, "below": below}
    return name, parse_flags(commands[name], flags, f"{prog} {name}", **how)


def parse_flags(
    settings_class: type[Settings],
    flags: list[str],
    prog: str,
    *,
    show: bool = True,
    may_be_idle: bool = False,
    below: dict[str, Any] | None = None,
) -> Settings:
    """An instance of a dataclass from flags named after its fields; underscores and hyphens both work.

    The class may have `ALIASES` {old name: name} and `VALUE_ALIASES` {name: {old value: value}}, and a class
    method `defaults(given)` that makes the defaults from the flags given {name: text}, where they depend on
    some of them. Settings `below` hold where no flag is given. Raises `UserError` for a mistake.
    """
    flags = current(settings_class, flags)
    given = given_by(flags)
    flags = [*unless_given(settings_class, below or {}, given), *flags]
    defaults = getattr(settings_class, "defaults", None)
    default = defaults(given_by(flags)) if defaults else None
    nested, flat = in_groups(settings_class, default)
    out, errors = sys.stdout if show else io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(out):
            found: Any = tyro.cli(
                nested,
                prog=prog,
                description=inspect.getdoc(settings_class),
                args=flags,
                use_underscores=True,
                config=(tyro.conf.FlagConversionOff, tyro.conf.OmitArgPrefixes),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(f"{one_line(errors.getvalue())} (see {prog} --help)") from None
    settings = flat(found)
    for name, where in idle(settings).items():
        usual = getattr(settings_class if default is None else default, name)
        if name in given and getattr(settings, name) != usual and not may_be_idle:
            raise UserError(without_effect(name, where))
    return settings


def unless_given(settings_class: type, below: dict[str, Any], given: dict[str, str]) -> list[str]:
    """The settings as flags, but for those given; raises `UserError` for what is no setting."""
    known = {field.name for field in dataclasses.fields(settings_class)}
    words = current(settings_class, [f"--{name}={value}" for name, value in below.items()])
    for word, name in zip(words, given_by(words), strict=True):
        if name not in known:
            raise UserError(f"{word[2:]}: no setting has this name; leave it out")
    return [word for word, name in zip(words, given_by(words), strict=True) if name not in given]


def without_effect(name: str, where: str) -> str:
    """What is wrong with a flag that has an effect only elsewhere."""
    return f"--{name}: has an effect only with {where}; leave it out"


def idle(settings: Any) -> dict[str, str]:
    """Settings that have no effect beside the others, and where they have one."""
    hints = typing.get_type_hints(type(settings), include_extras=True)
    said = ((name, extra) for name, hint in hints.items() for extra in extras(hint))
    return {name: e.where for name, e in said if isinstance(e, Applies) and not e.when(settings)}


def current(settings_class: type, flags: list[str]) -> list[str]:
    """Flags with names and values of today."""
    aliases, values = renames(settings_class)
    words, name = [], ""
    for word in flags:
        start, value = "", word
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            name = aliases.get(name, name)
            start = f"--{name}{equals}"
        today = {str(old): str(new) for old, new in values.get(name, {}).items()}
        value = os.path.expanduser(value)  # a shell does so only where the word begins with ~
        words.append(start + today.get(value, value))
    return words


def given_by(flags: list[str]) -> dict[str, str]:
    """The values of `--name value` and `--name=value`."""
    given: dict[str, str] = {}
    for word, following in zip(flags, [*flags, ""][1:], strict=True):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            given[name] = value if equals else following
    return given


def renames(settings_class: type) -> tuple[dict[str, str], dict[str, dict]]:
    """A class's old names of settings, and its old values."""
    return getattr(settings_class, "ALIASES", {}), getattr(settings_class, "VALUE_ALIASES", {})


def from_stored(settings_class: type[Settings], stored: dict[str, Any]) -> Settings:
    """Settings from what config.json holds, under old or new names; what it lacks has its default.

    A class may say in `BEFORE` what a setting was before it could be chosen, where that is not its default.

    Raises `UserError` for what is no configuration.
    """
    known = {field.name for field in dataclasses.fields(settings_class)}  # type: ignore[arg-type]
    found = {name: value for name, value in renamed(settings_class, stored).items() if name in known}
    found = {**getattr(settings_class, "BEFORE", {}), **found}
    try:
        defaults = getattr(settings_class, "defaults", None)
        if not defaults:
            return settings_class(**found)
        return dataclasses.replace(defaults(found), **found)
    except TypeError as error:
        raise UserError(f"config.json: {error}") from None


def renamed(settings_class: type, stored: dict[str, Any]) -> dict[str, Any]:
    """Stored settings under today's names and with today's values."""
    aliases, values = renames(settings_class)
    found: dict[str, Any] = {}
    for name, value in stored.items():
        name = aliases.get(name, name)
        old = values.get(name, {})
        try:
            value = old.get(value, value)
        except TypeError:  # a value that cannot be looked up is none of the old ones
            pass
        found[name] = value
    return found


def in_groups(settings_class: type, default: Any) -> tuple[type, Any]:
    """A dataclass of dataclasses, one for each `Group`, and the function that makes one instance of them."""
    hints = typing.get_type_hints(settings_class, include_extras=True)
    texts = field_texts(settings_class)
    groups: dict[str, list[Any]] = {}
    title = "flags"
    for field in dataclasses.fields(settings_class):
        hint = hints[field.name]
        title = next((extra.title for extra in extras(hint) if isinstance(extra, Group)), title)
        value = field.default if default is None else getattr(default, field.name)
        if typing.get_origin(plain(hint)) is Literal and value not in typing.get_args(plain(hint)):
            value = field.default  # a mistake: tyro is to tell of it
        documented: Any = Annotated[plain(hint), tyro.conf.arg(help=texts.get(field.name, ""))]
        groups.setdefault(title, []).append((field.name, documented, dataclasses.field(default=value)))
    members = []
    for title, fields in groups.items():
        group = dataclasses.make_dataclass(title.capitalize(), fields, frozen=True)
        group.__doc__ = ""
        members.append((title, group, dataclasses.field(default_factory=group)))
    nested = dataclasses.make_dataclass("Flags", members, frozen=True)

    def flat(found: Any) -> Any:
        values: dict[str, Any] = {}
        for title in groups:
            values.update(vars(getattr(found, title)))
        return settings_class(**values)

    return nested, flat


def extras(hint: Any) -> tuple:
    """What an `Annotated` type says beside the type."""
    return getattr(hint, "__metadata__", ())


def plain(hint: Any) -> Any:
    """The type alone."""
    return hint.__origin__ if extras(hint) else hint


@functools.cache
def field_texts(settings_class: type) -> dict[str, str]:
    """The sentence below each field of a dataclass, its bases included."""
    texts: dict[str, str] = {}
    for base in reversed(settings_class.__mro__[:-1]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for node, below in zip(body.body, body.body[1:], strict=False):
            if isinstance(node, ast.AnnAssign) and isinstance(below, ast.Expr):
                assert isinstance(node.target, ast.Name) and isinstance(below.value, ast.Constant)
                texts[node.target.id] = " ".join(str(below.value.value).split())
    return texts


def one_line(text: str) -> str:
    """The message of tyro's box of several lines as one line, without its title and the flag's help text.

    Where the terminal's encoding has no such characters, the box is drawn in spaces and dashes.
    """
    _, *lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() or [""]
    lines = [line.strip("│╰╯─ ") for line in lines]
    body = " ".join(line for line in lines if line.strip("-"))
    return re.split(r"Argument helptext|For full helptext|Similar", body)[0].strip()[:MAX_MESSAGE]


def check(config: Any) -> None:
    """Refuse numbers and texts that cannot be meant; the message names the flag."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for name in (field.name for field in dataclasses.fields(config)):
        value, said = getattr(config, name), extras(hints[name])
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and not math.isfinite(value):
            raise UserError(f"--{name} {value}: must be a finite number")
        if number and abs(value) > 1e12:
            raise UserError(f"--{name} {value}: too large")
        if isinstance(value, str) and (len(value) > 500 or "\n" in value or "\0" in value):
            raise UserError(f"--{name}: must be one line of at most 500 characters")
        if value == "" and MAY_BE_EMPTY not in said:
            raise UserError(f"--{name}: must not be empty")
        for limits in said:
            if isinstance(limits, Within) and number and (complaint := limits.complaint(value)):
                raise UserError(f"--{name} {value}: {complaint}")


def check_outputs(settings: Any) -> None:
    """Refuse paths of outputs that cannot be written, before the work; nothing is made. For one rank only."""
    for name, hint in typing.get_type_hints(type(settings), include_extras=True).items():
        path = getattr(settings, name)
        for output in extras(hint):
            if isinstance(output, Output) and path:
                check_output(f"--{name} {path}", path, output)


def check_output(what: str, path: str, output: Output = OUTPUT_FILE) -> None:
    """Refuse the path of an output that cannot be written, `what` in the message; nothing is made."""
    try:
        if Path(path).suffix in filter(None, output.added):
            raise ValueError(f"{', '.join(output.added)} are added; leave the ending out")
        for ending in output.added:
            files.check_output(Path(path + ending), output.endings, output.folder)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{what}: cannot be written ({reason})") from None


def check_run_name(config: Any) -> None:
    """`model_name` names a folder inside `checkpoint_dir`, nothing else."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", config.model_name):
        raise UserError(
            f"--model_name {config.model_name!r}: it names a folder; use letters, digits, '.', '_' and '-'"
        )
