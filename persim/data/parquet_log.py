"""Logs in Parquet, through PyArrow: a file, or a folder of files, which may be partitioned."""

import dataclasses
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from persim.data.checks import check_size, fault
from persim.data.clock import Moments
from persim.data.columns import MAX_COLUMNS, Columns, understand
from persim.data.csv_log import Codes
from persim.data.form import Form
from persim.data.table import Table


@dataclasses.dataclass(frozen=True)
class Part:
    """The R rows of one file; `values` maps columns to [R], names as their numbers."""

    path: Path
    rows: int
    dated: bool
    action_kind: str
    values: dict[str, np.ndarray]


def read_parquet(path: Path, family: Any = None, form: Form | None = None) -> Table:
    """The rows of a Parquet file, or of all below a folder, where folders `name=value` are columns.

    Faults are placed at `file:column:row`, rows counted from 0. Raises `UserError`, for: no PyArrow (extra
    [data]); a damaged file; no rows; more than the memory holds; files of a folder that have other columns
    than the first; a column that does not hold numbers; agents that are neither text nor whole numbers; and
    what `understand` refuses.
    """
    form = form or Form()
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise fault(str(path), "Parquet needs PyArrow; pip install 'personalised-meta-rl[data]'") from None
    columns, parts, codes, size = None, [], {}, 0
    for file in parquet_files(path) if path.is_dir() else [path]:
        fixed = dict(part.split("=", 1) for part in file.relative_to(path).parts[:-1] if "=" in part)
        fixed = {name: urllib.parse.unquote(value) for name, value in fixed.items()}
        try:
            with parquet.ParquetFile(file) as opened:
                header = [*(n for n in opened.schema_arrow.names if n not in fixed), *fixed]
                if columns is None:
                    columns = _columns(file, header, family, form)
                    codes = {name: Codes() for name in columns.texts}
                    schema = {field.name: _values_of(field.type) for field in opened.schema_arrow}
                    kind, known = schema.get(columns.action[0]), family is not None
                    known = known or form.action_kind == "continuous" or len(columns.action) > 1
                    if _is_label(kind) and not known:
                        codes[columns.action[0]] = Codes()
                size += _size(opened, len(columns.texts) + 1 + len(columns.numbers))
                check_size(str(path), size)
                if opened.metadata.num_rows:
                    parts.append(_read(file, opened, fixed, columns, codes))
        except UserError:
            raise
        except Exception as error:  # a damaged file can fail in any way, and every way means the same
            kind = f"{type(error).__name__}: {error}"[:200]
            raise fault(str(file), f"cannot be read as Parquet ({kind}); write it again") from None
    assert columns is not None  # there is a file: `read` has looked
    if not parts:
        raise fault(f"{path}:{columns.agent}:0", "there are no rows; give a row for each step")
    return _join(path, columns, codes, parts)


def parquet_files(folder: Path) -> list[Path]:
    """The files in a folder and in its partitions, folders `name=value`, by name."""
    found = [*folder.glob("*.parquet"), *folder.glob("*=*/**/*.parquet")]
    return sorted(file for file in found if file.is_file() and not file.name.startswith((".", "_")))


def _columns(file: Path, header: list[str], family: Any, form: Form) -> Columns:
    if len(header) > MAX_COLUMNS:
        raise fault(str(file), f"more than {MAX_COLUMNS} columns; give fewer")
    columns = understand(header, lambda j: f"{file}:{header[j] if header else '-'}:0", family, form.columns)
    if columns.left_out:
        form.tell(f"{file}: columns left out: {', '.join(map(repr, columns.left_out))}"[:300])
    return columns


def _size(opened: Any, columns: int) -> int:
    """The bytes of a file's rows in memory, and no less than it says itself."""
    groups = (opened.metadata.row_group(i).total_byte_size for i in range(opened.num_row_groups))
    return max(opened.metadata.num_rows * columns * 8, sum(groups))


