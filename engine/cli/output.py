"""What commands print: a table or sentence for people, one JSON object with --json, errors on stderr with their reason."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

# 80 columns are rich's guess where there is no terminal; a file or a pipe has no width
console = Console(width=None if sys.stdout.isatty() else 200)


def emit_json(value: Any) -> None:  # noqa: ANN401 - JSON is any shape
    """One JSON object on one line of stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """A table without frames; `empty` is said when there are no rows."""
    listed = [[Text(str(cell)) for cell in row] for row in rows]
    if not listed:
        say(empty)
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in listed:
        shown.add_row(*row)
    console.print(shown)


def pairs(rows: Iterable[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    listed = [(name, str(value)) for name, value in rows]
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        say(f"{name.ljust(width)}  {value}")


def say(text: str) -> None:
    """A plain sentence; never wrapped, never read as markup."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fail(reason: str, message: str, *, as_json: bool = False) -> None:
    """An error: the message for people and the stable reason for programs."""
    if as_json:
        emit_json({"error": {"reason": reason, "message": message}})
    else:
        sys.stderr.write(f"error: {message} [{reason}]\n")
        sys.stderr.flush()
