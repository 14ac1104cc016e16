"""Thousands of records at once: finds the plain lines that break no rule, and takes their columns out.

Fields become NUL-padded byte matrices, (rows, width); every check is arithmetic on whole matrices. A row that fails anything
here, or is merely unusual (a phone number with hyphens, a quote inside a field), is left to `exact`, which decides and words the
message. So this module may be stricter than the rules, but never laxer; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.orders import characters, gb18030
from engine.orders.columns import INDEX, NAMES, Bytes1D, Bytes2D, Layout, OrderColumns, as_matrix
from engine.orders.framing import Int1D, Slab
from engine.orders.rules import ALPHANUMERIC, CARD_CHECK, CARD_WEIGHTS, ID_CHECK, ID_WEIGHTS, KINDS, Rules, provinces

Mask = npt.NDArray[np.bool_]

# Shortest and longest field, in bytes of the file, that this module looks at.
_WIDTHS: Final[Mapping[str, tuple[int, int]]] = {
    "sequence": (1, 18),
    "social_security_number": (18, 18),
    "name": (1, 96),
    "sex": (1, 1),
    "ethnicity": (2, 2),
    "birth_date": (8, 8),
    "issuing_region": (6, 6),
    "card_number": (9, 9),
    "issue_date": (8, 8),
    "expiry_date": (8, 8),
    "bank_code": (2, 12),
    "pan": (8, 19),
    "phone": (0, 15),
    "address": (0, 255),
    "kind": (4, 11),
    "outlet": (1, 16),
    "photo_file": (0, 64),
}
_LEAST: Final = np.array([_WIDTHS[name][0] for name in NAMES])[:, None]
_MOST: Final = np.array([_WIDTHS[name][1] for name in NAMES])[:, None]
_FRONT: Final = 32  # zeros before the text, so that a window may begin before the first field
_BACK: Final = 256  # and behind it, so that the widest window may end behind the last


def _table(allowed: bytes) -> Mask:
    """Which bytes may stand in a NUL-padded field."""
    table = np.zeros(256, np.bool_)
    table[[0, *allowed]] = True
    return table


_DIGIT: Final = _table(b"0123456789")
_CAPITAL: Final = _table(ALPHANUMERIC)
_WORD: Final = _table(ALPHANUMERIC + b"abcdefghijklmnopqrstuvwxyz_-")
_FILE: Final = _table(ALPHANUMERIC + b"abcdefghijklmnopqrstuvwxyz_-.")
_CARD_VALUE: Final = np.zeros(256, np.int32)
_CARD_VALUE[list(ALPHANUMERIC)] = np.arange(36)
_ID_CHECK: Final = np.frombuffer(ID_CHECK, np.uint8)
_CARD_CHECK: Final = np.frombuffer(CARD_CHECK, np.uint8)
_DOUBLED: Final = np.array([2 * d if d < 5 else 2 * d - 9 for d in range(10)] + [0] * 246, np.uint8)
_MONTH_DAYS: Final = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] + [0] * 87)
_ETHNICITY: Final = np.array([1 <= code <= 56 or code in (97, 98) for code in range(100)])


@cache
def _numbers(codes: frozenset[str], size: int) -> Mask:
    """A set of decimal codes as a lookup table of `size` entries."""
    table = np.zeros(size, np.bool_)
    table[[int(code) for code in codes]] = True
    return table


class Window:
    """A stretch of bytes from which fields of one column are taken as a matrix."""

    def __init__(self, octets: bytes) -> None:
        self.array = np.frombuffer(b"".join((bytes(_FRONT), octets, bytes(_BACK))), np.uint8)

    def take(self, starts: Int1D, lengths: Int1D, width: int) -> Bytes2D:
        """Fields at `starts` (offsets into `array`), NUL padded to `width`."""
        # Every offset is the start of one overlapping item of `width` bytes: taking items copies whole fields at once.
        items = np.ndarray((len(self.array) - width + 1,), f"V{width}", self.array.data, strides=(1,))
        matrix = items[starts].view(np.uint8).reshape(len(starts), width)
        if len(lengths) and int(lengths.min()) < width:
            matrix *= np.arange(width) < lengths[:, None]
        return matrix

    def take_right(self, ends: Int1D, lengths: Int1D, width: int) -> Bytes2D:
        """Fields that end at `ends`, right-aligned, NUL padded in front to `width` (at most the room before the text)."""
        matrix = self.take(ends - width, np.full(len(ends), width), width)
        matrix *= np.arange(width) >= width - lengths[:, None]
        return matrix


@dataclass(slots=True, repr=False)
class Fields:
    """Where every field of some records lies: `starts` and `lengths` are (columns, rows)."""

    window: Window
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    def matrix(self, column: str) -> Bytes2D:
        at = INDEX[column]
        lengths = self.lengths[at]
        return self.window.take(self.starts[at], lengths, max(1, int(lengths.max(initial=1))))

    def joined(self, column: str, mark: int) -> bytes:
        """The column's fields one after the other, each followed by `mark`."""
        at = INDEX[column]
        lengths = self.lengths[at]
        width = int(lengths.max(initial=0)) + 1
        matrix = self.window.take(self.starts[at], lengths, width)
        matrix[np.arange(len(matrix)), lengths] = mark
        joined: bytes = matrix[np.arange(width) <= lengths[:, None]].tobytes()
        return joined


