"""Parquet order files: read in bounded batches and written as the CSV text that everything else of this room reads.

Row n of the file becomes line n + 1, under its heading line, as in a CSV file. Records end with CR, and a line break inside an
address is written as LF, so that it moves no later row's number. Text columns are taken as they are; whole numbers become digits
and dates YYYYMMDD. A column of an order in any other type is refused by name: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engine.orders.columns import is_order_heading, printable
from keys.errors import InvalidInput

if TYPE_CHECKING:
    import pyarrow as pa

    from engine.orders.framing import BinaryReader

MAGIC: Final = b"PAR1"
BATCH_ROWS: Final = 8192
_END: Final = b"\r"


def is_parquet(reader: BinaryReader) -> bool:
    """Whether the file begins as a Parquet file does; no text of an order file begins so. The reader is back at its start."""
    reader.seek(0)
    head = reader.read(len(MAGIC))
    reader.seek(0)
    return head == MAGIC


def row_count(path: Path) -> int:
    """Rows of a Parquet file, from its footer; InvalidInput ORDERS_PARQUET."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(error) from None


def csv_of(reader: BinaryReader) -> Iterator[bytes]:
    """The file as CSV in UTF-8, heading line first, a batch of rows at a time.

    Raises InvalidInput ORDERS_PARQUET for a file that is damaged, cut, or has an order's column in a type that is no text.
    """
    import pyarrow as pa  # a third of a second that a CSV order does not need
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(reader, pre_buffer=False)
        schema = file.schema_arrow
        kept = [i for i, kind in enumerate(schema.types) if _is_readable(schema.names[i], kind)]
        names = [schema.names[i] for i in kept]
        if len(names) < 2:
            raise InvalidInput("ORDERS_PARQUET", f"the Parquet file has {len(names)} columns of text; an order file has more")
        yield ",".join(_heading(name) for name in names).encode() + _END
        for batch in file.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
            yield _rows([batch.column(i) for i in kept])
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(error) from None


def _unreadable(error: Exception) -> InvalidInput:
    return InvalidInput("ORDERS_PARQUET", f"the Parquet file cannot be read: {printable(str(error), 160)}")


def _is_readable(name: str, kind: pa.DataType) -> bool:
    """Whether a column becomes text here; InvalidInput ORDERS_PARQUET for an order's column that cannot, others are left out."""
    from pyarrow import types

    text = kind.value_type if types.is_dictionary(kind) else kind
    if types.is_string(text) or types.is_large_string(text) or types.is_integer(text) or types.is_date(text) or types.is_null(text):
        return True
    if is_order_heading(name):
        message = f"column {printable(name)} has type {printable(str(kind))}; it must be text, a whole number or a date"
        raise InvalidInput("ORDERS_PARQUET", message)
    return False


def _heading(name: str) -> str:
    clean = name.replace("\r", " ").replace("\n", " ").replace('"', '""')
    return f'"{clean}"' if '"' in clean or "," in clean else clean


def _rows(columns: list[pa.Array]) -> bytes:
    import pyarrow.compute as pc

    records = pc.binary_join_element_wise(*[_field(column) for column in columns], ",")
    return b"".join(text.encode() + _END for text in records.to_pylist())


def _field(column: pa.Array) -> pa.Array:
    """One column as CSV fields by RFC 4180; a missing value is an empty field."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    text = pc.strftime(column, format="%Y%m%d") if types.is_date(column.type) else column.cast(pa.string())
    text = pc.fill_null(text, "")
    special = pc.match_substring_regex(text, '[",\r\n]')
    if not pc.any(special).as_py():
        return text
    quoted = pc.replace_substring(text, '"', '""')
    quoted = pc.replace_substring_regex(quoted, "\r\n?", "\n")
    return pc.if_else(special, pc.binary_join_element_wise('"', quoted, '"', ""), text)
