"""Good rows as compact records, one per row: what the ledger keeps, encrypted.

A record is a format byte, then every column of STORED in that order: one byte of length and so many bytes. Whole batches are
written and read at once; the only Python objects made per row are the records themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from engine.orders.columns import STORED, Bytes1D, OrderColumns, as_matrix
from keys.errors import Corrupt, InvalidInput, Unsupported

FORMAT: Final = 1
_WIDEST: Final = 255


def encode_records(columns: OrderColumns) -> list[bytes]:
    """One record per row. InvalidInput FIELD_TOO_LONG when a value has more than 255 bytes."""
    rows = columns.rows
    matrices = [as_matrix(columns[name]) for name in STORED]
    width = 1 + sum(1 + matrix.shape[1] for matrix in matrices)
    table = np.zeros((rows, width), np.uint8)
    used = np.zeros((rows, width), np.bool_)
    table[:, 0], used[:, 0] = FORMAT, True
    sizes = np.ones(rows, np.int64)
    at = 1
    for name, matrix in zip(STORED, matrices, strict=True):
        lengths = np.strings.str_len(columns[name])
        if int(lengths.max(initial=0)) > _WIDEST:
            raise InvalidInput("FIELD_TOO_LONG", f"a value of column {name} has more than {_WIDEST} bytes")
        table[:, at], used[:, at] = lengths, True
        end = at + 1 + matrix.shape[1]
        table[:, at + 1 : end] = matrix
        used[:, at + 1 : end] = np.arange(matrix.shape[1]) < lengths[:, None]
        sizes += 1 + lengths
        at = end
    octets = table[used].tobytes()
    ends = np.cumsum(sizes).tolist()
    return [octets[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)] if rows else []


def decode_records(records: Sequence[bytes]) -> OrderColumns:
    """The columns again. Corrupt RECORD_CORRUPT names the place in `records`; Unsupported RECORD_FORMAT for a newer format."""
    if len(records) == 1:
        return _decode_one(records[0])
    octets = b"".join(records)
    lengths = np.fromiter(map(len, records), np.int64, len(records))
    if len(records) and not lengths.all():
        raise Corrupt("RECORD_CORRUPT", f"stored record {int(np.argmin(lengths))} is empty")
    ends = np.cumsum(lengths)
    array = np.frombuffer(octets + bytes(_WIDEST + 1), np.uint8)
    at = ends - lengths
    formats = array[at]
    if (formats != FORMAT).any():
        row = int(np.argmax(formats != FORMAT))
        message = f"stored record {row} has format {int(formats[row])}; this version reads format {FORMAT}"
        raise Unsupported("RECORD_FORMAT", message)
    at = at + 1
    columns: dict[str, Bytes1D] = {}
    for name in STORED:
        # A position behind the end is noted below; until then it only has to stay inside the array.
        sizes = array[np.minimum(at, len(octets))].astype(np.int64)
        width = max(1, int(sizes.max(initial=1)))
        items = np.ndarray((len(array) - width + 1,), f"V{width}", array.data, strides=(1,))
        matrix = items[np.minimum(at + 1, len(octets))].view(np.uint8).reshape(len(records), width)
        matrix *= np.arange(width) < sizes[:, None]
        columns[name] = matrix.view(f"S{width}").reshape(len(records))
        at = at + 1 + sizes
    if (at != ends).any():
        raise Corrupt("RECORD_CORRUPT", f"stored record {int(np.argmax(at != ends))} does not end where its fields do")
    return OrderColumns(columns)


def _decode_one(record: bytes) -> OrderColumns:
    """A single row, as a line makes its cards: plain slices cost a tenth of the arrays. Raises as `decode_records`."""
    if not record:
        raise Corrupt("RECORD_CORRUPT", "stored record 0 is empty")
    if record[0] != FORMAT:
        raise Unsupported("RECORD_FORMAT", f"stored record 0 has format {record[0]}; this version reads format {FORMAT}")
    columns: dict[str, Bytes1D] = {}
    at = 1
    for name in STORED:
        end = at + 1 + record[at] if at < len(record) else len(record) + 1
        columns[name] = np.array([record[at + 1 : end]])
        at = end
    if at != len(record):
        raise Corrupt("RECORD_CORRUPT", "stored record 0 does not end where its fields do")
    return OrderColumns(columns)