def sound_rows(slab: Slab, layout: Layout, encoding: str, rules: Rules) -> tuple[Int1D, OrderColumns]:
    """The plain lines of a slab that break no rule, as indexes into `slab.lines`, and their columns.

    UnicodeDecodeError when the bytes are not in the encoding they were found to be in.
    """
    rows, fields = _locate(slab, layout)
    if not len(rows):
        return rows, OrderColumns.concatenate([])
    sound = np.ones(len(rows), np.bool_)
    columns: dict[str, Bytes1D] = {}
    texts = _Texts(fields, slab.terminator, encoding, sound)
    _check_numbers(fields, rules, sound, columns)
    _check_codes(fields, encoding, sound, columns)
    texts.address(columns)
    texts.name(columns, rules)
    kept = OrderColumns({name: columns[name] for name in (*NAMES, "name_field", "name_extension")})
    return (rows, kept) if sound.all() else (rows[sound], kept.take(sound))


def _locate(slab: Slab, layout: Layout) -> tuple[Int1D, Fields]:
    """Finds the fields of the lines that have the right number of them, none too short, too long or holding NUL."""
    low, high = (int(slab.starts[0]), int(slab.ends[-1])) if len(slab.starts) else (0, 0)
    window = Window(slab.octets[low:high])
    starts, ends = slab.starts - low + _FRONT, slab.ends - low + _FRONT
    commas = np.flatnonzero(window.array == 0x2C)
    inner = layout.width - 1
    if len(commas) == inner * len(starts) and (commas[::inner] > starts).all() and (commas[inner - 1 :: inner] < ends).all():
        # Every line has its commas and nothing else is in between, as in any ordinary stretch of a file.
        rows, places_of_commas = np.arange(len(starts)), commas.reshape(-1, inner).T
    else:
        first = np.searchsorted(commas, starts)
        rows = np.flatnonzero(np.searchsorted(commas, ends) - first == inner)
        places_of_commas = commas[first[rows] + np.arange(inner)[:, None]] if len(rows) else np.zeros((inner, 0), np.int64)
    if slab.octets.find(b"\0", low, high) >= 0:
        nuls = np.flatnonzero(window.array[_FRONT:-_BACK] == 0) + _FRONT
        without = ~np.isin(rows, np.searchsorted(starts, nuls, side="right") - 1)
        rows, places_of_commas = rows[without], places_of_commas[:, without]
    edges = np.concatenate((starts[rows][None] - 1, places_of_commas, ends[rows][None]))
    places = np.array(layout.places)
    field_starts, field_ends = edges[places] + 1, edges[places + 1]
    if slab.octets.find(b'"', low, high) >= 0:
        quoted = window.array[field_starts] == 0x22
        field_starts += quoted
        field_ends -= quoted
    lengths = field_ends - field_starts
    fit = ((lengths >= _LEAST) & (lengths <= _MOST)).all(axis=0)
    if not fit.all():
        rows, field_starts, lengths = rows[fit], field_starts[:, fit], lengths[:, fit]
    return rows, Fields(window, field_starts, lengths)


def _text(matrix: Bytes2D) -> Bytes1D:
    """A NUL-padded matrix as an 'S' column."""
    column: Bytes1D = np.ascontiguousarray(matrix).view(f"S{matrix.shape[1]}").reshape(len(matrix))
    return column


