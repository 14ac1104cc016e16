"""Rows by the thousand: the insert is written and compiled as Core, then run by the driver, without a layer that looks at each
value.

Only for columns whose values the driver takes as they are: integers, text, bytes and None.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Table, insert
from sqlalchemy.dialects.sqlite import dialect

from engine.ledger.sqlite import driver


class BulkInsert:
    """Inserts rows given as tuples in the order of `columns`. Driver errors (sqlite3.IntegrityError and so on) pass through."""

    def __init__(self, table: Table, *columns: str) -> None:
        self._sql = str(insert(table).compile(dialect=dialect(), column_keys=columns))
        # Core writes columns in the table's order, whatever the order asked for.
        self.columns = tuple(column.name for column in table.columns if column.name in columns)
        if self.columns != columns:
            raise ValueError(f"columns of {table.name} must be named in the table's order")

    def __call__(self, conn: Connection, rows: Iterable[tuple[Any, ...]]) -> None:
        """Runs inside the connection's open transaction."""
        driver(conn).executemany(self._sql, rows)
