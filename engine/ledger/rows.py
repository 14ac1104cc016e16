"""Rows of a result as plain mappings."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row


def row_values(row: Row[*tuple[Any, ...]]) -> dict[str, Any]:
    """A row's values by column name, in a dictionary of the caller's own."""
    return dict(row._mapping)  # noqa: SLF001 - public in SQLAlchemy: underscored only so as not to meet a column's name
