"""One open transaction, as the functions of the ledger see it."""

from __future__ import annotations

import sqlite3
from typing import TypeAlias

from sqlalchemy import Connection

from engine.ledger.chain import AuditChain, Fact
from engine.ledger.sqlite import driver


class Tx:
    """Handed to a function by the writer, and valid only until that function returns.

    `db` is inside a transaction that holds the write lock, and `conn` is the same connection for statements in Core. `now_us` is
    Unix time for records; `boottime_us` and `epoch` are the lease clock. The function must not commit, roll back, or keep the `Tx`.
    """

    __slots__ = ("_chain", "boottime_us", "conn", "db", "epoch", "now_us", "truncate_wal")

    def __init__(self, conn: Connection, db: sqlite3.Connection, chain: AuditChain, *, now_us: int, boottime_us: int, epoch: int) -> None:
        self.conn = conn
        self.db = db
        self.now_us = now_us
        self.boottime_us = boottime_us
        self.epoch = epoch
        self._chain = chain
        # Set where deleted bytes must leave the write-ahead log too: the writer then empties it after the commit.
        self.truncate_wal = False

    def audit(self, kind: str, subject: str, /, **facts: Fact) -> None:
        """Appends one leaf to the audit chain in this transaction. `facts` holds no personal data and no secret."""
        self._chain.append(kind, subject, self.now_us, facts)


Source: TypeAlias = Tx | Connection
"""What a function that only reads is given: the transaction it is part of, or a reader's connection."""


def conn_of(source: Source) -> Connection:
    """The connection behind `source`."""
    return source.conn if isinstance(source, Tx) else source


def db_of(source: Source) -> sqlite3.Connection:
    """The driver's connection behind `source`, for prepared statements."""
    return source.db if isinstance(source, Tx) else driver(source)
