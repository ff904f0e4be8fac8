"""Logs in Parquet, through PyArrow."""

from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from persim.data.checks import fault
from persim.data.columns import MAX_COLUMNS, understand
from persim.data.table import Table

MAX_VALUES_PER_BYTE = 10  # real measurements do not shrink that much; a file made to fill the memory does


def read_parquet(path: Path, family: Any = None) -> Table:
    """The rows of a Parquet file; faults are placed at `file:column:row`, rows counted from 0.

    Raises `UserError`, for: no PyArrow (extra [data]); a damaged file; no rows; a column that does not hold
    numbers; agents that are neither text nor whole numbers; and what `understand` refuses.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise fault(str(path), "Parquet needs PyArrow; pip install 'personalised-meta-rl[data]'") from None
    try:
        with parquet.ParquetFile(path) as file:
            return _read(path, file, family)
    except UserError:
        raise
    except Exception as error:  # a damaged file can fail in any way, and every way means the same
        kind = f"{type(error).__name__}: {error}"[:200]
        raise fault(str(path), f"cannot be read as Parquet ({kind}); write it again") from None


def _read(path: Path, file: Any, family: Any) -> Table:
    import pyarrow
    import pyarrow.types as types

    header, rows = file.schema_arrow.names, file.metadata.num_rows
    if len(header) > MAX_COLUMNS:
        raise fault(str(path), f"more than {MAX_COLUMNS} columns; give fewer")
    columns = understand(header, lambda j: f"{path}:{header[j] if header else '-'}:0", family)
    if not rows:
        raise fault(f"{path}:agent:0", "there are no rows; give a row for each step")
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    most = MAX_VALUES_PER_BYTE * path.stat().st_size
    if rows * len(header) > most or sum(group.total_byte_size for group in groups) > 8 * most:
        raise fault(str(path), "holds far more than its size allows; write it again")
    for field in file.schema_arrow:
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        text = types.is_string(kind) or types.is_large_string(kind)
        number = types.is_integer(kind) or types.is_floating(kind)
        if not (types.is_integer(kind) or text if field.name == "agent" else number):
            wanted = "text or whole numbers" if field.name == "agent" else "numbers"
            raise fault(f"{path}:{field.name}:0", f"column of {str(field.type)[:40]}; give {wanted}")
    values: dict[str, np.ndarray] = {}
    read: dict[str, Any] = {"use_threads": False}
    for name in columns.numbers:
        column = file.read(columns=[name], **read).column(0)
        values[name] = np.asarray(column.cast(pyarrow.float64(), safe=False), np.float64)
    column = file.read(columns=["agent"], **read).column(0).cast(pyarrow.large_string())
    column = column.fill_null("").combine_chunks().dictionary_encode()
    agent = np.asarray(column.indices, np.int64)
    names = [name.strip() for name in column.dictionary.to_pylist()]
    if len(set(names)) < len(names):
        raise fault(f"{path}:agent:0", "two agents' names differ only in spaces; give other names")
    return Table(columns, names, agent, values, lambda row, column: f"{path}:{column}:{row or 0}")
