"""Strict reading of a TOML file by a table of fields: every fault at once, each with its line and field.

A file that people sign must hold nothing that the program does not read: an unknown key is an error, never a comment.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, NamedTuple

_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_.-]+)\s*\]\]?\s*(#.*)?$")
_KEY: Final = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")
_AT_LINE: Final = re.compile(r"\(at line (\d+), column (\d+)\)")


_SAID: Final = {str: "text", int: "a whole number", bool: "true or false", list: "a list", date: "a date such as 2027-12-31"}


@dataclass(frozen=True, order=True)
class Finding:
    """One fault of a plan: `line` counts from 1, 0 where no line shows it; `rule` is stable."""

    line: int
    field: str
    rule: str
    message: str

    def __str__(self) -> str:
        place = f"line {self.line}, " if self.line else ""
        return f"{place}{self.field}: {self.message} [{self.rule}]"


class Field(NamedTuple):
    """What a value must be: its type, and for text a pattern or a choice; for numbers a range. A list is of text, each of which fits."""

    kind: type
    required: bool = True
    pattern: re.Pattern[str] | None = None
    choices: tuple[str, ...] = ()
    numbers: range | None = None


Fields = Mapping[str, Field]


@dataclass(frozen=True)
class Table:
    """The fields of one table; `many` for an array of tables."""

    fields: Fields
    required: bool = False
    many: bool = False


class Reading:
    """A parsed file with the line of every value, and the faults found so far."""

    def __init__(self, text: str, top: Fields, tables: Mapping[str, Table]) -> None:
        """Reads and checks `text`; nothing is raised, all faults are in `findings`."""
        self.findings: list[Finding] = []
        self.values: dict[str, Any] = {}
        self._lines = dict(_lines(text))
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            at = _AT_LINE.search(str(error))
            self.findings.append(Finding(int(at[1]) if at else 0, "file", "toml", _AT_LINE.sub("", str(error)).strip()))
            return
        self.values = {name: value for name, value in raw.items() if name in top}
        self._fields({name: value for name, value in raw.items() if name not in tables}, top, "")
        for name, table in tables.items():
            self._table(name, table, raw.get(name))

    def fault(self, field: str, rule: str, message: str) -> None:
        """Adds a finding at the line of `field`, or of the nearest table around it."""
        at = field
        while at and at not in self._lines:
            at = at.rpartition(".")[0]
        self.findings.append(Finding(self._lines.get(at, 0), field or "file", rule, message))

    def clean(self, *names: str) -> bool:
        """Whether nothing was found so far at these fields, nor inside these tables."""
        return not any(re.match(rf"(file|{'|'.join(map(re.escape, names))})([.\\[]|$)", found.field) for found in self.findings)

    def _table(self, name: str, table: Table, found: object) -> None:
        wanted = "an array of tables" if table.many else "a table"
        if found is None:
            if table.required:
                self.fault(name, "missing", f"[[{name}]] is missing" if table.many else f"[{name}] is missing")
            self.values[name] = [] if table.many else None
            return
        if not isinstance(found, list if table.many else dict) or (table.many and not all(isinstance(one, dict) for one in found)):
            self.fault(name, "type", f"must be {wanted}")
            self.values[name] = [] if table.many else None
            return
        self.values[name] = found
        for at, one in enumerate(found) if isinstance(found, list) else [(None, found)]:
            self._fields(one, table.fields, name if at is None else f"{name}[{at}]")

    def _fields(self, found: Mapping[str, object], fields: Fields, where: str) -> None:
        prefix = f"{where}." if where else ""
        for name in found:
            if name not in fields:
                self.fault(prefix + name, "unknown", "no such key in a plan")
        for name, field in fields.items():
            if name in found:
                self._value(prefix + name, field, found[name])
            elif field.required:
                self.fault(prefix + name, "missing", "is missing")

    def _value(self, where: str, field: Field, value: object) -> None:
        if type(value) is not field.kind:
            self.fault(where, "type", f"must be {_SAID[field.kind]}")
        elif isinstance(value, int) and field.numbers is not None and value not in field.numbers:
            self.fault(where, "range", f"must be {field.numbers[0]} to {field.numbers[-1]}")
        elif isinstance(value, list) and not (value and all(isinstance(one, str) for one in value)):
            self.fault(where, "type", "must be a list of texts, and not an empty one")
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str):
                continue
            if field.choices and text not in field.choices:
                self.fault(where, "choice", f"must be one of {', '.join(field.choices)}")
            elif field.pattern and not field.pattern.fullmatch(text):
                self.fault(where, "form", f"does not have the form {field.pattern.pattern}")


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """Field path to line number, for the plain form people write: one key a line under its table's header."""
    where = ""
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            name = header[2]
            where = name
            if header[1] == "[[":
                where = f"{name}[{counts.get(name, 0)}]"
                counts[name] = counts.get(name, 0) + 1
                if counts[name] == 1:
                    yield name, number
            yield where, number
            continue
        key = _KEY.match(line)
        if key:
            yield f"{where}.{key[1]}" if where else key[1], number