def _number(digits: Bytes2D) -> npt.NDArray[np.int32]:
    """Digit values, (rows, places), as numbers; for at most 9 places."""
    value = np.zeros(len(digits), np.int32)
    for place in range(digits.shape[1]):
        value = value * 10 + digits[:, place]
    return value


def _is_date(digits: Bytes2D) -> tuple[Mask, npt.NDArray[np.int32]]:
    """Which rows of eight digit values are real dates, 1900 or later; and the dates as numbers."""
    date = _number(digits)
    year, month, day = date // 10000, date // 100 % 100, date % 100
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    longest = _MONTH_DAYS[month] + ((month == 2) & leap)
    return (year >= 1900) & (day >= 1) & (day <= longest), date


def _keep(sound: Mask, fine: Mask) -> None:
    """Drops the rows of which anything is not fine, (rows, places); asks the whole matrix first, since mostly all is."""
    if not fine.all():
        sound &= fine.all(axis=1)


def _digits(matrix: Bytes2D, sound: Mask) -> Bytes2D:
    """Values of decimal digits, NUL counting as 0. Rows with anything else are dropped; their values merely stay in range."""
    values: Bytes2D = np.bitwise_xor(matrix, 0x30, dtype=np.uint8)
    fine = values <= 9
    if not fine.all():
        fine |= matrix == 0
        _keep(sound, fine)
        values = np.where(fine, matrix & 0x0F, 0).astype(np.uint8)
    return values


_FIXED: Final = (
    "sequence", "social_security_number", "sex", "ethnicity", "birth_date", "issuing_region", "issue_date", "expiry_date",
)  # fmt: skip


def _check_numbers(fields: Fields, rules: Rules, sound: Mask, columns: dict[str, Bytes1D]) -> None:
    """Everything that is digits and their arithmetic."""
    digits: dict[str, Bytes2D] = {}
    for column in _FIXED:
        matrix = fields.matrix(column)
        columns[column] = _text(matrix)
        digits[column] = _digits(matrix[:, :17], sound)
    number = digits["social_security_number"]
    check = as_matrix(columns["social_security_number"])[:, 17]
    sound &= _ID_CHECK[number.astype(np.int32) @ np.array(ID_WEIGHTS, np.int32) % 11] == check
    sound &= _numbers(provinces(), 100)[_number(number[:, :2])]
    _keep(sound, number[:, 6:14] == digits["birth_date"])
    sex = digits["sex"][:, 0]
    sound &= ((sex == 1) | (sex == 2)) & (number[:, 16] & 1 == sex & 1)
    sound &= _ETHNICITY[_number(digits["ethnicity"])]
    sound &= _numbers(rules.regions, 1_000_000)[_number(digits["issuing_region"])]
    born_fine, born = _is_date(digits["birth_date"])
    issued_fine, issued = _is_date(digits["issue_date"])
    expires_fine, expires = _is_date(digits["expiry_date"])
    sound &= born_fine & issued_fine & expires_fine & (born <= issued) & (expires > issued)
    _check_pan(fields, rules, sound, columns)


def _check_pan(fields: Fields, rules: Rules, sound: Mask, columns: dict[str, Bytes1D]) -> None:
    columns["pan"] = _text(fields.matrix("pan"))
    at = INDEX["pan"]
    lengths = fields.lengths[at]
    matrix = fields.window.take_right(fields.starts[at] + lengths, lengths, 19)
    sound &= (lengths >= rules.pan_digits[0]) & (lengths <= rules.pan_digits[1])
    values = _digits(matrix, sound)
    total = values[:, 0::2].sum(axis=1, dtype=np.int32) + _DOUBLED[values[:, 1::2]].sum(axis=1, dtype=np.int32)
    sound &= total % 10 == 0


def _check_codes(fields: Fields, encoding: str, sound: Mask, columns: dict[str, Bytes1D]) -> None:
    """Card number, bank, phone, kind, outlet, photo."""
    card = fields.matrix("card_number")
    columns["card_number"] = _text(card)
    total = _CARD_VALUE[card[:, :8]] @ np.array(CARD_WEIGHTS, np.int32)
    _keep(sound, _CAPITAL[card])
    sound &= _CARD_CHECK[total % 11] == card[:, 8]
    for column, table in (("bank_code", _CAPITAL), ("phone", _DIGIT), ("outlet", _WORD), ("photo_file", _FILE)):
        matrix = fields.matrix(column)
        columns[column] = _text(matrix)
        _keep(sound, table[matrix])
    sound &= _plain_photo(fields)
    kinds = _text(fields.matrix("kind"))
    known = np.zeros(len(kinds), np.bool_)
    named = np.zeros(len(kinds), f"S{max(map(len, KINDS.values()))}")
    for text, kind in KINDS.items():
        if known.all():
            break
        same = kinds == text.encode(encoding)
        known |= same
        named[same] = kind
    sound &= known
    columns["kind"] = named


