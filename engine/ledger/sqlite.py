"""How SQLite is opened: WAL, FULL synchronous, deletes that overwrite, and transactions that take the write lock when they begin.

`BEGIN IMMEDIATE`, because a deferred transaction that reads and then writes fails whenever somebody wrote in between.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool

from keys.errors import Unavailable

_MAGIC = b"SQLite format 3\x00"
BEGIN = "BEGIN IMMEDIATE"

# temp_store: sorting must not spill order data into files; journal_size_limit: a long reader must not leave a huge log behind.
_COMMON = ("PRAGMA foreign_keys=ON", "PRAGMA busy_timeout=5000", "PRAGMA temp_store=MEMORY", "PRAGMA cache_size=-32768")
_WRITER = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA secure_delete=ON",
    "PRAGMA wal_autocheckpoint=2000",
    "PRAGMA journal_size_limit=67108864",
)


def looks_like_sqlite(path: Path) -> bool:
    """True for a file that is empty or begins as SQLite's do."""
    with path.open("rb") as file:
        head = file.read(len(_MAGIC))
    return head in (b"", _MAGIC)


def _engine(path: Path, pragmas: tuple[str, ...], begin: str) -> Engine:
    engine = create_engine(
        URL.create("sqlite+pysqlite", database=str(path)),
        connect_args={"check_same_thread": False, "cached_statements": 512},
        # Whoever connects keeps the connection as long as it is of use.
        poolclass=NullPool,
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: Any) -> None:  # noqa: ANN401 - SQLAlchemy's own type is private
        # The driver must not begin or commit by itself: the "begin" event below does.
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(pragma).close()

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        # A transaction begun by the driver for prepared statements is joined.
        if not driver(connection).in_transaction:
            connection.exec_driver_sql(begin)

    return engine


def writer_engine(path: Path) -> Engine:
    """For the one writing connection."""
    return _engine(path, _COMMON + _WRITER, BEGIN)


def reader_engine(path: Path) -> Engine:
    """For reading connections; a write on one of them is an error."""
    return _engine(path, (*_COMMON, "PRAGMA query_only=ON"), "BEGIN")


def driver(conn: Connection) -> sqlite3.Connection:
    """The driver's own connection, for the few statements that are worth no layer above it. Raises Unavailable LEDGER_CLOSED."""
    connection = conn.connection.driver_connection
    if not isinstance(connection, sqlite3.Connection):
        raise Unavailable("LEDGER_CLOSED", "the ledger's connection is closed")
    return connection


def empty_wal(connection: sqlite3.Connection) -> bool:
    """Moves the write-ahead log into the file and cuts it to zero bytes; outside a transaction only. False where a reader needs
    it.
    """
    busy, _in_log, _moved = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy
