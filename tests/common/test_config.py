"""Mistakes on the command line: one line that names them."""

import dataclasses
import io
import sys

import pytest

from common.config import parse_flags
from common.errors import UserError


@dataclasses.dataclass(frozen=True)
class Settings:
    """Some settings."""

    rounds: int = 3
    """How many."""


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_mistake_is_named_whatever_characters_the_terminal_has(encoding, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    for flags, told in (
        (["--rounds", "many"], "'many'"),
        (["--bouts", "3"], "--bouts"),
        (["--rounds"], "--rounds"),
    ):
        with pytest.raises(UserError) as mistake:
            parse_flags(Settings, flags, "program")
        (line,) = str(mistake.value).splitlines()
        assert told in line and line.endswith("(see program --help)") and not set("│─╭╰╮╯") & set(line)
        assert "---" not in line and "  " not in line
