"""Logs in CSV, read piece by piece."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from persim.data.checks import Place, fault
from persim.data.columns import MAX_COLUMNS, Columns, understand
from persim.data.table import Table

BLOCK = 1 << 20  # characters; also the longest line


class _Codes(dict):
    """A number for each text, in order of appearance."""

    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return self[text]


def read_csv(path: Path, family: Any = None) -> Table:
    """The rows of a CSV in UTF-8, with or without a byte order mark, with any line ends, a row a line.

    Faults are placed at `file:line:column`, lines and columns counted from 1. Raises `UserError`, for: an
    empty file; no rows; a line of another length than the header's; bytes that are not UTF-8 or are NUL; a
    line, field or quote without end; text in a number; and what `understand` refuses.
    """
    header: list[str] = []
    columns: Columns | None = None
    first, codes = 0, _Codes()
    pieces: list[dict[str, np.ndarray]] = []
    for number, lines in _blocks(path):
        rows = _rows(path, number, lines)
        if columns is None and rows:
            (first, fields), *rows = rows
            header = [field.strip() for field in fields]
            if len(header) > MAX_COLUMNS:
                raise fault(f"{path}:{first}:{MAX_COLUMNS}", f"more than {MAX_COLUMNS} columns; give fewer")
            columns = understand(header, lambda j, first=first: f"{path}:{first}:{j + 1}", family)
        if rows:
            pieces.append(_piece(path, header, rows, codes))
    if columns is None:
        raise fault(f"{path}:1:1", "the file is empty; give a header and a row for each step")
    if not pieces:
        raise fault(f"{path}:{first + 1}:1", "there are no rows after the header; give a row for each step")
    values = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    numbers = values.pop("")

    def place(row: int | None, column: str) -> str:
        return f"{path}:{first if row is None else numbers[row]}:{header.index(column) + 1}"

    return Table(columns, list(codes), values.pop("agent"), values, place)


def _blocks(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield pieces of the file as (number of the first line, lines)."""
    number, rest = 1, ""
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline=None) as file:
        while text := file.read(BLOCK):
            *lines, rest = (rest + text).split("\n")
            if len(rest) > BLOCK:
                place = f"{path}:{number + len(lines)}:1"
                raise fault(place, f"a line of more than {BLOCK} characters; give one row a line")
            yield number, lines
            number += len(lines)
    if rest:
        yield number, [rest]


def _rows(path: Path, number: int, lines: list[str]) -> list[tuple[int, list[str]]]:
    """The line numbers and fields of all lines that are not empty."""
    _check_characters(path, number, lines)
    try:
        rows = list(csv.reader(lines, strict=True))
    except csv.Error:
        raise _bad_line(path, number, lines) from None
    if len(rows) != len(lines):
        raise _bad_line(path, number, lines)
    return [(number + i, row) for i, row in enumerate(rows) if row]


def _bad_line(path: Path, number: int, lines: list[str]) -> UserError:
    """The fault of the first line that is no row."""
    reader, i, what = csv.reader(lines, strict=True), 0, "a quote does not end in its line"
    try:
        while next(reader) is not None and reader.line_num == i + 1:
            i += 1
    except csv.Error as error:
        what = what if reader.line_num > i + 1 else str(error)
    return fault(f"{path}:{number + i}:1", f"{what}; give one row a line")


def _check_characters(path: Path, number: int, lines: list[str]) -> None:
    whole = "".join(lines)
    try:
        if "\0" not in whole and whole.encode():
            return
    except UnicodeEncodeError:
        pass
    for i, line in enumerate(lines):
        if bad := re.search("[\0\ud800-\udfff]", line):
            what = "a NUL byte" if bad[0] == "\0" else f"byte {ord(bad[0]) - 0xDC00:#x} is not UTF-8"
            column = line[: bad.start()].count(",") + 1
            raise fault(f"{path}:{number + i}:{column}", f"{what}; save the file as UTF-8 text")


def _piece(
    path: Path, header: list[str], rows: list[tuple[int, list[str]]], codes: _Codes
) -> dict[str, np.ndarray]:
    """Columns of some rows; that called "" holds the lines' numbers."""
    lengths = {len(fields) for _, fields in rows}
    if lengths != {len(header)}:
        line, fields = next((line, fields) for line, fields in rows if len(fields) != len(header))
        place = f"{path}:{line}:{min(len(fields), len(header)) + 1}"
        raise fault(place, f"{len(fields)} fields under {len(header)} columns; give one for each column")
    piece = {"": np.fromiter((line for line, _ in rows), np.int64, len(rows))}
    for position, texts in enumerate(zip(*[fields for _, fields in rows], strict=True)):
        name = header[position]
        if name == "agent":
            numbers = map(codes.__getitem__, map(str.strip, texts))
            piece[name] = np.fromiter(numbers, np.int64, len(rows))
        else:
            piece[name] = _numbers(texts, name, lambda i, c=position: f"{path}:{rows[i][0]}:{c + 1}")
    return piece


def _numbers(texts: Sequence[str], name: str, place: Place) -> np.ndarray:
    """Texts as numbers, NaN for empty ones."""
    try:
        whole = "".join(texts)
        if whole.isascii() and "_" not in whole:  # Python would read 1_0 as 10
            return np.fromiter(map(float, texts), np.float64, len(texts))
    except ValueError:
        pass
    return np.array([_number(text, name, lambda i=i: place(i)) for i, text in enumerate(texts)])


def _number(text: str, name: str, place: Place) -> float:
    text = text.strip()
    try:
        if text.isascii() and "_" not in text:
            return float(text) if text and text.upper() not in ("NA", "N/A", "NULL", "NONE") else np.nan
    except ValueError:
        pass
    raise fault(place(), f"{name} is {text[:40]!r}; give a number")
