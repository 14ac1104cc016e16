"""A small durable write, so that health speaks of the disk as it is now and not as it was at the last card."""

from __future__ import annotations

from sqlalchemy import bindparam, insert, update

from engine.ledger.schema import ledger_numbers
from engine.ledger.tx import Tx

_NAME = "pulse"
_update = update(ledger_numbers).where(ledger_numbers.c.name == _NAME).values(value=bindparam("now_us"))
_insert = insert(ledger_numbers)


def pulse(tx: Tx) -> None:
    """Writes the time. Raises what any write raises: Exhausted DISK_FULL, Unavailable LEDGER_…"""
    if tx.conn.execute(_update, {"now_us": tx.now_us}).rowcount == 0:
        tx.conn.execute(_insert, {"name": _NAME, "value": tx.now_us})