def _plain_photo(fields: Fields) -> Mask:
    """No photo, or a file name that ends in .jpg and does not begin with a dot."""
    at = INDEX["photo_file"]
    starts, lengths = fields.starts[at], fields.lengths[at]
    suffix = fields.window.take_right(starts + lengths, np.minimum(lengths, 4), 4)
    named: Mask = (_text(suffix) == b".jpg") & (lengths > 4) & (fields.window.array[starts] != 0x2E)
    without: Mask = lengths == 0
    return named | without


class _Texts:
    """The two columns that hold Chinese text, checked code point by code point."""

    def __init__(self, fields: Fields, mark: int, encoding: str, sound: Mask) -> None:
        self._fields = fields
        # Plain lines never hold the file's line break, so it can keep the fields apart.
        self._mark = mark
        self._gb = encoding == "gb18030"
        self._sound = sound

    def _decode(self, column: str) -> tuple[str, npt.NDArray[np.uint32], Mask]:
        octets = self._fields.joined(column, self._mark)
        text = gb18030.decode_raw(octets) if self._gb else octets.decode("utf-8")
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        return text, points, points == self._mark

    def _drop(self, bad: Mask, marks: Mask) -> None:
        if bad.any():
            self._sound[np.searchsorted(np.flatnonzero(marks), np.flatnonzero(bad))] = False

    def _column(self, octets: bytes, widest: int) -> Bytes1D:
        """Fields joined by the mark as a column again; longer ones than `widest` are no longer sound and come out cut."""
        window = Window(octets)
        ends = np.flatnonzero(window.array == self._mark)
        starts = np.concatenate((np.array([_FRONT]), ends[:-1] + 1))
        lengths = ends - starts
        if int(lengths.max(initial=0)) > widest:
            self._sound &= lengths <= widest
            lengths = np.minimum(lengths, widest)
        return _text(window.take(starts, lengths, max(1, int(lengths.max(initial=1)))))

    def _utf8(self, column: str, text: str, widest: int) -> Bytes1D:
        return self._column(text.encode("utf-8"), widest) if self._gb else _text(self._fields.matrix(column))

    def address(self, columns: dict[str, Bytes1D]) -> None:
        text, points, marks = self._decode("address")
        bits = characters.classes()[points]
        self._drop((bits & (characters.CONTROL | characters.UNASSIGNED) != 0) & ~marks, marks)
        columns["address"] = self._utf8("address", text, 255)

    def name(self, columns: dict[str, Bytes1D], rules: Rules) -> None:
        text, points, marks = self._decode("name")
        bits = characters.classes(rules.extra_name_characters)[points]
        # Codes that Python's codec does not know come out of decode_raw as private use, and are no name characters either.
        self._drop((bits & (characters.NAME | characters.CORRECTED) != characters.NAME) & ~marks, marks)
        dots = points == 0xB7
        edges = marks | dots
        after = np.concatenate((np.ones(1, np.bool_), edges[:-1]))
        before = np.concatenate((marks[1:], np.ones(1, np.bool_)))
        self._drop(dots & (after | before), marks)
        columns["name"] = self._utf8("name", text, 240)
        octets = self._fields.joined("name", self._mark) if self._gb else text.encode("gb18030")
        whole = self._column(octets, rules.name_bytes + rules.extension_bytes)
        field, extension = whole.astype(f"S{rules.name_bytes}"), np.zeros(len(whole), f"S{max(1, rules.extension_bytes)}")
        for row in np.flatnonzero(self._sound & (np.strings.str_len(whole) > rules.name_bytes)):
            # Few names are this long, so they are cut one by one.
            name = bytes(whole[row])
            at = gb18030.cut(name, gb18030.decode(name), rules.name_bytes)
            field[row], extension[row] = name[:at], name[at:]
            self._sound[row] &= len(name) - at <= rules.extension_bytes
        columns["name_field"], columns["name_extension"] = field, extension
