"""Text columns to card bytes, a whole column at a time.

A column is either a numpy 'S' array (n,) or a uint8 matrix (n, width) of characters, NUL after the text.

Codecs: `an` and `raw` left-aligned, 00 fill; `gb` the same, but text that is too long is cut at a character's end (GB 18030);
`cn` BCD left-aligned, F fill (LD/T 32, EMV format cn); `n` BCD right-aligned, 0 fill (EMV format n).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.profiles.plan import Slot, TextFill, TextPlan
from keys.errors import InvalidInput

Bytes2D = npt.NDArray[np.uint8]
Column = npt.NDArray[Any]

# ASCII -> nibble; NUL is the fill of cn, D separates PAN and date in track 2; everything else is an error (0xFF).
_NIBBLE: Final = np.full(256, 0xFF, np.uint8)
_NIBBLE[ord("0") : ord("9") + 1] = np.arange(10, dtype=np.uint8)
_NIBBLE[ord("D")] = 0xD
_NIBBLE[0] = 0xF
_NIBBLES: Final = _NIBBLE.tobytes()


def as_matrix(column: Column) -> Bytes2D:
    """The column as characters, (n, width); InvalidInput WRONG_SHAPE when it is neither kind of column."""
    if column.ndim == 2 and column.dtype == np.uint8:
        return column
    if column.ndim != 1 or column.dtype.kind != "S":
        raise InvalidInput("WRONG_SHAPE", f"a column of {column.dtype} with {column.ndim} dimensions is no column of text")
    flat = np.ascontiguousarray(column)
    return flat.view(np.uint8).reshape(len(flat), flat.dtype.itemsize)


def text_columns(plan: TextPlan, columns: Mapping[str, Column], rows: int) -> dict[str, Bytes2D]:
    """The columns that the plan needs, each (rows, width); InvalidInput FIELD_UNKNOWN, and WRONG_SHAPE: one row never stands for many."""
    matrices = {}
    for name in plan.fields:
        if name not in columns:
            raise InvalidInput("FIELD_UNKNOWN", f"there is no column {name!r}")
        matrices[name] = as_matrix(columns[name])
        if len(matrices[name]) != rows:
            raise InvalidInput("WRONG_SHAPE", f"column {name} has {len(matrices[name])} rows, the batch has {rows}")
    return matrices


def write_texts(plan: TextPlan, columns: Mapping[str, Bytes2D], image: Bytes2D, first: int = 0) -> None:
    """Every text of the plan into images (n, image_len), from row `first` of the columns on.

    Raises InvalidInput naming field and row: FIELD_TOO_LONG, FIELD_TOO_SHORT, NOT_DIGITS.
    """
    rows = len(image)
    source = np.zeros((rows, plan.width), np.uint8)
    source[:, : len(plan.constants)] = np.frombuffer(plan.constants, np.uint8)
    for slot in plan.slots:
        _place(source[:, slot.start : slot.start + slot.width], slot, columns[slot.field][first : first + rows], first)
    image[:, plan.byte_to] = np.take(source, plan.byte_from, axis=1)
    nibbles = np.take(_NIBBLE, source)
    high, low = np.take(nibbles, plan.bcd_high, axis=1), np.take(nibbles, plan.bcd_low, axis=1)
    if high.size and max(high.max(), low.max()) == 0xFF:
        _refuse_digits(plan, high, low, first)
    image[:, plan.bcd_to] = high << np.uint8(4) | low
    for fill in plan.cuts:
        image[:, fill.offset : fill.offset + fill.length] = _cut(fill, columns, first, rows)


def write_text(plan: TextPlan, columns: Mapping[str, Column], image: Bytes2D) -> bool:
    """`write_texts` for one card (image_len,), in a tenth of the steps. False where it is not so simple, or wrong: then nothing is said,
    and `write_texts` decides.
    """
    source = bytearray(plan.constants).ljust(plan.width, b"\0")
    for slot in plan.slots:
        text = _text_of(columns, slot.field)
        if text is None or len(text) > slot.width or (slot.full and (len(text) != slot.width or 0 in text)):
            return False
        source[slot.start : slot.start + len(text)] = text
    octets = np.frombuffer(source, np.uint8)
    nibbles = np.frombuffer(source.translate(_NIBBLES), np.uint8)
    high, low = nibbles.take(plan.bcd_high), nibbles.take(plan.bcd_low)
    packed = high << np.uint8(4) | low
    if 0xFF in (high.tobytes() + low.tobytes()):
        return False
    cuts = []
    for fill in plan.cuts:
        item = fill.items[0]
        text = _text_of(columns, item.field or "")
        if len(fill.items) != 1 or item.slice is not None or text is None or 0 in text:
            return False
        cuts.append(text if len(text) <= fill.length else text[: _last_character(text, fill.length)])
    image[plan.byte_to] = octets.take(plan.byte_from)
    image[plan.bcd_to] = packed
    for fill, text in zip(plan.cuts, cuts, strict=True):
        image[fill.offset : fill.offset + fill.length] = np.frombuffer(text.ljust(fill.length, b"\0"), np.uint8)
    return True


def _text_of(columns: Mapping[str, Column], name: str) -> bytes | None:
    """The one text of a column without the NULs after it; None where it is no column of one text."""
    column = columns.get(name)
    if column is None or len(column) != 1:
        return None
    if column.dtype.kind == "S" and column.ndim == 1:
        return bytes(column[0])
    return column.tobytes() if column.dtype == np.uint8 and column.ndim == 2 else None


def _place(place: Bytes2D, slot: Slot, matrix: Bytes2D, first: int) -> None:
    if matrix.shape[1] > slot.width:
        beyond = matrix[:, slot.width :].any(axis=1)
        if beyond.any():
            row = first + int(beyond.argmax())
            raise InvalidInput("FIELD_TOO_LONG", f"{slot.field} of row {row} has more than {slot.width} characters")
        matrix = matrix[:, : slot.width]
    place[:, : matrix.shape[1]] = matrix
    if slot.full and not place.all():
        row = first + int((place == 0).any(axis=1).argmax())
        raise InvalidInput("FIELD_TOO_SHORT", f"{slot.field} of row {row} does not have {slot.width} characters")


def _refuse_digits(plan: TextPlan, high: Bytes2D, low: Bytes2D, first: int) -> None:
    row, at = np.argwhere((high == 0xFF) | (low == 0xFF))[0]
    place = int((plan.bcd_high if high[row, at] == 0xFF else plan.bcd_low)[at])
    name = next((s.field for s in plan.slots if s.start <= place < s.start + s.width), "a constant text")
    raise InvalidInput("NOT_DIGITS", f"{name} of row {first + row} goes into a BCD field and holds something other than digits")


def _cut(fill: TextFill, columns: Mapping[str, Bytes2D], first: int, rows: int) -> Bytes2D:
    pieces = []
    for item in fill.items:
        if item.text is not None:
            pieces.append(np.tile(np.frombuffer(item.text.encode("ascii"), np.uint8), (rows, 1)))
            continue
        matrix = columns[item.field or ""][first : first + rows]
        pieces.append(matrix if item.slice is None else matrix[:, item.slice[0] : item.slice[1]])
    return cut_gb(np.concatenate(pieces, axis=1), fill.length)


def cut_gb(matrix: Bytes2D, length: int) -> Bytes2D:
    """GB 18030 text cut to `length` bytes at the end of a character."""
    out = np.zeros((len(matrix), length), np.uint8)
    shared = min(length, matrix.shape[1])
    out[:, :shared] = matrix[:, :shared]
    if matrix.shape[1] > length:
        for row in np.nonzero(matrix[:, length])[0]:
            out[row, _last_character(matrix[row].tobytes(), length) :] = 0
    return out


def _last_character(text: bytes, length: int) -> int:
    """Where the last whole character within `length` bytes ends: one byte below 80, four if a digit is second, else two."""
    end = 0
    while True:
        size = 1 if text[end] < 0x80 else 4 if text[end + 1 : end + 2].isdigit() else 2
        if end + size > length:
            return end
        end += size
