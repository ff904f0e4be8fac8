"""Logs in CSV: read at once by PyArrow where it is there and the file is plain, else piece by piece.

Both ways give the same. What PyArrow refuses is read piece by piece, which finds the line of the fault.
"""

import csv
import functools
import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from persim.data.checks import Place, check_size, fault
from persim.data.clock import Moments
from persim.data.columns import MAX_COLUMNS, Columns, understand
from persim.data.form import Form
from persim.data.table import NO_LABEL, Table

BLOCK = 1 << 20  # characters; also the longest line
SAMPLE = 100  # lines behind the header by which decimal commas and dates are found out
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks
MISSING = ("NA", "N/A", "NULL", "NONE")
# As PyArrow is told them; what is spelled otherwise is read piece by piece.
SPELLINGS = ["", *MISSING, *map(str.lower, MISSING), *map(str.title, MISSING), "nan", "NaN", "NAN"]


class Codes(dict):
    """A number for each key, in order of appearance."""

    def __missing__(self, key: Any) -> int:
        self[key] = len(self)
        return self[key]


@dataclass(frozen=True)
class Head:
    """What the first lines say: the header's line and fields, how fields and numbers are written."""

    path: Path
    line: int
    header: list[str]
    columns: Columns
    separator: str
    decimal: str
    dated: bool
    labelled: bool

    @property
    def texts(self) -> list[str]:
        """Columns of names, and the action where it is one of several categories."""
        return [*self.columns.texts, *(self.columns.action if self.labelled else [])]

    @property
    def numbers(self) -> list[str]:
        """Columns of numbers but `time`."""
        return [name for name in self.columns.numbers if name not in self.texts]

    def place(self, line: int, column: str) -> str:
        """Where a column stands in a line."""
        return f"{self.path}:{line}:{self.header.index(column) + 1}"


@dataclass
class Content:
    """What stands below the header; `lines` [R] are the rows' lines, None where nobody asked for them."""

    texts: dict[str, tuple[np.ndarray, list[str]]]
    time: np.ndarray
    values: dict[str, np.ndarray]
    whole: bool
    lines: np.ndarray | None = None


def read_csv(path: Path, family: Any = None, form: Form | None = None) -> Table:
    """The rows of a CSV in UTF-8, or in UTF-16 with its byte order mark, with any line ends, a row a line.

    Fields are separated by commas, semicolons, tabs or bars, whichever the header has most of; the file may
    be packed (.gz). Faults are placed at `file:line:column`, lines and columns counted from 1. Raises
    `UserError`, for: an empty file; no rows; a line of another length than the header's; bytes that are not
    UTF-8 or are NUL; a line, field or quote without end; text in a number; and what `understand` refuses.
    """
    form = form or Form()
    head = _head(path, family, form)
    content = _at_once(head) or _by_pieces(head)
    columns, values, categories = head.columns, content.values, None
    if head.labelled:
        codes, categories = content.texts[columns.action[0]]
        values = {**values, columns.action[0]: codes.astype(np.float64)}
    lines = functools.cache(lambda: _by_pieces(head).lines if content.lines is None else content.lines)

    def place(row: int | None, column: str) -> str:
        numbers = lines() if row is not None else None
        return head.place(head.line if numbers is None else int(numbers[row]), column)

    agent, names = content.texts[columns.agent]
    episode = None
    if columns.episode:
        episode, labels = content.texts[columns.episode]
        if "" in labels:
            row = int(np.flatnonzero(episode == labels.index(""))[0])
            raise fault(place(row, columns.episode), "episode is missing; give its number or name")
    return Table(
        path=str(path),
        columns=columns,
        names=names,
        agent=agent,
        time=content.time,
        dated=head.dated,
        episode=episode,
        values=values,
        action_kind="discrete" if head.labelled else "" if content.whole else "continuous",
        categories=categories,
        place=place,
    )


