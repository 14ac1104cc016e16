"""Database errors in the words of the one error tree. Driver messages carry SQL and sometimes values, so they are never passed
on.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError

from keys.errors import CitycardError, Corrupt, Exhausted, Unavailable

_CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_SCHEMA})


def primary_code(error: BaseException) -> int:
    """SQLite's primary result code behind a driver error; 0 where there is none."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", 0)
    return int(code) & 0xFF if isinstance(code, int) else 0


def translate(error: BaseException) -> CitycardError | None:
    """The error to raise instead of a driver's, or None where `error` is no storage failure."""
    code = primary_code(error)
    if code == sqlite3.SQLITE_FULL:
        return Exhausted("DISK_FULL", "the disk of the ledger is full; nothing of this was written: free space and try again")
    if code in _CORRUPT:
        return Corrupt("LEDGER_CORRUPT", "the ledger's file is damaged: stop, keep the file, and restore it from a backup")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
        return Unavailable("LEDGER_READ_ONLY", "the ledger cannot be written: check the owner and rights of its folder and file")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Unavailable("LEDGER_BUSY", "another process holds the ledger's file")
    if code == sqlite3.SQLITE_IOERR:
        return Unavailable("LEDGER_IO", "reading or writing the ledger's file failed: check the disk")
    return None