def _read(file: Path, opened: Any, fixed: dict[str, str], columns: Columns, codes: dict[str, Codes]) -> Part:
    """The columns of one file."""
    import pyarrow
    import pyarrow.types as types

    rows = opened.metadata.num_rows
    found: dict[str, np.ndarray] = {}
    schema = {field.name: field.type for field in opened.schema_arrow if field.name not in fixed}
    for name in [*columns.texts, columns.time, *columns.numbers]:
        if name not in schema and name not in fixed:
            raise fault(f"{file}:{name}:0", "there is no such column, as the first file has; add it")

    def column(name: str) -> Any:
        if name in fixed:
            return pyarrow.chunked_array(
                [pyarrow.array([fixed[name]]).take(pyarrow.array(np.zeros(rows, int)))]
            )
        return opened.read(columns=[name], use_threads=False).column(0)

    for name in codes:
        kind = _values_of(schema.get(name, pyarrow.string()))
        if not (types.is_integer(kind) or _is_text(kind) or (name in columns.action and _is_label(kind))):
            raise fault(f"{file}:{name}:0", f"column of {str(kind)[:40]}; give text or whole numbers")
        texts = column(name).cast(pyarrow.large_string()).fill_null("").combine_chunks().dictionary_encode()
        own = np.array([codes[name][text.strip()] for text in texts.dictionary.to_pylist()], np.int64)
        found[name] = own[np.asarray(texts.indices, np.int64)]
    for name in (name for name in columns.numbers if name not in codes):
        kind = _values_of(schema.get(name, pyarrow.string()))
        if not _is_number(kind) and name not in fixed:
            raise fault(f"{file}:{name}:0", f"column of {str(kind)[:40]}; give numbers")
        found[name] = _floats(column(name))
    kind = _values_of(schema.get(columns.time, pyarrow.string()))
    time = column(columns.time)
    moment = types.is_timestamp(kind) or types.is_date(kind)
    if moment:
        time = time.cast(pyarrow.timestamp("us", getattr(kind, "tz", None)), safe=False)
        found[columns.time] = _floats(time.cast(pyarrow.int64())) / 1e6
    elif _is_text(kind):
        found[columns.time] = _moments(file, columns.time, time.to_pylist())
    elif _is_number(kind):
        found[columns.time] = _floats(time)
    else:
        raise fault(f"{file}:{columns.time}:0", f"column of {str(kind)[:40]}; give numbers or timestamps")
    action = _values_of(schema.get(columns.action[0], pyarrow.string()))
    action_kind = "discrete" if types.is_integer(action) or _is_label(action) else "continuous"
    return Part(file, rows, moment or _is_text(kind), action_kind, found)


def _values_of(kind: Any) -> Any:
    import pyarrow.types as types

    return kind.value_type if types.is_dictionary(kind) else kind


def _is_number(kind: Any) -> bool:
    """Whether a column holds numbers, or nothing at all, as one file of many may."""
    import pyarrow.types as types

    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return number or types.is_null(kind)


def _is_text(kind: Any) -> bool:
    import pyarrow.types as types

    return types.is_string(kind) or types.is_large_string(kind)


def _is_label(kind: Any) -> bool:
    """Whether a column holds categories: text, or true and false."""
    import pyarrow.types as types

    return kind is not None and (_is_text(kind) or types.is_boolean(kind))


def _floats(column: Any) -> np.ndarray:
    import pyarrow

    return np.asarray(column.cast(pyarrow.float64(), safe=False), np.float64)


def _moments(file: Path, name: str, texts: list[str | None]) -> np.ndarray:
    """Texts in ISO 8601 as seconds since 1970."""
    moments, found = Moments(), []
    for i, text in enumerate(texts):
        try:
            found.append(moments[text or ""])
        except ValueError:
            wanted = "give numbers, timestamps or ISO 8601, e.g. 2024-03-01 06:05"
            raise fault(f"{file}:{name}:{i}", f"{name} is {str(text)[:40]!r}; {wanted}") from None
    return np.array(found)


def _join(path: Path, columns: Columns, codes: dict[str, Codes], parts: list[Part]) -> Table:
    """One table of the files' rows."""
    begins = np.cumsum([0, *(part.rows for part in parts)])

    def place(row: int | None, column: str) -> str:
        if row is None:
            return f"{parts[0].path}:{column}:0"
        at = int(np.searchsorted(begins, row, "right")) - 1
        return f"{parts[at].path}:{column}:{row - begins[at]}"

    dated = {part.dated for part in parts}
    if len(dated) > 1:
        raise fault(place(None, columns.time), "some files have dates here, others numbers; give one of them")

    def whole(name: str) -> np.ndarray:
        return np.concatenate([part.values[name] for part in parts])

    return Table(
        path=str(path),
        columns=columns,
        names=list(codes[columns.agent]),
        agent=whole(columns.agent),
        time=whole(columns.time),
        dated=dated.pop(),
        episode=whole(columns.episode) if columns.episode else None,
        values={name: whole(name) for name in columns.numbers},
        action_kind="discrete" if all(part.action_kind == "discrete" for part in parts) else "continuous",
        categories=list(codes[columns.action[0]]) if columns.action[0] in codes else None,
        place=place,
    )