def _head(path: Path, family: Any, form: Form) -> Head:
    """What the first lines say; tells what was found out."""
    line, first, sample = _first_lines(path)
    separator = _separator(first)
    header = [field.strip() for field in _rows(path, line, [first], separator)[0][1]]
    if len(header) > MAX_COLUMNS:
        raise fault(f"{path}:{line}:{MAX_COLUMNS}", f"more than {MAX_COLUMNS} columns; give fewer")
    rows = []
    for text in sample:
        with suppress(csv.Error, StopIteration):  # a fault of a later line is found when it is read
            fields = next(csv.reader([text], delimiter=separator))
            rows.append(dict(zip(header, map(str.strip, fields), strict=False)))
    words = {name for row in rows for name, text in row.items() if _is_word(text)}
    columns = understand(header, lambda j: f"{path}:{line}:{j + 1}", family, form.columns, words)
    actions = {row.get(columns.action[0], "") for row in rows if len(columns.action) == 1}
    actions = {text for text in actions if text.upper() not in NO_LABEL}
    words_only = bool(actions) and not any(map(_is_number, actions))
    labelled = bool(form.labels) or (words_only and family is None and form.action_kind != "continuous")
    numbers = [row.get(name, "") for row in rows for name in columns.numbers]
    comma = any(re.fullmatch(r"[-+]?\d*,\d+", text) for text in numbers) and separator != ","
    decimal = form.decimal or ("," if comma and not any("." in text for text in numbers) else ".")
    told = [f"fields are separated by {SEPARATORS[separator]}"] if separator != "," else []
    told += ["numbers have decimal commas"] if decimal == "," and not form.decimal else []
    if columns.left_out:
        told.append(f"columns left out: {', '.join(map(repr, columns.left_out))}"[:200])
    if told:
        form.tell(f"{path}: {'; '.join(told)}")
    times = (row.get(columns.time, "") for row in rows)
    dated = _is_moment(next((text for text in times if text and text.upper() not in MISSING), ""))
    return Head(path, line, header, columns, separator, decimal, dated, labelled)


def _first_lines(path: Path) -> tuple[int, str, list[str]]:
    """The number and text of the first line that is not empty, and those behind it."""
    for number, lines in _blocks(path):
        for i, text in enumerate(lines):
            if text.strip():
                return number + i, text, lines[i + 1 : i + 1 + SAMPLE]
    raise fault(f"{path}:1:1", "the file is empty; give a header and a row for each step")


def _separator(first: str) -> str:
    plain = re.sub(r'"[^"]*"', "", first)
    return max(SEPARATORS, key=plain.count)


def _is_moment(text: str) -> bool:
    """Whether a time is a date rather than a number or nonsense."""
    try:
        float(text)
    except ValueError:
        return bool(re.match(r"\d{4}-\d\d", text))
    return False


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _is_word(text: str) -> bool:
    """Whether a field is neither missing nor a number nor a date."""
    return bool(text) and text.upper() not in MISSING and not _is_number(text) and not _is_moment(text)


def _at_once(head: Head) -> Content | None:
    """All rows by PyArrow; None without it, and for a file that it cannot read or that is not plain."""
    try:
        import pyarrow
        import pyarrow.csv
    except ImportError:
        return None
    try:
        data, columns = _bytes(head.path), head.columns
        if data.startswith(UTF_16):
            data = data.decode("utf-16").encode()
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeError):
        return None
    # Without quotes a row is its line cut at separators, as with the `csv` module.
    if b'"' in data or b"\0" in data:
        return None
    position = {name: str(head.header.index(name)) for name in [*head.texts, columns.time, *head.numbers]}
    kinds = {position[name]: pyarrow.float64() for name in head.numbers}
    kinds |= {position[name]: pyarrow.string() for name in head.texts}
    kinds[position[columns.time]] = pyarrow.string() if head.dated else pyarrow.float64()
    action = position[columns.action[0]]
    if not head.labelled:
        del kinds[action]  # whole numbers or not: the text tells
    try:
        table = pyarrow.csv.read_csv(
            pyarrow.BufferReader(data),
            read_options=pyarrow.csv.ReadOptions(
                skip_rows=head.line, column_names=[str(j) for j in range(len(head.header))], use_threads=False
            ),
            parse_options=pyarrow.csv.ParseOptions(delimiter=head.separator, quote_char=False),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=kinds,
                include_columns=list(dict.fromkeys(position.values())),
                null_values=SPELLINGS,
                decimal_point=head.decimal,
            ),
        )
        kind = table.column(action).type
        number = pyarrow.types.is_int64(kind) or pyarrow.types.is_float64(kind)
        if not table.num_rows or not (number or head.labelled):
            return None
        texts = {name: _named(table.column(position[name])) for name in head.texts}
        time = table.column(position[columns.time])
        moments = Moments()
        return Content(
            texts=texts,
            time=np.array([moments[text] for text in time.to_pylist()]) if head.dated else _floats(time),
            values={name: _floats(table.column(position[name])) for name in head.numbers},
            whole=pyarrow.types.is_int64(kind),
        )
    except (pyarrow.ArrowException, ValueError):
        return None


