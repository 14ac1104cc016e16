"""Lots of chips that are not to be used: stopped, and let go again, across restarts of the server."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, delete, insert, select

from engine.ledger.schema import ledger_numbers
from engine.ledger.tx import Source, Tx, conn_of
from keys.errors import InvalidInput, NotFound

# Each is a named number of the ledger: the Unix time in microseconds at which it was stopped.
_PREFIX: Final = "lot-stopped:"
_MOST: Final = 16
_named = select(ledger_numbers.c.name, ledger_numbers.c.value).where(ledger_numbers.c.name.startswith(_PREFIX))
_one = select(ledger_numbers.c.value).where(ledger_numbers.c.name == bindparam("lot"))
_insert = insert(ledger_numbers)
_delete = delete(ledger_numbers).where(ledger_numbers.c.name == bindparam("lot"))


def stop(tx: Tx, lot: str, why: str) -> None:
    """Stops a lot; one that is stopped stays so. Raises InvalidInput LOT_NAME."""
    if not lot or len(lot) > _MOST:
        raise InvalidInput("LOT_NAME", f"a lot of chips has a name of 1 to {_MOST} characters")
    if tx.conn.execute(_one, {"lot": _PREFIX + lot}).one_or_none() is None:
        tx.conn.execute(_insert, {"name": _PREFIX + lot, "value": tx.now_us})
    tx.audit("lot.stopped", lot, why=why)


def reset(tx: Tx, lot: str, by: str) -> None:
    """Lets a stopped lot be used again. Raises NotFound LOT_NOT_STOPPED, InvalidInput STOCK_BY."""
    if not by.strip():
        raise InvalidInput("STOCK_BY", "a lot is let go by somebody with a name")
    if tx.conn.execute(_delete, {"lot": _PREFIX + lot}).rowcount == 0:
        raise NotFound("LOT_NOT_STOPPED", f"lot {lot} is not stopped")
    tx.audit("lot.reset", lot, by=by)


def stopped(source: Source) -> dict[str, int]:
    """Stopped lots, and when each was, in Unix microseconds."""
    return {name.removeprefix(_PREFIX): int(at_us) for name, at_us in conn_of(source).execute(_named)}
