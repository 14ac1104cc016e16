"""Statements that run for every card: written once in SQLAlchemy Core, compiled once to the SQL of the ledger's database, and run by
its driver, without the layers that build a statement, look at each value and wrap each row.

How to use it, in a module of this room:

    _line = Prepared(select(_lines.state).where(_lines.job_no == bindparam("job_no")), "job_no")
    row = _line.one(tx.db, 7)                      # inside the writer; `db_of(source)` where a reader may ask too

Values go in the order in which the names were given, rows come back as plain tuples in the order of the selected columns. Only for
columns whose values the driver takes and gives as they are: integers, text, bytes and None; an enum's `value`, not the enum. Errors are
the driver's own (sqlite3.IntegrityError for a broken unique index). What runs rarely stays with `tx.conn.execute`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Delete, Insert, Select, Update
from sqlalchemy.dialects.sqlite import dialect

_DIALECT = dialect(paramstyle="qmark")

Row = tuple[Any, ...]


class Prepared:
    """One statement. `names` are its bind parameters, for an INSERT of values its columns; constants of the statement stay inside."""

    __slots__ = ("_arrange", "sql")

    def __init__(self, statement: Select[Any] | Insert | Update | Delete, *names: str) -> None:
        """Raises ValueError where `names` are not exactly what the statement asks for."""
        columns = names if isinstance(statement, Insert) and statement.select is None else None
        compiled = statement.compile(dialect=_DIALECT, column_keys=columns)
        self.sql = str(compiled)
        wanted: Sequence[str] = compiled.positiontup or ()
        asked = {name for name in wanted if compiled.binds[name].required}
        if len(set(names)) != len(names) or set(names) - set(wanted) or asked - set(names):
            raise ValueError(f"a statement asks for {', '.join(wanted)}, not for {', '.join(names)}: {self.sql}")
        self._arrange: Callable[[Row], Row] | None = None
        if tuple(wanted) != names:
            self._arrange = _arranger(wanted, names, compiled.params)

    def run(self, db: sqlite3.Connection, *values: Any) -> sqlite3.Cursor:  # noqa: ANN401 - column values of several types
        """Runs it; the cursor tells how many rows changed."""
        return db.execute(self.sql, values if self._arrange is None else self._arrange(values))

    def one(self, db: sqlite3.Connection, *values: Any) -> Row | None:  # noqa: ANN401 - column values of several types
        """The first row of the result, None where there is none."""
        row: Row | None = self.run(db, *values).fetchone()
        return row

    def all(self, db: sqlite3.Connection, *values: Any) -> list[Row]:  # noqa: ANN401 - column values of several types
        """Every row of the result."""
        return self.run(db, *values).fetchall()

    def many(self, db: sqlite3.Connection, rows: Iterable[Row]) -> None:
        """Runs it once per row of values."""
        db.executemany(self.sql, rows if self._arrange is None else map(self._arrange, rows))


def _arranger(wanted: Sequence[str], names: Sequence[str], parameters: Mapping[str, Any]) -> Callable[[Row], Row]:
    """Puts values given in the order of `names`, and the statement's constants, into the order the SQL has them."""
    own = tuple(name for name in wanted if name not in names)
    fixed = tuple(parameters[name] for name in own)
    if len(wanted) == 1:
        return lambda _values: fixed
    every = (*names, *own)
    pick: Callable[[Row], Row] = itemgetter(*(every.index(name) for name in wanted))
    return lambda values: pick(values + fixed)