def _bytes(path: Path) -> bytes:
    """The whole file, unpacked."""
    if path.suffix.lower() != ".gz":
        return path.read_bytes()
    pieces, size = [], 0
    with gzip.open(path, "rb") as file:
        while piece := file.read(BLOCK):
            pieces.append(piece)
            size += len(piece)
            check_size(str(path), size)
    return b"".join(pieces)


def _floats(column: Any) -> np.ndarray:
    import pyarrow

    return np.array(column.cast(pyarrow.float64(), safe=False).to_numpy(), np.float64)


def _named(column: Any) -> tuple[np.ndarray, list[str]]:
    """Numbers [R] of the texts of a column, and the texts."""
    import pyarrow

    column = column.cast(pyarrow.large_string()).fill_null("").combine_chunks().dictionary_encode()
    return merged(np.asarray(column.indices, np.int64), column.dictionary.to_pylist())


def merged(numbers: np.ndarray, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Numbers [R] of stripped `names`, of which several may become one."""
    codes = Codes()
    today = np.array([codes[name.strip()] for name in names], np.int64)
    return today[numbers], list(codes)


def _by_pieces(head: Head) -> Content:
    """All rows, and their lines; finds the place of any fault."""
    columns, codes, moments = head.columns, {name: Codes() for name in head.texts}, Moments()
    pieces: list[dict[str, np.ndarray]] = []
    whole = True
    for number, lines in _blocks(head.path):
        rows = [row for row in _rows(head.path, number, lines, head.separator) if row[0] > head.line]
        if rows:
            piece, ints = _piece(head, rows, codes, moments)
            pieces.append(piece)
            whole &= ints
    if not pieces:
        place = f"{head.path}:{head.line + 1}:1"
        raise fault(place, "there are no rows after the header; give a row for each step")
    values = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    lines_, time = values.pop(""), values.pop(columns.time)
    texts = {name: (values.pop(name), list(codes[name])) for name in head.texts}
    return Content(texts, time, values, whole, lines_)


def _blocks(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield pieces of the file as (number of the first line, lines)."""
    number, rest, size = 1, "", 0
    packed = path.suffix.lower() == ".gz"
    opener: Any = gzip.open if packed else open
    try:
        with opener(path, "rb") as file:
            encoding = "utf-16" if file.read(2) in UTF_16 else "utf-8-sig"
        with opener(path, "rt", encoding=encoding, errors="surrogateescape", newline=None) as file:
            while text := file.read(BLOCK):
                size += len(text)
                check_size(str(path), size if packed else 0)
                *lines, rest = (rest + text).split("\n")
                if len(rest) > BLOCK:
                    place = f"{path}:{number + len(lines)}:1"
                    raise fault(place, f"a line of more than {BLOCK} characters; give one row a line")
                yield number, lines
                number += len(lines)
    except UnicodeDecodeError:
        raise fault(f"{path}:{number}:1", "not UTF-16, as it begins; save the file as UTF-8 text") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise fault(f"{path}:{number}:1", f"cannot be unpacked ({error}); pack it again") from None
    if rest:
        yield number, [rest]


def _rows(path: Path, number: int, lines: list[str], separator: str) -> list[tuple[int, list[str]]]:
    """The line numbers and fields of all lines that are not empty."""
    _check_characters(path, number, lines, separator)
    try:
        rows = list(csv.reader(lines, delimiter=separator, strict=True))
    except csv.Error:
        raise _bad_line(path, number, lines, separator) from None
    if len(rows) != len(lines):
        raise _bad_line(path, number, lines, separator)
    return [(number + i, row) for i, row in enumerate(rows) if row]


def _bad_line(path: Path, number: int, lines: list[str], separator: str) -> UserError:
    """The fault of the first line that is no row."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    i, what = 0, "a quote does not end in its line"
    try:
        while next(reader) is not None and reader.line_num == i + 1:
            i += 1
    except csv.Error as error:
        what = what if reader.line_num > i + 1 else str(error)
    return fault(f"{path}:{number + i}:1", f"{what}; give one row a line")


def _check_characters(path: Path, number: int, lines: list[str], separator: str) -> None:
    whole = "".join(lines)
    try:
        if "\0" not in whole and whole.encode():
            return
    except UnicodeEncodeError:
        pass
    for i, line in enumerate(lines):
        if bad := re.search("[\0\ud800-\udfff]", line):
            what = "a NUL byte" if bad[0] == "\0" else f"byte {ord(bad[0]) - 0xDC00:#x} is not UTF-8"
            column = line[: bad.start()].count(separator) + 1
            raise fault(f"{path}:{number + i}:{column}", f"{what}; save the file as UTF-8 text")


def _piece(
    head: Head, rows: list[tuple[int, list[str]]], codes: dict[str, Codes], moments: Moments
) -> tuple[dict[str, np.ndarray], bool]:
    """Columns of some rows, that called "" holding the lines' numbers; and whether actions are whole."""
    header, columns = head.header, head.columns
    lengths = {len(fields) for _, fields in rows}
    if lengths != {len(header)}:
        line, fields = next((line, fields) for line, fields in rows if len(fields) != len(header))
        at = f"{head.path}:{line}:{min(len(fields), len(header)) + 1}"
        raise fault(at, f"{len(fields)} fields under {len(header)} columns; give one for each column")
    piece = {"": np.fromiter((line for line, _ in rows), np.int64, len(rows))}
    fields_of = list(zip(*[fields for _, fields in rows], strict=True))
    for name in [*head.texts, columns.time, *head.numbers]:
        texts = fields_of[header.index(name)]

        def place(i: int, name: str = name) -> str:
            return head.place(rows[i][0], name)

        if name in codes:
            numbers = map(codes[name].__getitem__, map(str.strip, texts))
            piece[name] = np.fromiter(numbers, np.int64, len(rows))
        elif name == columns.time and head.dated:
            piece[name] = _moments(texts, name, place, moments)
        else:
            piece[name] = _numbers(texts, name, place, head.decimal)
    actions = "\n".join(fields_of[header.index(columns.action[0])])
    return piece, not re.search(r"[.,]|\d[eE]", actions)


def _moments(texts: Sequence[str], name: str, place: Place, moments: Moments) -> np.ndarray:
    """Moments as seconds since 1970."""
    found = []
    for i, text in enumerate(texts):
        try:
            found.append(moments[text])
        except ValueError as error:
            why = str(error) if "zone" in str(error) else "give ISO 8601, e.g. 2024-03-01 06:05"
            raise fault(place(i), f"{name} is {text[:40]!r}; {why}") from None
    return np.array(found)


def _numbers(texts: Sequence[str], name: str, place: Place, decimal: str) -> np.ndarray:
    """Texts as numbers, NaN for empty ones."""
    whole = "".join(texts)
    if decimal == "," and "." not in whole:
        texts, whole = [text.replace(",", ".") for text in texts], whole.replace(",", ".")
    try:
        if whole.isascii() and "_" not in whole:  # Python would read 1_0 as 10
            return np.fromiter(map(float, texts), np.float64, len(texts))
    except ValueError:
        pass
    return np.array([_number(text, name, lambda i=i: place(i)) for i, text in enumerate(texts)])


def _number(text: str, name: str, place: Place) -> float:
    text = text.strip()
    try:
        if text.isascii() and "_" not in text:
            return float(text) if text and text.upper() not in MISSING else np.nan
    except ValueError:
        pass
    date = re.match(r"\d+[-/.]\d+[-/.]\d+|\d+:\d\d", text)
    hint = "a number" + (", or a time in ISO 8601, e.g. 2024-03-01 06:05" if date else "")
    hint += ", or say --decimal ," if re.fullmatch(r"[-+]?\d*,\d+", text) else ""
    raise fault(place(), f"{name} is {text[:40]!r}; give {hint}")
