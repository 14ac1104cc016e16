"""Text columns to card bytes, a whole column at a time.

A column is either a numpy 'S' array (n,) or a uint8 matrix (n, width) of characters, NUL after the text. Results are uint8
matrices (n, length).

Codecs: `an` and `raw` left-aligned, 00 fill; `gb` the same, but text that is too long is cut at a character's end (GB 18030);
`cn` BCD left-aligned, F fill (LD/T 32, EMV format cn); `n` BCD right-aligned, 0 fill (EMV format n).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.profiles.model import Codec, Item
from keys.errors import InvalidInput

Bytes2D = npt.NDArray[np.uint8]
Column = npt.NDArray[Any]

# ASCII -> nibble; NUL is the fill of cn, D separates PAN and date in track 2; everything else is an error (0xFF).
_NIBBLE: Final = np.full(256, 0xFF, np.uint8)
_NIBBLE[ord("0") : ord("9") + 1] = np.arange(10, dtype=np.uint8)
_NIBBLE[ord("D")] = 0xD
_NIBBLE[0] = 0xF


def as_matrix(column: Column) -> Bytes2D:
    """The column as characters, (n, width)."""
    if column.ndim == 2:
        return np.asarray(column, np.uint8)
    flat = np.ascontiguousarray(column)
    return flat.view(np.uint8).reshape(len(flat), flat.dtype.itemsize)


def fit(matrix: Bytes2D, width: int) -> Bytes2D:
    """The matrix at exactly `width` columns, 00 filled; InvalidInput FIELD_TOO_LONG when a text does not fit."""
    if matrix.shape[1] > width and matrix[:, width:].any():
        row = int(np.nonzero(matrix[:, width:].any(axis=1))[0][0])
        raise InvalidInput("FIELD_TOO_LONG", f"text of row {row} is longer than the {width} bytes of its field")
    out = np.zeros((len(matrix), width), np.uint8)
    shared = min(width, matrix.shape[1])
    out[:, :shared] = matrix[:, :shared]
    return out


def join(columns: Mapping[str, Column], items: Sequence[Item], rows: int) -> Bytes2D:
    """The items side by side. With several items each must have its full width in every row."""
    pieces: list[Bytes2D] = []
    for item in items:
        if item.text is not None:
            pieces.append(np.tile(np.frombuffer(item.text.encode("ascii"), np.uint8), (rows, 1)))
            continue
        if item.field is None or item.field not in columns:
            raise InvalidInput("FIELD_UNKNOWN", f"there is no column {item.field!r}")
        matrix = as_matrix(columns[item.field])
        pieces.append(matrix if item.slice is None else matrix[:, item.slice[0] : item.slice[1]])
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)


def bcd(text: Bytes2D, length: int, *, right: bool) -> Bytes2D:
    """Digits to BCD, (n, length). `right`: number aligned right with 0 fill, else left with F fill."""
    nibbles = _NIBBLE[text]
    if (nibbles == 0xFF).any():
        raise InvalidInput("NOT_DIGITS", "text for a BCD field holds something other than digits")
    wide = np.full((len(text), 2 * length), 0 if right else 0xF, np.uint8)
    if right:
        for row in range(len(text)):  # numbers are rare and short; only their lengths differ
            digits = nibbles[row][nibbles[row] != 0xF]
            if len(digits) > 2 * length:
                raise InvalidInput("FIELD_TOO_LONG", f"number of row {row} has more than {2 * length} digits")
            wide[row, 2 * length - len(digits) :] = digits
    else:
        if nibbles.shape[1] > 2 * length and (nibbles[:, 2 * length :] != 0xF).any():
            raise InvalidInput("FIELD_TOO_LONG", f"a number has more than {2 * length} digits")
        shared = min(nibbles.shape[1], 2 * length)
        wide[:, :shared] = nibbles[:, :shared]
    packed: Bytes2D = np.bitwise_or(np.left_shift(wide[:, 0::2], 4), wide[:, 1::2], dtype=np.uint8)
    return packed


def cut_gb(matrix: Bytes2D, length: int) -> Bytes2D:
    """GB 18030 text cut to `length` bytes at the end of a character."""
    out = np.zeros((len(matrix), length), np.uint8)
    shared = min(length, matrix.shape[1])
    out[:, :shared] = matrix[:, :shared]
    if matrix.shape[1] > length:
        for row in np.nonzero(matrix[:, length])[0]:
            text = matrix[row].tobytes().rstrip(b"\0").decode("gb18030")
            while len(text.encode("gb18030")) > length:
                text = text[:-1]
            encoded = text.encode("gb18030")
            out[row] = 0
            out[row, : len(encoded)] = np.frombuffer(encoded, np.uint8)
    return out


def encode(columns: Mapping[str, Column], items: Sequence[Item], codec: Codec, length: int, rows: int) -> Bytes2D:
    """One field of the card for every row, (rows, length)."""
    text = join(columns, items, rows)
    if codec in ("cn", "n"):
        return bcd(text, length, right=codec == "n")
    return cut_gb(text, length) if codec == "gb" else fit(text, length)
