"""Serial numbers: pools of whole numbers, each number burned on at most one attempt for ever."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, func, insert, select

from engine.ledger import schema
from engine.ledger.prepared import Prepared
from engine.ledger.tx import Source, Tx, conn_of
from keys.errors import Conflict, Exhausted, InvalidInput, NotFound

if TYPE_CHECKING:
    from engine.ledger.store import Ledger

_pools = schema.serial_pools.c
_pool = select(schema.serial_pools).where(_pools.pool == bindparam("pool"))
_insert_pool = insert(schema.serial_pools)
# Burns a number only where its pool has it.
_burn = Prepared(
    insert(schema.serials).from_select(
        ["pool", "value", "attempt_id"],
        select(_pools.pool, bindparam("new_value"), bindparam("new_attempt_id")).where(
            _pools.pool == bindparam("pool"), _pools.first <= bindparam("new_value"), _pools.last >= bindparam("new_value")
        ),
    ),
    "pool",
    "new_value",
    "new_attempt_id",
)
_highest = select(func.max(schema.serials.c.value)).where(schema.serials.c.pool == bindparam("pool"))


def define_pool(tx: Tx, pool: str, first: int, last: int) -> None:
    """Makes a pool of the numbers first..last, both included. The same definition again changes nothing.

    Raises InvalidInput POOL_RANGE, Conflict POOL_EXISTS for another range.
    """
    if not 0 <= first <= last < 1 << 63:
        raise InvalidInput("POOL_RANGE", f"serial pool {pool}: {first}..{last} is no range of numbers below 2^63")
    known = tx.conn.execute(_pool, {"pool": pool}).one_or_none()
    if known is None:
        tx.conn.execute(_insert_pool, {"pool": pool, "first": first, "last": last})
        tx.audit("serials.pool", pool, first=first, last=last)
    elif (known.first, known.last) != (first, last):
        raise Conflict("POOL_EXISTS", f"serial pool {pool} is {known.first}..{known.last} already")


def bounds(source: Source, pool: str) -> tuple[int, int]:
    """First and last number of a pool. Raises NotFound POOL_UNKNOWN."""
    row = conn_of(source).execute(_pool, {"pool": pool}).one_or_none()
    if row is None:
        raise NotFound("POOL_UNKNOWN", f"there is no serial pool {pool}")
    return row.first, row.last


def high_water(source: Source, pool: str) -> int | None:
    """The highest number burned; None while none is."""
    highest: int | None = conn_of(source).execute(_highest, {"pool": pool}).scalar_one()
    return highest


def record(tx: Tx, attempt_id: int, serials: Mapping[str, int]) -> None:
    """Burns one number per pool on an attempt. Raises NotFound POOL_UNKNOWN, InvalidInput SERIAL_RANGE, Conflict SERIAL_USED."""
    for pool, value in serials.items():
        try:
            burned = _burn.run(tx.db, pool, value, attempt_id).rowcount
        except sqlite3.IntegrityError:
            raise Conflict("SERIAL_USED", f"serial {value} of pool {pool} is on another piece already") from None
        if not burned:
            first, last = bounds(tx, pool)
            raise InvalidInput("SERIAL_RANGE", f"serial {value} is outside pool {pool} ({first}..{last})")


class SerialAllocator:
    """Hands out numbers above everything burned, each once in the life of this object. One per ledger and process; thread-safe.

    A number handed out but not burned by an INTENT was on no card: after a restart it may be handed out again.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.Lock()
        self._next: dict[str, tuple[int, int]] = {}

    def draw(self, pool: str) -> int:
        """The next number of a pool. Raises NotFound POOL_UNKNOWN, Exhausted SERIALS_EXHAUSTED."""
        with self._lock:
            if pool not in self._next:
                self._next[pool] = self._ledger.read(lambda conn: _start(conn, pool))
            number, last = self._next[pool]
            if number > last:
                raise Exhausted("SERIALS_EXHAUSTED", f"serial pool {pool} is used up (last number {last}): define another range")
            self._next[pool] = number + 1, last
            return number

    def draw_each(self, *pools: str) -> dict[str, int]:
        """One number from each pool."""
        return {pool: self.draw(pool) for pool in pools}


def _start(conn: Connection, pool: str) -> tuple[int, int]:
    first, last = bounds(conn, pool)
    highest = high_water(conn, pool)
    return first if highest is None else highest + 1, last
