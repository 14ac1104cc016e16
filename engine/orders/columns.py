"""The columns of an order file: their names and headings, and the typed columns good rows end up in.

The English names are the house's; the Chinese headings are those of a social security card bureau. A heading is compared
without case, spaces, full-width spaces, underscores and hyphens, so `Social Security Number` is `social_security_number`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from keys.errors import InvalidInput

Bytes1D = npt.NDArray[np.bytes_]
Bytes2D = npt.NDArray[np.uint8]


class Column(NamedTuple):
    """One column of an order file. `max_bytes`: longest value, in UTF-8 bytes."""

    name: str
    headings: tuple[str, ...]
    optional: bool
    max_bytes: int


COLUMNS: Final[tuple[Column, ...]] = (
    Column("sequence", ("序号",), False, 18),
    Column(
        "social_security_number",
        ("社会保障号码", "社会保障号", "公民身份号码", "身份证号码", "身份证号", "citizen id", "id number"),
        False,
        18,
    ),
    Column("name", ("姓名",), False, 240),
    Column("sex", ("性别", "gender"), False, 1),
    Column("ethnicity", ("民族", "nation"), False, 2),
    Column("birth_date", ("出生日期", "date of birth"), False, 8),
    Column("issuing_region", ("发卡地区", "发卡地区代码", "region"), False, 6),
    Column("card_number", ("社保卡卡号", "社会保障卡号", "社会保障卡卡号", "社保卡号", "卡号"), False, 9),
    Column("issue_date", ("发卡日期", "date of issue"), False, 8),
    Column("expiry_date", ("卡有效期", "有效期", "有效期至", "expiry", "date of expiry"), False, 8),
    Column("bank_code", ("银行代码", "bank"), False, 12),
    Column("pan", ("银行账号", "银行帐号", "银行卡号", "bank account"), False, 19),
    Column("phone", ("联系电话", "手机号码", "手机号", "telephone"), True, 15),
    Column("address", ("通讯地址", "通信地址", "地址"), True, 255),
    Column("kind", ("申领类型", "order kind"), False, 11),
    Column("outlet", ("领卡网点", "pick-up outlet"), False, 16),
    Column("photo_file", ("照片文件", "照片", "photo"), True, 64),
)
NAMES: Final[tuple[str, ...]] = tuple(column.name for column in COLUMNS)
INDEX: Final[Mapping[str, int]] = {name: at for at, name in enumerate(NAMES)}
# Derived from `name`, in GB 18030 bytes: what fits the card's name field, and the rest for the extension record.
DERIVED: Final[tuple[str, ...]] = ("name_field", "name_extension")
STORED: Final[tuple[str, ...]] = NAMES + DERIVED


def heading_key(text: str) -> str:
    """A heading without what does not matter in it: case, width, spaces, underscores, hyphens."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if c not in "_-\N{ZERO WIDTH NO-BREAK SPACE}" and not c.isspace())


_BY_HEADING: Final[Mapping[str, str]] = {
    heading_key(heading): column.name for column in COLUMNS for heading in (column.name, *column.headings)
}


def is_order_heading(text: str) -> bool:
    """Whether a heading names a column of an order."""
    return heading_key(text) in _BY_HEADING


class Layout(NamedTuple):
    """Where the columns of a file are. `places[i]` is the place in the file of COLUMNS[i]."""

    places: tuple[int, ...]
    width: int
    notes: tuple[str, ...]


def layout_of(headings: Sequence[str], line: int = 1) -> Layout:
    """Reads the heading line. InvalidInput ORDERS_HEADING_DUPLICATE or ORDERS_HEADING_MISSING, naming every such column."""
    found: dict[str, int] = {}
    notes: list[str] = []
    twice: list[str] = []
    for place, heading in enumerate(headings):
        shown = printable(heading)
        name = _BY_HEADING.get(heading_key(heading))
        if name is None:
            notes.append(f"column {place + 1} ({shown}) is not a column of an order and was ignored")
        elif name in found:
            first = printable(headings[found[name]])
            twice.append(f"columns {found[name] + 1} ({first}) and {place + 1} ({shown}) are both {name}")
        else:
            found[name] = place
    if twice:
        raise InvalidInput("ORDERS_HEADING_DUPLICATE", f"line {line}: a heading is there twice: " + "; ".join(twice))
    missing = [f"{column.name} ({column.headings[0]})" for column in COLUMNS if column.name not in found]
    if missing:
        hint = ""
        if len(headings) == 1 and any(mark in headings[0] for mark in "\t;，"):
            hint = "; columns must be separated by commas"
        raise InvalidInput("ORDERS_HEADING_MISSING", f"line {line}: there is no column {', '.join(missing)}{hint}")
    return Layout(tuple(found[name] for name in NAMES), len(headings), tuple(notes))


def printable(text: str, limit: int = 40) -> str:
    """A heading as it may be shown in a message: no control characters, not long."""
    clean = "".join(c if c.isprintable() else "?" for c in text[:limit])
    return clean + "…" if len(text) > limit else clean or "empty"


class OrderColumns(Mapping[str, Bytes1D]):
    """Good rows as columns: name -> numpy 'S' array (rows,), UTF-8 bytes; `name_field` and `name_extension` in GB 18030 bytes.

    `kind` is one of first, replacement, renewal, whatever language the file used. Values never hold NUL, so the arrays' NUL
    padding is not ambiguous. Prints as its size only: the content is personal data.
    """

    __slots__ = ("_columns", "rows")

    def __init__(self, columns: Mapping[str, Bytes1D]) -> None:
        lengths = {len(column) for column in columns.values()}
        if len(lengths) > 1:
            raise InvalidInput("COLUMNS_UNEVEN", "the columns of a batch have different numbers of rows")
        self._columns = dict(columns)
        self.rows: int = lengths.pop() if lengths else 0

    def __getitem__(self, name: str) -> Bytes1D:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"OrderColumns({len(self._columns)} columns, {self.rows} rows)"

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> OrderColumns:
        """The rows chosen by index or mask."""
        return OrderColumns({name: column[rows] for name, column in self._columns.items()})

    @classmethod
    def concatenate(cls, parts: Sequence[OrderColumns]) -> OrderColumns:
        """The rows of several batches, in order; all must have the same columns."""
        if not parts:
            return cls({name: np.zeros(0, "S1") for name in STORED})
        return cls({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[bytes]]) -> OrderColumns:
        """From rows of values in the order of STORED."""
        if not rows:
            return cls.concatenate([])
        return cls({name: np.array([row[at] for row in rows], np.bytes_) for at, name in enumerate(STORED)})


def as_matrix(column: Bytes1D) -> Bytes2D:
    """An 'S' column as characters, (rows, width) uint8, NUL padded."""
    flat = np.ascontiguousarray(column)
    return flat.view(np.uint8).reshape(len(flat), flat.dtype.itemsize)
