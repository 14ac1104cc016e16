"""Order file in, batches of typed columns and rejects out: the one loop of this room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.orders.columns import NAMES, Bytes2D, OrderColumns
from engine.orders.duplicates import Duplicates, Issued, nothing_issued
from engine.orders.exact import CheckedRecord, check_record
from engine.orders.framing import Slab
from engine.orders.matrix import sound_rows
from engine.orders.rules import Reject, Rules
from engine.orders.source import OrderSource
from keys.errors import Corrupt, InvalidInput

BATCH_LINES: Final = 8192
_HASH_KEY_LENGTHS: Final = range(16, 65)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one stretch of the file.

    `lines`: (rows,) int64, physical line of each good row, rising. `columns`: the good rows. `person_hash`, `card_hash`:
    (rows, 16) uint8, keyed hashes of their citizen and card numbers. `rejects`: every rule every other row breaks, by line.
    """

    lines: npt.NDArray[np.int64]
    columns: OrderColumns
    person_hash: Bytes2D
    card_hash: Bytes2D
    rejects: list[Reject]

    def __repr__(self) -> str:
        return f"Batch({len(self.lines)} rows, {len(self.rejects)} rejects)"

    @property
    def rejected_lines(self) -> int:
        """How many records were rejected; a record may break several rules."""
        return len({reject.line for reject in self.rejects})


def read_orders(
    source: OrderSource,
    rules: Rules,
    hash_key: bytes | bytearray | memoryview,
    issued: Issued = nothing_issued,
    *,
    batch_lines: int = BATCH_LINES,
) -> Iterator[Batch]:
    """Reads, checks and yields the orders of a file, in file order, in memory bounded but for the duplicates' table.

    `hash_key`: 16 to 64 bytes, the site's key for hashes of persons and card numbers; keep it the same for ever, or earlier
    cards are not found. Raises InvalidInput ORDERS_NO_ROWS (a heading line only), ORDERS_QUOTES, HASH_KEY_LENGTH; Corrupt
    ORDERS_CHANGED when the file is no longer what it was when its encoding was found.
    """
    if len(hash_key) not in _HASH_KEY_LENGTHS:
        raise InvalidInput("HASH_KEY_LENGTH", "the key for hashes must have 16 to 64 bytes")
    duplicates = Duplicates(hash_key, issued)
    empty = True
    for slab in source.slabs(batch_lines):
        if not len(slab.lines) and not slab.odd:
            continue
        empty = False
        try:
            lines, columns, defective = _check_slab(slab, source, rules)
        except UnicodeDecodeError:
            raise Corrupt("ORDERS_CHANGED", "the order file changed while it was read: it no longer is in its encoding") from None
        yield _batch(lines, columns, defective, duplicates)
    if empty:
        raise InvalidInput("ORDERS_NO_ROWS", "the order file has a heading line and no orders")


def _check_slab(slab: Slab, source: OrderSource, rules: Rules) -> tuple[npt.NDArray[np.int64], OrderColumns, list[CheckedRecord]]:
    """Sound rows by line, and the defective records. What the matrix way leaves goes the exact way."""
    rows, columns = sound_rows(slab, source.layout, source.encoding, rules)
    checked: list[CheckedRecord] = []
    places = source.layout.places
    for record in slab.odd:
        if record.rule:
            field = NAMES[places.index(record.place)] if record.place in places else ""
            reject = Reject(record.line, field, record.rule, record.message)
            checked.append(CheckedRecord(record.line, [reject]))
        else:
            checked.append(check_record(record.line, record.fields, source.layout, source.encoding, rules))
    left = np.ones(len(slab.lines), np.bool_)
    left[rows] = False
    checked.extend(
        check_record(int(slab.lines[at]), slab.fields(int(at)), source.layout, source.encoding, rules) for at in np.flatnonzero(left)
    )
    lines = slab.lines[rows]
    accepted = [(record.line, record.values) for record in checked if record.values is not None]
    if accepted:
        columns = OrderColumns.concatenate([columns, OrderColumns.from_rows([values for _, values in accepted])])
        lines = np.concatenate((lines, np.array([line for line, _ in accepted], np.int64)))
        order = np.argsort(lines)
        lines, columns = lines[order], columns.take(order)
    return lines, columns, [record for record in checked if record.values is None]


def _batch(lines: npt.NDArray[np.int64], columns: OrderColumns, defective: list[CheckedRecord], duplicates: Duplicates) -> Batch:
    persons, cards, repeated = duplicates.check(lines, columns, defective)
    rejects = [reject for record in defective for reject in record.rejects] + repeated
    rejects.sort(key=lambda reject: reject.line)
    if repeated:
        good = ~np.isin(lines, [reject.line for reject in repeated])
        lines, columns, persons, cards = lines[good], columns.take(good), persons[good], cards[good]
    return Batch(lines, columns, persons, cards, rejects)
